"""Rounds: a drain on the built-in engine, which delivers only when its input has ended.

Each round runs the pipeline over a bounded part of the source, so that a drain of any size needs the memory of one
part. A round sends what may be sent and does not wait: batches that must wait go to the disk, and into a later round.
When the source is read, the last rounds wait for them, as long as something is sent within the patience.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from schemas.delivery import Batch
from stores.deliveries.waiting_batches import WaitingBatches, WaitingFile
from transforms.delivery.counters import COUNTERS
from transforms.delivery.deliver_batches import DeliveryResult, Dispatcher
from transforms.streaming.counters import Limit
from transforms.streaming.read_messages import Round, all_read

ROUND = Limit(50_000, 32 << 20)  # what a round reads, over all readers
_WAITING = Limit(ROUND.messages // 2, ROUND.bytes // 2)  # the waiting messages of a round, while the source is read
_OUTCOMES = ("accepted", "rejected", "expired", "unknown", "already_settled")


@dataclass(frozen=True)
class Part:
    """The input of a round. `source` names this drain in its process; `waiting` are files of batches that wait."""

    source: str
    read: Round
    waiting: tuple[str, ...]
    patience_s: float

    def leave(self, retailer: str, batches: list[Batch]) -> None:
        """Takes the batches that cannot be sent in this round."""
        with _LOCK:
            _DRAINS[self.source].unsent.append((retailer, batches))

    def dispatcher(self, make: Callable[[], Dispatcher]) -> Dispatcher:
        """The dispatcher of all rounds: a call that outlasts its round ends in a later one."""
        with _LOCK:
            drain = _DRAINS[self.source]
            if drain.dispatcher is None:
                drain.dispatcher = _OpenOnce(make())
            return drain.dispatcher


@dataclass
class _Drain:
    """The state that the rounds of a drain share in its process."""

    unsent: list[tuple[str, list[Batch]]] = field(default_factory=list)
    dispatcher: _OpenOnce | None = None


_DRAINS: dict[str, _Drain] = {}
_LOCK = Lock()


class _OpenOnce:
    """A dispatcher that is opened by the first round and closed once, when the process ends."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher, self._lock, self._opened, self._closed = dispatcher, Lock(), False, False

    def open(self) -> None:
        with self._lock:
            if not self._opened:
                self._dispatcher.open()
                self._opened = True

    def deliver(self, retailer: str, batches: list[Batch]) -> DeliveryResult:
        return self._dispatcher.deliver(retailer, batches)

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._dispatcher.close()


class Rounds:
    """The rounds of one drain. `run` runs the pipeline over a part."""

    def __init__(self, source: str, folder: Path, readers: int, patience_s: float, run: Callable[[Part], None]) -> None:
        self._source, self._patience_s, self._run = source, patience_s, run
        self._share = Limit(-(-ROUND.messages // readers), -(-ROUND.bytes // readers))
        self._waiting = WaitingBatches(folder)
        self._number = 0
        self._left_waiting = COUNTERS.counter("left_waiting")

    def run(self) -> None:
        """Drains the source; what cannot be sent within the patience is counted as left_waiting."""
        with _shared(self._source):
            while not self._number or not all_read(self._source):
                files = self._waiting.take(*_WAITING, now=time.time() * 1000)
                for retailer, batches in self._run_round(files, 0.0):
                    self._waiting.add(retailer, batches)
            progress = time.monotonic()
            while len(self._waiting):
                before, started = _settled(), time.monotonic()
                self._wait_for(self._waiting.take(*ROUND), max(0.0, self._patience_s - (started - progress)))
                if _settled() != before:
                    progress = time.monotonic()

    def _wait_for(self, files: list[WaitingFile], patience_s: float) -> None:
        """Runs a round over files, with a patience. Gives up a retailer of which nothing was sent, with all it has."""
        total, unsent = Tally[str](), Tally[str]()
        for file in files:
            total[file.retailer] += file.messages
        lists = self._run_round(files, patience_s)
        for retailer, batches in lists:
            unsent[retailer] += sum(len(batch.messages) for batch in batches)
        stuck = {retailer for retailer, messages in unsent.items() if messages >= total[retailer]}
        for retailer, batches in lists:
            if retailer not in stuck:
                self._waiting.add(retailer, batches)
        self._left_waiting.inc(sum(unsent[retailer] for retailer in stuck) + self._waiting.drop(stuck))

    def _run_round(self, files: list[WaitingFile], patience_s: float) -> list[tuple[str, list[Batch]]]:
        """Runs a round; the batches that could not be sent in it, by retailer."""
        self._number += 1
        paths = tuple(file.path for file in files)
        self._run(Part(self._source, Round(self._number, self._share), paths, patience_s))
        for path in paths:
            Path(path).unlink()
        with _LOCK:
            drain = _DRAINS[self._source]
            unsent, drain.unsent = drain.unsent, []
        return unsent


@contextmanager
def _shared(source: str) -> Iterator[None]:
    _DRAINS[source] = _Drain()
    try:
        yield
    finally:
        del _DRAINS[source]


def _settled() -> int:
    return sum(COUNTERS.tally[name] for name in _OUTCOMES)
