"""TestStreams with one clock, for the steps and for the runner's timers; the traits of engines; messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.direct import clock as direct_clock
from apache_beam.testing.test_stream import TestStream

from schemas.delivery import Message
from transforms.streaming.engine_traits import EngineTraits

LOCAL = EngineTraits(wall_clock_timers=True, single_process=True, retries_bundles=False, durable_state=False)
CLUSTER = EngineTraits(wall_clock_timers=True, single_process=False, retries_bundles=True, durable_state=True)
NO_TIMERS = LOCAL._replace(wall_clock_timers=False)
# A step is pickled: what it reads and notes while a stream runs must belong to the module. Both are reset by run_stream.
_NOW = [0.0]
_NOTED: list[Any] = []


def stream_clock() -> float:
    """Seconds of the running TestStream, which begins at 0."""
    return _NOW[0]


@contextmanager
def _one_clock() -> Iterator[None]:
    original = direct_clock.TestClock.advance_time

    def advance(self: Any, by: Any) -> None:
        original(self, by)
        _NOW[0] = float(self.time())

    direct_clock.TestClock.advance_time = advance
    _NOW[0] = 0.0
    try:
        yield
    finally:
        direct_clock.TestClock.advance_time = original


def _note(element: Any) -> None:
    _NOTED.append((stream_clock(), element))


def run_stream(stream: TestStream, step: Callable[[Any], Any], kind: Any) -> list[tuple[float, Any]]:
    """(time, element) of everything that the step puts out, in order. `kind` is the type of the stream's elements."""
    _NOTED.clear()
    options = PipelineOptions([])
    options.view_as(StandardOptions).streaming = True
    options.view_as(StandardOptions).runner = "BundleBasedDirectRunner"
    with _one_clock(), beam.Pipeline(options=options) as p:
        typed = p | stream | "Typed" >> beam.Map(lambda x: x).with_output_types(kind)
        _ = step(typed) | "Note" >> beam.Map(_note)
    return list(_NOTED)


def any_message(number: int = 1, **changes: Any) -> Message:
    """A message whose id, customer and body follow from a number."""
    values: dict[str, Any] = {
        "event_id": f"{number:032x}",
        "retailer_id": "kroger",
        "vendor_campaign": "vc-1",
        "customer_id": f"customer-{number}",
        "schema": "0" * 16,
        "body": b"body",
        **changes,
    }
    return Message(**values)


class Memory:
    """A buffer in memory; `parts` is what it holds."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self.written = 0

    def write(self, data: bytes) -> str | None:
        self.written += 1
        self.parts[str(self.written)] = data
        return str(self.written)

    def read(self, place: str) -> bytes:
        return self.parts[place]

    def free(self, place: str) -> None:
        del self.parts[place]
