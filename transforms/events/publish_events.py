"""PublishEvents: events are safe at the sink before their batch goes on; refused ones become dead letters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from schemas.contracts import DeadLetter
from schemas.elements import EventBatch, LaunchBatch, Refusal
from schemas.outcomes import code
from transforms.launch_plan import Plan

STEP = "PublishEvents"


class EventSink(Protocol):
    """The destination of events. `send` starts sending; `settle` returns when all that was sent is safe."""

    def open(self) -> None: ...
    def send(self, events: EventBatch) -> None: ...
    def settle(self) -> list[Refusal]: ...
    def close(self) -> None: ...


class PublishEvents(beam.PTransform):
    """LaunchBatches whose events are safe at the sink; `open_sink` makes one sink a worker process."""

    def __init__(self, plan: Plan, open_sink: Callable[[], EventSink]) -> None:
        super().__init__()
        self._plan, self._open_sink = plan, open_sink

    def expand(self, events: beam.PCollection[EventBatch]) -> beam.PCollection[LaunchBatch]:
        return events | "Publish" >> beam.ParDo(_Publish(self._plan, self._open_sink)).with_output_types(LaunchBatch)


def refuse_events(events: EventBatch, refusals: Sequence[Refusal], trace: str) -> LaunchBatch:
    """The batch in which each refused event is a dead letter, bytes verbatim, and its customer dead-lettered."""
    if not refusals:
        return events.batch
    campaigns, dead_letters = list(events.batch.campaigns), list(events.batch.dead_letters)
    outcomes = {
        campaign: campaigns[campaign].outcome.copy()
        for campaign in {int(events.place[0, refusal.row]) for refusal in refusals}
    }
    for refusal in refusals:
        campaign, row = (int(part) for part in events.place[:, refusal.row])
        outcomes[campaign][row] = code("dead_lettered", refusal.reason)
        dead_letters.append(
            DeadLetter(
                step=STEP,
                reason=refusal.reason,
                detail=refusal.detail,
                source=f"campaign {campaigns[campaign].campaign} event {events.attributes['event_id'][refusal.row]}",
                data=events.bodies[refusal.row].as_py(),
                trace=trace,
            )
        )
    for campaign, outcome in outcomes.items():
        campaigns[campaign] = replace(campaigns[campaign], outcome=outcome)
    return replace(events.batch, campaigns=campaigns, dead_letters=dead_letters)


class _Publish(beam.DoFn):
    """Sends a batch while the next one is built: one batch is in flight at a time."""

    def __init__(self, plan: Plan, open_sink: Callable[[], EventSink]) -> None:
        self._plan, self._open_sink = plan, open_sink

    def setup(self) -> None:
        self._sink = self._open_sink()
        self._sink.open()

    def teardown(self) -> None:
        self._sink.close()

    def start_bundle(self) -> None:
        self._in_flight: EventBatch | None = None

    def process(self, element: EventBatch) -> Iterator[LaunchBatch]:
        settled = self._settle()
        started = time.perf_counter()
        self._sink.send(element)
        self._in_flight, self._send_seconds = element, time.perf_counter() - started
        if settled is not None:
            yield settled

    def finish_bundle(self) -> Iterator[Any]:
        batch = self._settle()
        if batch is not None:
            yield WindowedValue(batch, MIN_TIMESTAMP, (GlobalWindow(),))

    def _settle(self) -> LaunchBatch | None:
        """The batch in flight, once its events are safe or refused."""
        if self._in_flight is None:
            return None
        events, self._in_flight = self._in_flight, None
        started = time.perf_counter()
        refusals = self._sink.settle()
        seconds = self._send_seconds + time.perf_counter() - started
        trace = f"{self._plan.launch_id}/{events.batch.name}"
        return refuse_events(events, refusals, trace).with_seconds("publish", seconds)
