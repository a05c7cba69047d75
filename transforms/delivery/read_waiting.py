"""ReadWaiting: batches that could not be sent in an earlier round of a drain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam

from schemas.delivery import Batch
from transforms.delivery.batch_by_retailer import retry_shard_of
from transforms.delivery.counters import COUNTERS
from transforms.delivery.elements import ADDRESSED, Addressed, Batches
from transforms.streaming.elements import body_bytes

ReadFile = Callable[[str], tuple[str, list[Batch]]]  # a path to the retailer and the batches in the file


class _ReadFile(beam.DoFn):
    def __init__(self, read: ReadFile) -> None:
        self._read = read
        self._batched = COUNTERS.counter("batched")

    def process(self, path: str) -> Iterator[Addressed]:
        retailer, batches = self._read(path)
        messages = [message for batch in batches for message in batch.messages]
        # They were counted when they reached the delivery the first time, and will be again.
        self._batched.inc(-len(messages), -body_bytes(messages))
        yield (retailer, retry_shard_of(batches[0])), Batches(batches)


class ReadWaiting(beam.PTransform):
    """Batches keyed by (retailer, retry shard), an element a file."""

    def __init__(self, paths: Sequence[str], read: ReadFile) -> None:
        super().__init__()
        self._paths, self._read = list(paths), read

    def expand(self, begin: beam.Pipeline) -> beam.PCollection[Addressed]:
        files = begin | "Files" >> beam.Create(self._paths, reshuffle=False).with_output_types(str)
        return files | "Read" >> beam.ParDo(_ReadFile(self._read)).with_output_types(ADDRESSED)
