"""ReadCustomers: reads the batches of a snapshot that are not done yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from schemas.elements import BROKEN_ROWS, CustomerBatch, Ints

ReadPart = Callable[[Any], Iterator[pa.RecordBatch]]
ReadSelection = Callable[[], Mapping[str, Ints]]


def batch_name(part: int, ordinal: int) -> str:
    """The stable name of a batch: the number of its part of the snapshot, and its number in the part."""
    return f"{part:05d}-{ordinal:03d}"


def select_rows(rows: pa.RecordBatch, places: Ints) -> pa.RecordBatch:
    """Rows of a batch, in ascending order, with their part of its BROKEN_ROWS."""
    selection = rows.take(pa.array(places))
    if broken := (rows.schema.metadata or {}).get(BROKEN_ROWS):
        broken_rows = np.flatnonzero(np.isin(places, np.frombuffer(broken, np.int64))).astype(np.int64)
        selection = selection.replace_schema_metadata({BROKEN_ROWS: broken_rows.tobytes()})
    return selection


class _Read(beam.DoFn):
    def __init__(self, read_part: ReadPart, done: frozenset[str], read_selection: ReadSelection | None) -> None:
        self._read_part, self._done, self._read_selection = read_part, done, read_selection

    def setup(self) -> None:
        self._selection = self._read_selection() if self._read_selection else None

    def process(self, element: Any) -> Iterator[CustomerBatch]:
        for ordinal, rows in enumerate(self._read_part(element)):
            name = batch_name(element.number, ordinal)
            if name in self._done:
                continue
            if self._selection is None:
                yield CustomerBatch(name, rows)
            elif name in self._selection:
                yield CustomerBatch(name, select_rows(rows, self._selection[name]), self._selection[name])


class ReadCustomers(beam.PTransform):
    """CustomerBatches of a snapshot's parts, spread over the workers, without the batches in `done`.

    `read_part` reads the record batches of a part. `read_selection` reads sorted row numbers by batch name, once a
    worker; only these rows are read then.
    """

    def __init__(
        self,
        parts: Collection[Any],
        read_part: ReadPart,
        done: Collection[str] = (),
        read_selection: ReadSelection | None = None,
    ) -> None:
        super().__init__()
        self._parts = [p for p in parts if any(batch_name(p.number, n) not in done for n in range(p.batches))]
        self._read = _Read(read_part, frozenset(done), read_selection)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[CustomerBatch]:
        return (
            pipeline
            | "Parts" >> beam.Create(self._parts, reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(self._read).with_output_types(CustomerBatch)
        )
