"""SkipSettled: on an engine that forgets its state, what an earlier run settled is not read as new."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import apache_beam as beam

from schemas.delivery import DeliveryLedger
from transforms.streaming.counters import Counter
from transforms.streaming.elements import Messages, body_bytes

_ASK = 1_000  # ids in one call to the ledger


class _Skip(beam.DoFn):
    def __init__(self, make: Callable[[], DeliveryLedger]) -> None:
        self._make = make
        self._skipped = Counter("already_settled")

    def setup(self) -> None:
        self._ledger = self._make()
        self._ledger.open()

    def process(self, element: Messages) -> Iterator[Messages]:
        if element.fresh and not any(message.replay for message in element.items):
            yield element  # the claim finds the few that were settled when the last run was killed
            return
        ids = [message.event_id for message in element.items]
        settled: set[str] = set()
        for start in range(0, len(ids), _ASK):
            settled |= set(self._ledger.find(ids[start : start + _ASK]))
        if not settled:
            yield element
            return
        left = [message for message in element.items if message.event_id not in settled]
        self._skipped.inc(len(ids) - len(left), body_bytes(element.items) - body_bytes(left))
        if left:
            yield Messages(left)


class SkipSettled(beam.PTransform):
    """The messages that are not settled, in the lists they came in: one call to the ledger for a thousand."""

    def __init__(self, make: Callable[[], DeliveryLedger]) -> None:
        super().__init__()
        self._make = make

    def expand(self, messages: beam.PCollection[Messages]) -> beam.PCollection[Messages]:
        return messages | "Skip" >> beam.ParDo(_Skip(self._make)).with_output_types(Messages)
