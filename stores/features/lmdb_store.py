"""The embedded feature store: LMDB files in a folder, read by many processes while one at a time writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.features.stamps import Stamp, pack_stamp, stamp_of
from stores.features.keys import entity_prefix, group_prefix, parse_key, row_key
from stores.features.lmdb_environment import Environment
from stores.features.protocol import RowKey

_BATCH = 1_000  # rows of a scan in one transaction: a long one would keep the pages of every write meanwhile


class LmdbStore:
    """A folder with LMDB's files. Writes survive the end of any process. They reach the disk when the system writes
    them: after a power cut, rebuild the store from the log.

    With `read_only` the folder may have no store yet: reading raises JobError until it has one. The map grows by
    `step` bytes when it is full.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, step: int = 4 << 30) -> None:
        self._files = Environment.shared(folder, writes=not read_only, step=step)

    def rows(self, group: str, partition: int, entities: Sequence[str]) -> list[bytes | None]:
        with self._files.reading("rows") as txn:
            return [txn.get(row_key(group, entity, partition)) for entity in entities]

    def write(self, group: str, partition: int, rows: Mapping[str, bytes]) -> int:
        new = [(row_key(group, entity, partition), stamp_of(row), row) for entity, row in rows.items()]

        def put(txn: Any) -> int:
            written = 0
            for key, stamp, row in new:
                before = txn.get(key)
                if before is None or stamp > stamp_of(before):
                    txn.put(key, row)
                    written += 1
            return written

        return self._files.change("rows", put) if new else 0

    def read(self, wanted: Sequence[tuple[str, str]]) -> list[list[bytes]]:
        found = list[list[bytes]]()
        with self._files.reading("rows") as txn, txn.cursor() as cursor:
            for group, entity in wanted:
                prefix, rows = entity_prefix(group, entity), list[bytes]()
                more = cursor.set_range(prefix)
                while more:
                    key, row = cursor.item()
                    if not key.startswith(prefix):
                        break
                    rows.append(row)
                    more = cursor.next()
                found.append(rows)
        return found

    def positions(self, group: str) -> dict[int, Stamp]:
        prefix = group_prefix(group)
        with self._files.reading("positions") as txn, txn.cursor() as cursor:
            found = dict[int, Stamp]()
            more = cursor.set_range(prefix)
            while more and cursor.key().startswith(prefix):
                found[parse_key(cursor.key()).partition] = stamp_of(cursor.value())
                more = cursor.next()
            return found

    def advance(self, group: str, partition: int, stamp: Stamp) -> None:
        key = row_key(group, "", partition)

        def note(txn: Any) -> None:
            before = txn.get(key)
            if before is None or stamp > stamp_of(before):
                txn.put(key, pack_stamp(stamp))

        self._files.change("positions", note)

    def scan(self, group: str) -> Iterator[tuple[RowKey, bytes]]:
        prefix = place = group_prefix(group)
        while True:
            with self._files.reading("rows") as txn, txn.cursor() as cursor:
                batch = list[tuple[bytes, bytes]]()
                more = cursor.set_range(place)
                while more and len(batch) < _BATCH and cursor.key().startswith(prefix):
                    batch.append(cursor.item())
                    more = cursor.next()
            yield from ((parse_key(key), row) for key, row in batch)
            if len(batch) < _BATCH:
                return
            place = batch[-1][0] + b"\0"

    def delete(self, group: str, entity: str) -> int:
        prefix = entity_prefix(group, entity)

        def remove(txn: Any) -> int:
            keys = list[bytes]()
            with txn.cursor() as cursor:
                more = cursor.set_range(prefix)
                while more and cursor.key().startswith(prefix):
                    keys.append(cursor.key())
                    more = cursor.next()
            return sum(txn.delete(key) for key in keys)

        return self._files.change("rows", remove)

    def close(self) -> None:
        self._files.leave()
