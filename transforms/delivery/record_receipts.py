"""RecordReceipts and RecordDeadLetters: what became of each message is written down, then the ledger is told."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam

from schemas.contracts import DeadLetter
from schemas.delivery import DeliveryLedger, Receipt, Settlement
from transforms.delivery.decode_events import dead_id
from transforms.delivery.elements import Receipts
from transforms.delivery.receipts import decode_receipts
from transforms.streaming.elements import at_finish

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
    def __init__(self, make: MakeLedger, write: WriteReceipts, write_letters: WriteLetters) -> None:
        super().__init__(make, write)
        self._write_letters = write_letters

    def start_bundle(self) -> None:
        super().start_bundle()
        self._letters: list[DeadLetter] = []

    def process(self, element: Receipts) -> Iterator[Any]:
        self._kept += element.items
        self._letters += element.letters
        return iter(())

    def finish_bundle(self) -> Iterator[Any]:
        if self._kept:
            record(self._ledger, self._write, self._write_letters, Receipts(self._kept, self._letters))
            yield at_finish(len(self._kept))
        if time.monotonic() - self._swept > _SWEEP_S:
            self._swept = time.monotonic()
            record_left(self._ledger, self._write, self._write_letters, time.time() - _SWEEP_S)


def record(ledger: DeliveryLedger, write: WriteReceipts, write_letters: WriteLetters, receipts: Receipts) -> None:
    """Writes receipts and their letters; then the ledger need not keep them any more."""
    name, ids = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}", [one.event_id for one in receipts.items]
    if receipts.letters:
        write_letters(name, receipts.letters)
    write(name, receipts.items)
    for start in range(0, len(ids), _CALL):
        ledger.report(ids[start : start + _CALL])


def record_left(ledger: DeliveryLedger, write: WriteReceipts, write_letters: WriteLetters, before_s: float) -> int:
    """Writes the receipts that were settled before a time (epoch seconds) and not written, for whoever settled them
    died; how many. They come a thousand at a time: a few younger ones may be among the last.

    A job that goes on from a checkpoint does not begin anew, and so never meets UnreportedReceipts.
    """
    count = 0
    while left := ledger.unreported(_CALL):
        receipts = decode_receipts(data for _, data in left)
        if receipts.items[0].settled_at >= before_s * 1000:
            break
        record(ledger, write, write_letters, receipts)
        count += len(left)
    return count


class RecordReceipts(beam.PTransform):
    """Receipts as files of the event store, at least once each, and before them the dead letters of the refused: the
    ledger keeps both until they are written, and what a crash left there is written by the next run."""

    def __init__(self, make: MakeLedger, write: WriteReceipts, write_letters: WriteLetters) -> None:
        super().__init__()
        self._record = _RecordReceipts(make, write, write_letters)

    def expand(self, receipts: beam.PCollection[Receipts]) -> beam.PCollection[Any]:
        return receipts | "Record" >> beam.ParDo(self._record) | "End" >> _End()


class _Unreported(beam.DoFn):
    def __init__(self, make: MakeLedger) -> None:
        self._make = make

    def process(self, element: Any) -> Iterator[Receipts]:
        ledger = self._make()
        ledger.open()
        seen: set[str] = set()
        while left := [(name, data) for name, data in ledger.unreported(len(seen) + _CALL) if name not in seen]:
            seen |= {name for name, _ in left}
            yield decode_receipts(data for _, data in left)


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
        names, known = list(named), set[str]()
        for start in range(0, len(names), _CALL):
            known |= set(self._ledger.find(names[start : start + _CALL]))
        fresh = {name: letter for name, letter in named.items() if name not in known}
        if fresh:
            self._write(f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}", list(fresh.values()))
        ends = [Settlement(name, "dead") for name in fresh]
        for start in range(0, len(ends), _CALL):
            self._ledger.settle(f"dead/{uuid.uuid4().hex}", ends[start : start + _CALL], int(time.time() * 1000))


class RecordDeadLetters(beam.PTransform):
    """Dead letters of what could not be decoded, as files; the ledger remembers them, so that a message that comes
    again leaves no second letter."""

    def __init__(self, make: MakeLedger, write: WriteLetters) -> None:
        super().__init__()
        self._make, self._write = make, write

    def expand(self, letters: beam.PCollection[DeadLetter]) -> beam.PCollection[Any]:
        return letters | "Record" >> beam.ParDo(_RecordDead(self._make, self._write)) | "End" >> _End()
