"""PublishEvents and RecordExposures: events leave, then their batch is written down as done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from schemas.contracts import DeadLetter
from schemas.elements import EventBatch, LaunchBatch, Refusal
from schemas.outcomes import code
from transforms.plan import Plan
from transforms.reconciliation.exposures import batch_counts, exposures

STEP = "PublishEvents"


class EventSink(Protocol):
    """Where events go. `send` starts, `settle` returns when all that was sent is safe."""

    def open(self) -> None: ...
    def send(self, events: EventBatch) -> None: ...
    def settle(self) -> list[Refusal]: ...
    def close(self) -> None: ...


def refuse(events: EventBatch, refusals: list[Refusal], trace: str) -> LaunchBatch:
    """The batch with its refused events moved to the dead letters, bytes verbatim."""
    batch = events.batch
    for refusal in refusals:
        campaign, row = (int(part) for part in events.place[:, refusal.row])
        rows = batch.campaigns[campaign]
        rows.outcome[row] = code("dead_lettered", refusal.reason)
        batch.dead_letters.append(
            DeadLetter(
                step=STEP,
                reason=refusal.reason,
                detail=refusal.detail,
                source=f"campaign {rows.campaign} event {events.attributes['event_id'][refusal.row]}",
                data=events.bodies[refusal.row].as_py(),
                trace=trace,
            )
        )
    return batch


class _Publish(beam.DoFn):
    """Sends a batch while the next one is made: one batch is in flight at a time."""

    def __init__(self, plan: Plan, sink: Callable[[], EventSink]) -> None:
        self._plan, self._make = plan, sink

    def setup(self) -> None:
        self._sink = self._make()
        self._sink.open()

    def teardown(self) -> None:
        self._sink.close()

    def start_bundle(self) -> None:
        self._sent: EventBatch | None = None

    def process(self, element: EventBatch) -> Iterator[LaunchBatch]:
        before = self._settled()
        started = time.perf_counter()
        self._sink.send(element)
        element.batch.seconds["publish"] = time.perf_counter() - started
        self._sent = element
        if before is not None:
            yield before

    def finish_bundle(self) -> Iterator[Any]:
        batch = self._settled()
        if batch is not None:
            yield WindowedValue(batch, MIN_TIMESTAMP, (GlobalWindow(),))

    def _settled(self) -> LaunchBatch | None:
        if self._sent is None:
            return None
        events, self._sent = self._sent, None
        started = time.perf_counter()
        refusals = self._sink.settle()
        events.batch.seconds["publish"] += time.perf_counter() - started
        return refuse(events, refusals, f"{self._plan.launch_id}/{events.batch.name}")


class PublishEvents(beam.PTransform):
    """LaunchBatches whose events are safe at the sink; `sink` makes one a worker process."""

    def __init__(self, plan: Plan, sink: Callable[[], EventSink]) -> None:
        super().__init__()
        self._plan, self._sink = plan, sink

    def expand(self, events: beam.PCollection[EventBatch]) -> beam.PCollection[LaunchBatch]:
        return events | "Publish" >> beam.ParDo(_Publish(self._plan, self._sink)).with_output_types(LaunchBatch)


WriteDeadLetters = Callable[[str, list[DeadLetter]], Any]
WriteExposures = Callable[[str, pa.Table, dict[str, Any]], None]


class _Record(beam.DoFn):
    def __init__(self, plan: Plan, dead_letters: WriteDeadLetters, write: WriteExposures) -> None:
        self._plan, self._dead_letters, self._write = plan, dead_letters, write

    def setup(self) -> None:
        self._writing = 0.0

    def process(self, element: LaunchBatch) -> Iterator[str]:
        started = time.perf_counter()
        table = exposures(self._plan, element)
        if element.dead_letters:
            self._dead_letters(element.name, element.dead_letters)
        # The file holds its own batch's times, so the time to write it can only stand in the next one.
        element.seconds["record"] = time.perf_counter() - started + self._writing
        started = time.perf_counter()
        self._write(element.name, table, batch_counts(element))
        self._writing = time.perf_counter() - started
        yield element.name


class RecordExposures(beam.PTransform):
    """The names of finished batches: dead letters first, then the exposures with the counts, as one file."""

    def __init__(self, plan: Plan, dead_letters: WriteDeadLetters, write: WriteExposures) -> None:
        super().__init__()
        self._plan, self._dead_letters, self._write = plan, dead_letters, write

    def expand(self, batches: beam.PCollection[LaunchBatch]) -> beam.PCollection[str]:
        return batches | "Record" >> beam.ParDo(_Record(self._plan, self._dead_letters, self._write))
