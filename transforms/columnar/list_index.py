"""Look-up in list files: suppression lists, and the lists of audiences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from schemas.campaigns.engine import EngineConfig
from schemas.columns.ids import id_texts, normal_addresses, trimmed
from schemas.elements import Ints
from transforms.columnar.id_index import IdIndex

ReadList = Callable[[str, str], pa.Array]
"""Reads the ids of a list file, for a column of the customers: (file, column)."""


class ListIndex:
    """The ids of a list, for look-ups by a column of the customers. Invisible characters around an id are ignored, in
    the list and in the column; of an address of a channel so is the case, since it reaches the same person."""

    def __init__(self, ids: pa.Array, column: str, engine: EngineConfig) -> None:
        addresses = {channel.address for channel in engine.channels.values()}
        self._to_keys = normal_addresses if column in addresses else trimmed
        self._index = IdIndex(self._to_keys(ids))
        self.first = str(ids[0]) if len(ids) else ""

    def __len__(self) -> int:
        """The number of ids in the list."""
        return len(self._index)

    def find(self, column: Any) -> Ints:
        """The position of each row's id in the list; -1 where it is not in it, or null."""
        return self._index.find(self._to_keys(id_texts(column).cast(pa.string())))
