"""to_mask: an Arrow column of booleans as a numpy mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc


def to_mask(column: Any) -> npt.NDArray[np.bool_]:
    """The mask of a column of booleans; null is false."""
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), dtype=np.bool_)
