"""RecordReceipts and RecordDeadLetters: what became of each message is written down, then the ledger is told."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam

from schemas.contracts import DeadLetter
from schemas.delivery import DeliveryLedger, Receipt, Settlement
from transforms.rebatch.decode import STEP as DECODE
from transforms.rebatch.decode import dead_id
from transforms.rebatch.elements import Receipts, at_finish
from transforms.rebatch.outcomes import decode_receipt

_CALL = 1_000
_SWEEP_S = 60.0
MakeLedger = Callable[[], DeliveryLedger]
WriteReceipts = Callable[[str, Sequence[Receipt]], Any]
WriteLetters = Callable[[str, list[DeadLetter]], Any]


class _Recorder(beam.DoFn):
    """Keeps what a bundle brings and records it when the bundle ends."""

    def __init__(self, make: MakeLedger, write: Callable[[str, Any], Any]) -> None:
        self._make, self._write = make, write

    def setup(self) -> None:
        self._ledger = self._make()
        self._ledger.open()
        self._swept = time.monotonic()

    def start_bundle(self) -> None:
        self._kept: list[Any] = []


class _End(beam.PTransform):
    """Nothing, as a stage of its own: Prism turns a core at full speed for as long as a bundle without outputs
    runs, so a stage that writes files must not be the last one."""

    def expand(self, counts: Any) -> Any:
        typed = counts | "Counts" >> beam.Map(int).with_output_types(int)
        return typed | "Apart" >> beam.Reshuffle() | "Nothing" >> beam.Filter(_never)


def _never(count: int) -> bool:
    return False


class _RecordReceipts(_Recorder):
    def process(self, element: Receipts) -> Iterator[Any]:
        self._kept += element.items
        return iter(())

    def finish_bundle(self) -> Iterator[Any]:
        if self._kept:
            self._record(self._kept)
            yield at_finish(len(self._kept))
        if time.monotonic() - self._swept > _SWEEP_S:
            self._swept = time.monotonic()
            left = self._ledger.unreported(_CALL)
            if left:
                self._record([decode_receipt(data) for _, data in left])

    def _record(self, receipts: list[Receipt]) -> None:
        self._write(f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}", receipts)
        for start in range(0, len(receipts), _CALL):
            self._ledger.report([one.event_id for one in receipts[start : start + _CALL]])


class RecordReceipts(beam.PTransform):
    """Receipts as files of the event store, at least once each: the ledger keeps a receipt until its file is
    written, and what a crash left there is written by the next run."""

    def __init__(self, make: MakeLedger, write: WriteReceipts) -> None:
        super().__init__()
        self._make, self._write = make, write

    def expand(self, receipts: beam.PCollection[Receipts]) -> beam.PCollection[Any]:
        return receipts | "Record" >> beam.ParDo(_RecordReceipts(self._make, self._write)) | "End" >> _End()


class _Unreported(beam.DoFn):
    def __init__(self, make: MakeLedger) -> None:
        self._make = make

    def process(self, element: Any) -> Iterator[Receipts]:
        ledger = self._make()
        ledger.open()
        seen: set[str] = set()
        while left := [(name, data) for name, data in ledger.unreported(len(seen) + _CALL) if name not in seen]:
            seen |= {name for name, _ in left}
            yield Receipts([decode_receipt(data) for _, data in left])


class UnreportedReceipts(beam.PTransform):
    """The receipts that an earlier run settled and did not get to write."""

    def __init__(self, make: MakeLedger) -> None:
        super().__init__()
        self._make = make

    def expand(self, begin: Any) -> beam.PCollection[Receipts]:
        unreported = beam.ParDo(_Unreported(self._make)).with_output_types(Receipts)
        return begin | "Once" >> beam.Create([0], reshuffle=False) | "Unreported" >> unreported


class _RecordDead(_Recorder):
    def process(self, element: DeadLetter) -> Iterator[Any]:
        self._kept.append(element)
        return iter(())

    def finish_bundle(self) -> Iterator[Any]:
        if not self._kept:
            return
        yield at_finish(len(self._kept))
        named = {dead_id(letter): letter for letter in self._kept}
        unread = [name for name, letter in named.items() if letter.step == DECODE]
        known = self._ledger.find(unread) if unread else {}
        fresh = [letter for name, letter in named.items() if name not in known]
        if fresh:
            self._write(f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}", fresh)
        ends = [Settlement(name, "dead") for name in unread if name not in known]
        for start in range(0, len(ends), _CALL):
            self._ledger.settle(f"dead/{uuid.uuid4().hex}", ends[start : start + _CALL], int(time.time() * 1000))


class RecordDeadLetters(beam.PTransform):
    """Dead letters as files; the ledger remembers those that could not be decoded, so that a message that comes
    again leaves no second letter."""

    def __init__(self, make: MakeLedger, write: WriteLetters) -> None:
        super().__init__()
        self._make, self._write = make, write

    def expand(self, letters: beam.PCollection[DeadLetter]) -> beam.PCollection[Any]:
        return letters | "Record" >> beam.ParDo(_RecordDead(self._make, self._write)) | "End" >> _End()
