"""MapBatches: applies a function to each batch, made once a worker process, and notes its seconds."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam

from schemas.elements import CustomerBatch, EventBatch, LaunchBatch

Factory = Callable[[], Callable[[Any], Any]]


class BatchCoder(beam.coders.Coder):
    """Pickles batches between steps. Beam asks for the sizes of elements now and then; pickling a batch to learn it
    costs a tenth of a launch, so the size of its customers is given instead."""

    def encode(self, value: Any) -> bytes:
        """The batch as bytes, for engines that move it."""
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Any:
        """The batch that was encoded."""
        return pickle.loads(encoded)

    def estimate_size(self, value: Any) -> int:
        """Bytes of the customers' rows."""
        batch = value.batch if isinstance(value, EventBatch) else value
        return int(batch.rows.nbytes)

    def is_deterministic(self) -> bool:
        """False: a batch cannot be a key."""
        return False


for _batch_type in (CustomerBatch, LaunchBatch, EventBatch):
    beam.coders.registry.register_coder(_batch_type, BatchCoder)


class _MapBatches(beam.DoFn):
    def __init__(self, stage: str, factory: Factory) -> None:
        self._stage, self._factory = stage, factory

    def setup(self) -> None:
        self._function = self._factory()

    def process(self, element: Any) -> Iterator[Any]:
        started = time.perf_counter()
        result = self._function(element)
        yield result.with_seconds(self._stage, time.perf_counter() - started)


class MapBatches(beam.PTransform):
    """Applies a function to each batch. `factory` makes it once a worker process; the result is a new batch, which also
    carries the function's seconds under the name `stage`."""

    input_type: type = LaunchBatch
    output_type: type = LaunchBatch

    def __init__(self, stage: str, factory: Factory) -> None:
        super().__init__()
        self._stage, self._factory = stage, factory

    def expand(self, batches: beam.PCollection[Any]) -> beam.PCollection[Any]:
        step = beam.ParDo(_MapBatches(self._stage, self._factory))
        step = step.with_input_types(self.input_type).with_output_types(self.output_type)
        return batches | type(self).__name__ >> step
