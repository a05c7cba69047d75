"""ReadCustomers: the batches of a snapshot that are not done yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from schemas.elements import BROKEN_ROWS, CustomerBatch, Ints

OnlyRows = Callable[[], Mapping[str, Ints]]
ReadPart = Callable[[Any], Iterator[pa.RecordBatch]]


def batch_name(part: int, ordinal: int) -> str:
    """The stable name of a batch: its part of the snapshot, and its place in the part."""
    return f"{part:05d}-{ordinal:03d}"


def unfinished(parts: Collection[Any], done: Collection[str]) -> list[Any]:
    """The parts that still have a batch to do."""
    return [part for part in parts if any(batch_name(part.number, n) not in done for n in range(part.batches))]


class _Read(beam.DoFn):
    def __init__(self, read: ReadPart, done: frozenset[str], only: OnlyRows | None) -> None:
        self._read, self._done, self._rows_only = read, done, only

    def setup(self) -> None:
        self._only = self._rows_only() if self._rows_only else None

    def process(self, element: Any) -> Iterator[CustomerBatch]:
        for ordinal, rows in enumerate(self._read(element)):
            name = batch_name(element.number, ordinal)
            if name in self._done or (self._only is not None and name not in self._only):
                continue
            if self._only is None:
                yield CustomerBatch(name, rows)
            else:
                yield CustomerBatch(name, some_rows(rows, self._only[name]), self._only[name])


def some_rows(rows: pa.RecordBatch, places: Ints) -> pa.RecordBatch:
    """Rows of a batch, in ascending order; what its metadata says of them stays with them."""
    found = rows.take(pa.array(places))
    if broken := (rows.schema.metadata or {}).get(BROKEN_ROWS):
        still = np.flatnonzero(np.isin(places, np.frombuffer(broken, np.int64))).astype(np.int64)
        found = found.replace_schema_metadata({BROKEN_ROWS: still.tobytes()})
    return found


class ReadCustomers(beam.PTransform):
    """CustomerBatches of a snapshot's parts, spread over the workers; batches in `done` are left out.

    With `only`, which gives sorted row numbers by batch to a worker, nothing but these rows.
    """

    def __init__(
        self, parts: Collection[Any], read: ReadPart, done: Collection[str] = (), only: OnlyRows | None = None
    ) -> None:
        super().__init__()
        self._parts, self._read, self._done, self._only = parts, read, frozenset(done), only

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[CustomerBatch]:
        return (
            pipeline
            | "Parts" >> beam.Create(unfinished(self._parts, self._done), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_Read(self._read, self._done, self._only)).with_output_types(CustomerBatch)
        )
