"""The feature store in Bigtable: a row for each group and entity, a column for each partition and epoch.

The stamp decides without a transaction. A column's name ends with the epoch, and a cell's timestamp is the position: so
many milliseconds. The newest cell of a column is the one with the larger position, in whatever order they arrive, and a
reader takes the column with the largest epoch. CheckAndMutateRow would do it too, but only one row a call: 500 calls
where MutateRows needs one. One timestamp cannot hold a whole stamp: it has 53 bits, a stamp 95.

A table needs the column family `f` with at most one version: `cbt createtable T families=f:maxversions=1`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from google.api_core.exceptions import GoogleAPICallError, NotFound, PermissionDenied, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud.bigtable.data import BigtableDataClient, ReadRowsQuery, RowMutationEntry, RowRange
from google.cloud.bigtable.data.exceptions import MutationsExceptionGroup
from google.cloud.bigtable.data.mutations import DeleteAllFromRow, DeleteRangeFromColumn, SetCell
from google.cloud.bigtable.data.row_filters import CellsColumnLimitFilter, RowFilterChain, StripValueTransformerFilter

from schemas.features.stamps import Stamp, pack_stamp, stamp_of
from schemas.problems import JobError
from stores.features.keys import entity_prefix, group_prefix, parse_key
from stores.features.protocol import RowKey

FAMILY = "f"
_COLUMN = struct.Struct(">HI")  # partition, epoch
_PARTITION = struct.Struct(">H")
_POSITIONS = b"\0"  # what the rows of positions begin with, and no group
_MOST_POSITION = (1 << 63) // 1_000 // 1_000  # a timestamp is a signed number of microseconds, in whole milliseconds
_BATCH = 500  # rows of one call
_NEWEST = CellsColumnLimitFilter(1)
_STAMPS = RowFilterChain([_NEWEST, StripValueTransformerFilter(True)])


class _Cell(NamedTuple):
    stamp: Stamp
    row: bytes


class BigtableStore:
    """A FeatureStore in a table of Bigtable. Safe for several threads, and for several processes if each opens its own.

    It connects when it is made. BIGTABLE_EMULATOR_HOST names an emulator. What does not answer within `deadline_s`
    seconds, retries included, is a JobError. Of two processes that write the same row at once both may count it.
    """

    def __init__(self, project: str, instance: str, table: str, *, deadline_s: float = 5.0) -> None:
        self._name = f"projects/{project}/instances/{instance}/tables/{table}"
        times = {"operation_timeout": deadline_s, "attempt_timeout": deadline_s}
        self._read_times = self._write_times = times
        with self._answering():
            self._client: Any = BigtableDataClient(project=project)
            self._table: Any = self._client.get_table(instance, table)

    def rows(self, group: str, partition: int, entities: Sequence[str]) -> list[bytes | None]:
        keys = [entity_prefix(group, entity) for entity in entities]
        found = self._cells(keys, _NEWEST)
        cells = [found.get(key, {}).get(partition) for key in keys]
        return [cell and cell.row for cell in cells]

    def write(self, group: str, partition: int, rows: Mapping[str, bytes]) -> int:
        new = {entity_prefix(group, entity): _Cell(stamp_of(row), row) for entity, row in rows.items()}
        return self._write(partition, new)

    def read(self, wanted: Sequence[tuple[str, str]]) -> list[list[bytes]]:
        keys = [entity_prefix(group, entity) for group, entity in wanted]
        found = self._cells(keys, _NEWEST)
        return [[cell.row for _, cell in sorted(found.get(key, {}).items())] for key in keys]

    def positions(self, group: str) -> dict[int, Stamp]:
        key = _POSITIONS + group_prefix(group)
        cells = self._cells([key], _STAMPS).get(key, {})
        return {partition: cell.stamp for partition, cell in sorted(cells.items())}

    def advance(self, group: str, partition: int, stamp: Stamp) -> None:
        self._write(partition, {_POSITIONS + group_prefix(group): _Cell(stamp, pack_stamp(stamp))})

    def scan(self, group: str) -> Iterator[tuple[RowKey, bytes]]:
        prefix = group_prefix(group)
        place: tuple[bytes, bool] = (prefix, True)
        while True:  # each call has its deadline, the scan has none
            rows_range = RowRange(place[0], _after(prefix), start_is_inclusive=place[1], end_is_inclusive=False)
            query = ReadRowsQuery(row_ranges=[rows_range], row_filter=_NEWEST, limit=_BATCH)
            with self._answering():
                rows = self._table.read_rows(query, **self._read_times)
            for row in rows:
                for partition, cell in sorted(_largest(row).items()):
                    yield parse_key(row.row_key + _PARTITION.pack(partition)), cell.row
            if len(rows) < _BATCH:
                return
            place = rows[-1].row_key, False

    def delete(self, group: str, entity: str) -> int:
        key = entity_prefix(group, entity)
        partitions = self._cells([key], _STAMPS).get(key, {})
        with self._answering():
            self._table.mutate_row(key, DeleteAllFromRow(), **self._write_times)
        return len(partitions)

    def close(self) -> None:
        self._client.close()

    def _write(self, partition: int, new: Mapping[bytes, _Cell]) -> int:
        """Reads the stamps that are there first: to count, and to remove the cells of earlier epochs."""
        keys, written = list(new), 0
        for start in range(0, len(keys), _BATCH):
            part = keys[start : start + _BATCH]
            columns = self._columns(part, partition)
            entries = list[RowMutationEntry]()
            for key in part:
                cell, present = new[key], columns.get(key, set())
                if present and max(present) >= cell.stamp:
                    continue
                if not 0 <= cell.stamp.position < _MOST_POSITION:
                    raise JobError(f"{self._name}: Bigtable cannot hold position {cell.stamp.position:,}")
                column, time = _COLUMN.pack(partition, cell.stamp.epoch), cell.stamp.position * 1_000
                old = [stamp for stamp in present if stamp.epoch < cell.stamp.epoch]
                changes = [DeleteRangeFromColumn(FAMILY, _COLUMN.pack(partition, stamp.epoch)) for stamp in old]
                entries.append(RowMutationEntry(key, [*changes, SetCell(FAMILY, column, cell.row, time)]))
            if entries:
                with self._answering():
                    self._table.bulk_mutate_rows(entries, **self._write_times)
            written += len(entries)
        return written

    def _columns(self, keys: Sequence[bytes], partition: int) -> dict[bytes, set[Stamp]]:
        """The newest stamp of each epoch of a partition, by row."""
        found = dict[bytes, set[Stamp]]()
        for row in self._read(keys, _STAMPS):
            stamps = (_stamp(cell) for cell in row.cells)
            found[row.row_key] = {stamp for place, stamp in stamps if place == partition}
        return found

    def _cells(self, keys: Sequence[bytes], row_filter: Any) -> dict[bytes, dict[int, _Cell]]:
        return {row.row_key: _largest(row) for row in self._read(keys, row_filter)}

    def _read(self, keys: Sequence[bytes], row_filter: Any) -> list[Any]:
        if not keys:
            return []  # a query without keys would read the whole table
        with self._answering():
            query = ReadRowsQuery(row_keys=list(dict.fromkeys(keys)), row_filter=row_filter)
            return list(self._table.read_rows(query, **self._read_times))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except GoogleAuthError as error:
            todo = "Run `gcloud auth application-default login`, or set BIGTABLE_EMULATOR_HOST for an emulator"
            raise JobError(f"No Google credentials ({error})", todo) from error
        except (GoogleAPICallError, RetryError, MutationsExceptionGroup) as error:
            causes = [repr(one) for one in _causes(error)]
            if any(isinstance(one, NotFound) for one in _causes(error)):
                table = self._name.rpartition("/")[2]
                todo = f"Make the table and its family: `cbt createtable {table} families={FAMILY}:maxversions=1`"
            elif any(isinstance(one, PermissionDenied) for one in _causes(error)):
                todo = "Grant the account roles/bigtable.user"
            else:
                todo = "See whether the instance runs and can be reached"
            raise JobError(f"{self._name} does not answer: {', '.join(dict.fromkeys(causes))[:500]}", todo) from error


def _stamp(cell: Any) -> tuple[int, Stamp]:
    partition, epoch = _COLUMN.unpack(cell.qualifier)
    return partition, Stamp(epoch, cell.timestamp_micros // 1_000)


def _largest(row: Any) -> dict[int, _Cell]:
    """The cell with the largest stamp of each partition."""
    largest = dict[int, _Cell]()
    for cell in row.cells:
        partition, stamp = _stamp(cell)
        if partition not in largest or stamp > largest[partition].stamp:
            largest[partition] = _Cell(stamp, cell.value)
    return largest


def _after(prefix: bytes) -> bytes:
    """The first key behind all that begin with a prefix, which ends with a byte below 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _causes(error: BaseException) -> list[BaseException]:
    """An error, what it was raised from, and the members of a group, each with theirs."""
    inner = [*getattr(error, "exceptions", ()), *([error.__cause__] if error.__cause__ else [])]
    return [error, *(one for cause in inner for one in _causes(cause))]
