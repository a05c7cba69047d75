"""What every step of the launch has in common: a worker made once, fed batch by batch, timed."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam

from schemas.elements import CustomerBatch, EventBatch, LaunchBatch

Worker = Callable[[Any], Any]


class BatchCoder(beam.coders.Coder):
    """Batches between steps. Beam asks for the sizes of elements now and then; pickling a batch to learn it costs
    a tenth of a launch, so the customers' own size stands for it."""

    def encode(self, value: Any) -> bytes:
        """The batch as bytes, for engines that move it."""
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Any:
        """The batch again."""
        return pickle.loads(encoded)

    def estimate_size(self, value: Any) -> int:
        """Bytes of the customers' rows."""
        batch = value.batch if isinstance(value, EventBatch) else value
        return int(batch.rows.nbytes)

    def is_deterministic(self) -> bool:
        """A batch is no key."""
        return False


for _batch in (CustomerBatch, LaunchBatch, EventBatch):
    beam.coders.registry.register_coder(_batch, BatchCoder)


class _Work(beam.DoFn):
    def __init__(self, stage: str, make: Callable[[], Worker]) -> None:
        self._stage = stage
        self._make = make

    def setup(self) -> None:
        self._worker = self._make()

    def process(self, element: Any) -> Iterator[Any]:
        started = time.perf_counter()
        made = self._worker(element)
        batch = made.batch if isinstance(made, EventBatch) else made
        batch.seconds[self._stage] = time.perf_counter() - started
        yield made


class BatchStep(beam.PTransform):
    """A step from batch to batch. `make` is called once a worker process and returns the function that is
    applied to each batch; the time it takes is added to the batch under the name `stage`."""

    stage = "step"
    gives: type = LaunchBatch

    def __init__(self, make: Callable[[], Worker]) -> None:
        super().__init__()
        self._make = make

    def expand(self, batches: beam.PCollection[Any]) -> beam.PCollection[Any]:
        return batches | type(self).__name__ >> beam.ParDo(_Work(self.stage, self._make)).with_output_types(self.gives)
