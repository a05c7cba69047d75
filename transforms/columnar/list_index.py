"""Look-up in the lists that a person gives: suppression lists, and those of audiences."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from schemas.campaigns.engine import EngineConfig
from schemas.columns.ids import id_texts, normal_addresses, trimmed
from schemas.elements import Ints
from transforms.columnar.id_index import IdIndex


class ListIndex:
    """The ids of a list, for a column of the customers. What nobody sees around an id does not count, on both sides;
    nor does the case of an address, since one that differs in it reaches the same person."""

    def __init__(self, ids: pa.Array, address: bool) -> None:
        self._keys = normal_addresses if address else trimmed
        self._index = IdIndex.build(self._keys(ids))
        self.first = str(ids[0]) if len(ids) else ""

    @classmethod
    def build(cls, ids: pa.Array, column: str, engine: EngineConfig) -> ListIndex:
        """The index of a list that is looked up by a column."""
        return cls(ids, any(channel.address == column for channel in engine.channels.values()))

    def __len__(self) -> int:
        """How many ids the list has."""
        return len(self._index)

    def find(self, column: Any) -> Ints:
        """The place of each row's id in the list; -1 where it is not there or null."""
        return self._index.find(self._keys(id_texts(column).cast(pa.string())))
