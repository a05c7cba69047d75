"""RecordReceipts and RecordDeadLetters: write what became of each message, then report it to the ledger."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam

from schemas.contracts import DeadLetter
from schemas.delivery import LEDGER_STEP, DeliveryLedger, Receipt, Settlement, ledger_steps
from transforms.delivery.decode_events import dead_id
from transforms.delivery.elements import Receipts
from transforms.delivery.receipts import decode_receipts
from transforms.streaming.elements import at_finish
from transforms.streaming.engine_traits import Clock

_SWEEP_S = 60.0
LedgerFactory = Callable[[], DeliveryLedger]
WriteReceipts = Callable[[str, Sequence[Receipt]], Any]
WriteLetters = Callable[[str, list[DeadLetter]], Any]


class _Recorder(beam.DoFn):
    """Collects the elements of a bundle and records them when it ends."""

    def __init__(self, make_ledger: LedgerFactory, write: Callable[[str, Any], Any], clock: Clock) -> None:
        self._make_ledger, self._write, self._clock = make_ledger, write, clock

    def setup(self) -> None:
        self._ledger = self._make_ledger()
        self._ledger.open()
        self._swept = self._clock()

    def start_bundle(self) -> None:
        self._elements: list[Any] = []

    def process(self, element: Any) -> Iterator[Any]:
        self._elements.append(element)
        return iter(())


class _End(beam.PTransform):
    """No output, in a stage of its own: Prism uses a whole core while a bundle without outputs runs, so the stage that
    writes files must not be the last one."""

    def expand(self, counts: Any) -> Any:
        typed = counts | "Counts" >> beam.Map(int).with_output_types(int)
        return typed | "Apart" >> beam.Reshuffle() | "Nothing" >> beam.Filter(_never)


def _never(count: int) -> bool:
    return False


class _RecordReceipts(_Recorder):
    def __init__(
        self, make_ledger: LedgerFactory, write: WriteReceipts, write_letters: WriteLetters, clock: Clock
    ) -> None:
        super().__init__(make_ledger, write, clock)
        self._write_letters = write_letters

    def finish_bundle(self) -> Iterator[Any]:
        now = self._clock()
        receipts = [receipt for element in self._elements for receipt in element.items]
        letters = [letter for element in self._elements for letter in element.letters]
        if receipts:
            record(self._ledger, self._write, self._write_letters, Receipts(receipts, letters), now)
            yield at_finish(len(receipts))
        if now - self._swept > _SWEEP_S:
            self._swept = now
            record_unreported(self._ledger, self._write, self._write_letters, now - _SWEEP_S, now)


def record(
    ledger: DeliveryLedger, write: WriteReceipts, write_letters: WriteLetters, receipts: Receipts, now: float
) -> None:
    """Writes receipts and letters into new files, named by `now` (epoch seconds); then the ledger drops its copies."""
    name = _file_name(now)
    if receipts.letters:
        write_letters(name, receipts.letters)
    write(name, receipts.items)
    for step in ledger_steps([receipt.event_id for receipt in receipts.items]):
        ledger.report(step)


def _file_name(now: float) -> str:
    """A new name that sorts by time."""
    return f"{int(now * 1e9):020d}-{uuid.uuid4().hex[:8]}"


def record_unreported(
    ledger: DeliveryLedger, write: WriteReceipts, write_letters: WriteLetters, before: float, now: float
) -> int:
    """Writes the receipts that were settled before a time and never written, because their process died; how many.
    Times are epoch seconds. They come a thousand at a time: a few younger ones may be among the last. A job that
    continues from a checkpoint does not start anew, and so never runs UnreportedReceipts."""
    count = 0
    while unreported := ledger.unreported(LEDGER_STEP):
        receipts = decode_receipts(data for _, data in unreported)
        if receipts.items[0].settled_at >= before * 1000:
            break
        record(ledger, write, write_letters, receipts, now)
        count += len(unreported)
    return count


class RecordReceipts(beam.PTransform):
    """Receipts as files of the event store, at least once each, and before them the dead letters of the refused. The
    ledger keeps both until they are written; what a crash leaves there is written by the next run. `clock` gives epoch
    seconds."""

    def __init__(
        self, make_ledger: LedgerFactory, write: WriteReceipts, write_letters: WriteLetters, clock: Clock
    ) -> None:
        super().__init__()
        self._record = _RecordReceipts(make_ledger, write, write_letters, clock)

    def expand(self, receipts: beam.PCollection[Receipts]) -> beam.PCollection[Any]:
        return receipts | "Record" >> beam.ParDo(self._record) | "End" >> _End()


class _Unreported(beam.DoFn):
    def __init__(self, make_ledger: LedgerFactory) -> None:
        self._make_ledger = make_ledger

    def process(self, element: Any) -> Iterator[Receipts]:
        ledger = self._make_ledger()
        ledger.open()
        seen: set[str] = set()
        while unseen := [row for row in ledger.unreported(len(seen) + LEDGER_STEP) if row[0] not in seen]:
            seen |= {event_id for event_id, _ in unseen}
            yield decode_receipts(data for _, data in unseen)


class UnreportedReceipts(beam.PTransform):
    """The receipts that an earlier run settled but did not write."""

    def __init__(self, make_ledger: LedgerFactory) -> None:
        super().__init__()
        self._make_ledger = make_ledger

    def expand(self, begin: Any) -> beam.PCollection[Receipts]:
        unreported = beam.ParDo(_Unreported(self._make_ledger)).with_output_types(Receipts)
        return begin | "Once" >> beam.Create([0], reshuffle=False) | "Unreported" >> unreported


class _RecordDead(_Recorder):
    def finish_bundle(self) -> Iterator[Any]:
        if not self._elements:
            return
        yield at_finish(len(self._elements))
        letters = {dead_id(letter): letter for letter in self._elements}
        known = {name for step in ledger_steps(list(letters)) for name in self._ledger.find(step)}
        new = {name: letter for name, letter in letters.items() if name not in known}
        now = self._clock()
        if new:
            self._write(_file_name(now), list(new.values()))
        for settlements in ledger_steps([Settlement(name, "dead") for name in new]):
            self._ledger.settle(f"dead/{uuid.uuid4().hex}", settlements, int(now * 1000))


class RecordDeadLetters(beam.PTransform):
    """Dead letters of messages that could not be decoded, as files. The ledger remembers them, so that a message that
    is read again has no second letter. `clock` gives epoch seconds."""

    def __init__(self, make_ledger: LedgerFactory, write: WriteLetters, clock: Clock) -> None:
        super().__init__()
        self._record = _RecordDead(make_ledger, write, clock)

    def expand(self, letters: beam.PCollection[DeadLetter]) -> beam.PCollection[Any]:
        return letters | "Record" >> beam.ParDo(self._record) | "End" >> _End()
