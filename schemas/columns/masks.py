"""Masks: Arrow's answers about rows as numpy's booleans."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc


def to_mask(column: Any) -> npt.NDArray[np.bool_]:
    """A column of booleans as a mask; null is false."""
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), dtype=np.bool_)
