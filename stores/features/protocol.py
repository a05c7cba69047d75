"""What every feature store does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from schemas.features.stamps import Stamp


class RowKey(NamedTuple):
    """Whose row: of a group (`name@version`), an entity, and the partition of the log that its events came from."""

    group: str
    entity: str
    partition: int


class FeatureStore(Protocol):
    """Rows by group, entity and partition. Any number of processes write and read: of two rows of a key the one with
    the larger stamp stays, whichever is written last. All methods raise JobError where the store does not answer."""

    def rows(self, group: str, partition: int, entities: Sequence[str]) -> list[bytes | None]:
        """The row of each entity from one partition, in one round trip."""

    def write(self, group: str, partition: int, rows: Mapping[str, bytes]) -> int:
        """Writes rows by entity, each unless the store has one with a larger or equal stamp; gives the number written.
        When this returns, every reader sees them."""

    def read(self, wanted: Sequence[tuple[str, str]]) -> list[list[bytes]]:
        """The rows of each (group, entity) from every partition, in one round trip."""

    def positions(self, group: str) -> dict[int, Stamp]:
        """By partition: every event before the position is folded into the rows of the group."""

    def advance(self, group: str, partition: int, stamp: Stamp) -> None:
        """Notes that every event before the position is folded in, unless more is noted already."""

    def scan(self, group: str) -> Iterator[tuple[RowKey, bytes]]:
        """Every row of a group, in no order; rows that are written meanwhile may be missing."""

    def delete(self, group: str, entity: str) -> int:
        """Removes the rows of an entity whose position is not needed any more; gives their number."""

    def close(self) -> None:
        """Disconnects."""
