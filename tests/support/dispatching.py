"""A dispatcher with the real ledger, vendor adapter and sandbox; only the clock and the settings are simulated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from support.vendor_calls import KEY
from support.wire_events import ARRIVED

from connectors.vendors.braze import Braze
from runners.sandbox.process import Sandbox
from schemas.campaigns.workspaces import Delivery, Pace, Workspace
from schemas.contracts import DeadLetter
from schemas.delivery import Account, Batch, DeliveryLedger, OnUnknown, Receipt
from schemas.problems import InputError, Problem
from stores.deliveries.call_journal import FileJournal
from stores.deliveries.call_recovery import recover
from stores.ledger.sqlite import SqliteLedger
from transforms.delivery.deliver_batches import DeliveryResult
from transforms.delivery.dispatch import BatchDispatcher
from transforms.pacing.limiter import WorkspaceLimits


class Clock:
    """Epoch seconds that move when a test says so."""

    def __init__(self, now: float = ARRIVED / 1000) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def wait_until(self, at_ms: int) -> None:
        """Not before a time, in epoch milliseconds."""
        self.now = max(self.now, at_ms / 1000)


@dataclass
class FakeSettings:
    """Settings in which every retailer has a workspace at the sandbox, except the `missing` ones."""

    sandbox: Sandbox
    on_unknown: OnUnknown = "resend"
    timeout_s: float = 20.0
    pace: dict[str, Pace] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    on_account: Callable[[], None] = lambda: None

    def delivery(self) -> Delivery:
        """A lease of 30 seconds."""
        timeout = timedelta(seconds=self.timeout_s)
        return Delivery(vendor="braze", on_unknown=self.on_unknown, timeout=timeout, lease=timedelta(seconds=30))

    def limits(self, retailer: str) -> WorkspaceLimits:
        """The limits with the pace of the test."""
        return WorkspaceLimits(Workspace(pace=self.pace.get(retailer)))

    def account(self, retailer: str) -> Account:
        """The workspace at the sandbox."""
        self.on_account()
        if retailer in self.missing:
            raise InputError([Problem("engine.yaml", "workspaces", retailer, "has no url")])
        return Account(retailer, self.sandbox.workspace(retailer), KEY, self.timeout_s)


@dataclass
class Job:
    """The dispatcher of one process, and the results of its batches."""

    sandbox: Sandbox
    ledger: DeliveryLedger
    settings: FakeSettings
    clock: Clock
    dispatcher: BatchDispatcher
    receipts: list[Receipt] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    def handle(self, retailer: str, *batches: Batch) -> DeliveryResult:
        """The result of delivering batches now."""
        return self.collect(self.dispatcher.deliver(retailer, list(batches)))

    def collect(self, result: DeliveryResult) -> DeliveryResult:
        """The same result, added to the receipts and dead letters of the job."""
        self.receipts += result.receipts
        self.dead += result.dead
        return result

    def run(self, retailer: str, *batches: Batch, most: int = 100) -> list[int]:
        """Deliver until nothing waits, moving the clock to each wake time; the times of all attempts."""
        waiting, times = list(batches), list[int]()
        while waiting and len(times) < most:
            times.append(int(self.clock() * 1000))
            result = self.handle(retailer, *waiting)
            waiting = result.waiting
            self.clock.wait_until(result.wake_at)
        assert not waiting
        return times

    @property
    def outcomes(self) -> dict[int, str]:
        """The outcomes by the numbers of the events; no event may have two receipts."""
        outcomes = {int(receipt.event_id, 16): receipt.outcome for receipt in self.receipts}
        assert len(outcomes) == len(self.receipts)
        return outcomes

    def check(self, twice: set[int] = frozenset(), unknown: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        """Check that sandbox, ledger and receipts agree: every accepted event once, except those in `twice`."""
        sent = {int(event, 16): times for event, times in self.sandbox.accepted().items()}
        ended = Counter(self.outcomes.values())
        accepted = {number for number, outcome in self.outcomes.items() if outcome == "accepted"}
        assert sent == {number: 2 if number in twice else 1 for number in accepted | unknown}
        counts = self.ledger.counts(int(self.clock() * 1000))
        assert {name: count for name, count in counts.items() if count and name not in ("claimed", "lapsed")} == ended


@contextmanager
def jobs(sandbox: Sandbox, folder: Path, clock: Clock | None = None) -> Iterator[Callable[[], Job]]:
    """`another()`: one more process over the same ledger file, with the same settings and clock. It keeps a journal in
    the folder and reads those of the dead."""
    settings, time = FakeSettings(sandbox), clock or Clock()
    with ExitStack() as stack:

        def another() -> Job:
            ledger = SqliteLedger(str(folder / "ledger.db"))
            calls = folder / "calls"
            dispatcher = BatchDispatcher(
                Braze(), ledger, settings, time, FileJournal(calls),
                recover=lambda ledger: recover(calls, ledger, int(time() * 1000)),
            )  # fmt: skip
            dispatcher.open()
            stack.callback(ledger.close)
            stack.callback(dispatcher.close)
            return Job(sandbox, ledger, settings, time, dispatcher)

        yield another
