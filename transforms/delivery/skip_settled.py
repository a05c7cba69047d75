"""SkipSettled: drops what an earlier run settled, for an engine whose state does not survive its run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import apache_beam as beam

from schemas.delivery import DeliveryLedger, ledger_steps
from transforms.delivery.counters import COUNTERS
from transforms.delivery.elements import Messages
from transforms.streaming.elements import body_bytes


class _Skip(beam.DoFn):
    def __init__(self, make: Callable[[], DeliveryLedger]) -> None:
        self._make = make
        self._skipped = COUNTERS.counter("already_settled")

    def setup(self) -> None:
        self._ledger = self._make()
        self._ledger.open()

    def process(self, element: Messages) -> Iterator[Messages]:
        if element.source_resumes and not any(message.replay for message in element.items):
            yield element  # the claim finds the few that were settled when the last run was killed
            return
        ids = [message.event_id for message in element.items]
        settled = {event_id for step in ledger_steps(ids) for event_id in self._ledger.find(step)}
        if not settled:
            yield element
            return
        rest = [message for message in element.items if message.event_id not in settled]
        self._skipped.inc(len(ids) - len(rest), body_bytes(element.items) - body_bytes(rest))
        if rest:
            yield Messages(rest)


class SkipSettled(beam.PTransform):
    """The lists without the messages that are settled: one call to the ledger for a thousand. Counts
    `already_settled`. Steps: Skip."""

    def __init__(self, make: Callable[[], DeliveryLedger]) -> None:
        super().__init__()
        self._make = make

    def expand(self, messages: beam.PCollection[Messages]) -> beam.PCollection[Messages]:
        return messages | "Skip" >> beam.ParDo(_Skip(self._make)).with_output_types(Messages)
