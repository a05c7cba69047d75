"""ReadCustomers: the batches of a snapshot that are not done yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa

from schemas.elements import CustomerBatch

ReadPart = Callable[[Any], Iterator[pa.RecordBatch]]


def batch_name(part: int, ordinal: int) -> str:
    """The stable name of a batch: its part of the snapshot, and its place in the part."""
    return f"{part:05d}-{ordinal:03d}"


def unfinished(parts: Collection[Any], done: Collection[str]) -> list[Any]:
    """The parts that still have a batch to do."""
    return [part for part in parts if any(batch_name(part.number, n) not in done for n in range(part.batches))]


class _Read(beam.DoFn):
    def __init__(self, read: ReadPart, done: frozenset[str]) -> None:
        self._read, self._done = read, done

    def process(self, element: Any) -> Iterator[CustomerBatch]:
        for ordinal, rows in enumerate(self._read(element)):
            name = batch_name(element.number, ordinal)
            if name not in self._done:
                yield CustomerBatch(name, rows)


class ReadCustomers(beam.PTransform):
    """CustomerBatches of a snapshot's parts, spread over the workers; batches in `done` are left out."""

    def __init__(self, parts: Collection[Any], read: ReadPart, done: Collection[str] = ()) -> None:
        super().__init__()
        self._parts, self._read, self._done = parts, read, frozenset(done)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[CustomerBatch]:
        return (
            pipeline
            | "Parts" >> beam.Create(unfinished(self._parts, self._done), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_Read(self._read, self._done))
        )
