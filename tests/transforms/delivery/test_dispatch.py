"""BatchDispatcher with the real ledger, adapter and sandbox: each event is sent once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.dispatching import Job
from support.wire_events import ARRIVED, wire_batch, wire_message

from schemas.campaigns.workspaces import Pace
from schemas.delivery import Batch, Claim, ClaimRequest, Message, Settlement
from transforms.delivery import dispatch
from transforms.delivery.call_results import LATE_MS
from transforms.delivery.counters import COUNTERS

DAY_MS = 86_400_000


def test_batches_are_accepted_with_a_receipt_per_event(job: Job) -> None:
    job.run("store-1", wire_batch(range(50)), wire_batch(range(50, 60)))
    job.run("store-2", wire_batch(range(60, 70), "store-2"))
    assert job.outcomes == dict.fromkeys(range(70), "accepted")
    one = job.receipts[0]
    assert (one.workspace, one.attempt, one.resent, one.reason) == ("braze:store-1", 1, False, None)
    assert one.batch_id == wire_batch(range(50)).batch_id
    assert one.vendor_id
    assert job.sandbox.summary()["calls"] == 3
    job.check()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (wire_message(1, expires_at=ARRIVED), "expired"),
        (wire_message(1, expires_at=ARRIVED - DAY_MS), "expired"),
        (wire_message(1, arrived_at=ARRIVED - LATE_MS - 1), "late_72h"),
        (wire_message(1, arrived_at=1, deliver_after=ARRIVED - LATE_MS - 1), "late_72h"),
    ],
)
def test_expired_events_are_counted_and_never_sent(job: Job, message: Message, reason: str) -> None:
    job.run("store-1", Batch([wire_message(0), message]), Batch([wire_message(2, expires_at=1)]))
    assert job.outcomes == {0: "accepted", 1: "expired", 2: "expired"}
    assert {receipt.reason for receipt in job.receipts if receipt.event_id == message.event_id} == {reason}
    job.check()


def test_events_in_time_are_sent(job: Job) -> None:
    soon, late = wire_message(1, expires_at=ARRIVED + 1), wire_message(2, arrived_at=ARRIVED - LATE_MS)
    planned = wire_message(3, arrived_at=1, deliver_after=ARRIVED - LATE_MS)
    job.run("store-1", Batch([soon, late, planned]))
    assert job.outcomes == dict.fromkeys([1, 2, 3], "accepted")
    job.check()


def test_an_expired_backlog_is_settled_in_steps_that_the_ledger_takes(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, settle_in_ledger = list[int](), job.ledger.settle

    def settle(owner: str, ends: Sequence[Settlement], now: int) -> list[str]:
        sizes.append(len(ends))
        return settle_in_ledger(owner, ends, now)

    monkeypatch.setattr(job.ledger, "settle", settle)
    job.run("store-1", *(wire_batch(range(at, at + 50), expires_at=1) for at in range(0, 2_100, 50)))
    assert sum(sizes) == 2_100
    assert max(sizes) <= 1_000
    job.check()


def test_an_event_that_the_claim_finds_settled_is_counted_in_one_place(job: Job) -> None:
    job.ledger.settle(
        "somebody else", [Settlement(wire_message(number).event_id, "expired") for number in range(3)], ARRIVED
    )
    before, missing = COUNTERS.tally["already_settled"], COUNTERS.in_flight()
    job.run("store-1", wire_batch(range(10)))
    assert COUNTERS.tally["already_settled"] - before == 3
    assert (
        COUNTERS.in_flight() == missing
    )  # as before the claim: of nothing it is thought that it got lost, or came twice
    assert job.outcomes == dict.fromkeys(range(3, 10), "accepted")


def test_an_event_that_is_settled_is_not_sent_again(job: Job) -> None:
    job.run("store-1", wire_batch(range(10)))
    job.run("store-1", wire_batch(range(5, 15)), wire_batch(range(10)))
    assert job.outcomes == dict.fromkeys(range(15), "accepted")
    assert job.sandbox.summary()["accepted"] == 15
    job.check()


def test_an_event_whose_lease_another_holds_waits_for_its_end(job: Job) -> None:
    until = ARRIVED + 20_000
    job.ledger.claim(
        ClaimRequest([Claim(wire_message(1).event_id, "0f" * 16)], "somebody else", ARRIVED, until, "resend")
    )
    result = job.handle("store-1", wire_batch(range(3)))
    assert job.outcomes == {0: "accepted", 2: "accepted"}
    assert [[message.event_id for message in batch.messages] for batch in result.waiting] == [
        [wire_message(1).event_id]
    ]
    assert result.wake_at == until + 1
    job.ledger.settle("somebody else", [Settlement(wire_message(1).event_id, "accepted")], ARRIVED)
    job.clock.wait_until(result.wake_at)
    assert not job.handle("store-1", *result.waiting).waiting
    assert sorted(job.outcomes) == [0, 2]
    assert job.sandbox.summary()["accepted"] == 2


def test_two_processes_with_overlapping_batches_send_each_event_once(another: Callable[[], Job]) -> None:
    one, two = another(), another()
    mine = [wire_batch(range(at, at + 50)) for at in range(0, 500, 50)]
    yours = [wire_batch(range(at, at + 50)) for at in range(25, 525, 50)]
    waiting = {id(one): mine, id(two): yours}

    def go(job: Job) -> int:
        result = job.handle("store-1", *waiting[id(job)])
        waiting[id(job)] = result.waiting
        return result.wake_at

    with ThreadPoolExecutor(2) as pool:
        while any(waiting.values()):
            one.clock.wait_until(min(pool.map(go, [job for job in (one, two) if waiting[id(job)]])))
    one.receipts += two.receipts
    assert one.outcomes == dict.fromkeys(range(525), "accepted")
    one.check()


def test_a_batch_delivered_twice_at_once_is_sent_once(job: Job) -> None:
    """Two threads share the dispatcher: the second meets the first one's call."""
    first, second = (job.dispatcher.start("store-1", [wire_batch(range(3))]) for _ in range(2))
    job.collect(job.dispatcher.finish("store-1", *first))
    waiting = job.collect(job.dispatcher.finish("store-1", *second)).waiting
    job.run("store-1", *waiting)
    assert job.outcomes == dict.fromkeys(range(3), "accepted")
    assert job.sandbox.summary()["calls"] == 1
    job.check()


def test_a_process_whose_lease_would_end_before_its_call_sends_nothing(job: Job) -> None:
    job.settings.on_account = lambda: job.clock.wait_until(ARRIVED + 28_000)  # it slept after it had claimed
    result = job.handle("store-1", wire_batch(range(3)))
    assert job.sandbox.summary()["calls"] == 0
    assert job.ledger.counts(ARRIVED)["claimed"] == 0
    job.run("store-1", *result.waiting)
    assert job.outcomes == dict.fromkeys(range(3), "accepted")
    job.check()


def test_a_retailer_without_an_account_waits_and_the_others_do_not(job: Job) -> None:
    job.settings.missing = {"store-1"}
    result = job.handle("store-1", wire_batch(range(3)))
    assert result.wake_at == ARRIVED + 30_000
    assert job.ledger.counts(ARRIVED)["claimed"] == 0
    job.run("store-2", wire_batch(range(3, 6), "store-2"))
    job.settings.missing = set()
    job.clock.wait_until(result.wake_at)
    job.run("store-1", *result.waiting)
    assert job.outcomes == dict.fromkeys(range(6), "accepted")
    job.check()


def test_a_small_burst_splits_a_batch(job: Job) -> None:
    job.settings.pace["store-1"] = Pace(per_second=10, burst=20)
    times = job.run("store-1", wire_batch(range(50)))
    sizes = [len(call["accepted"]) for call in reversed(job.sandbox.calls())]
    assert sum(sizes) == 50
    assert sizes[0] == 20
    assert max(sizes) <= 20
    assert times[-1] - times[0] >= 3_000  # 30 messages more at ten a second
    assert job.outcomes == dict.fromkeys(range(50), "accepted")
    job.check()


def test_no_more_calls_are_made_than_the_hour_allows(job: Job) -> None:
    job.settings.pace["store-1"] = Pace(calls_per_hour=2)
    batches = [wire_batch(range(at, at + 3)) for at in range(0, 15, 3)]
    result = job.handle("store-1", *batches)
    assert job.sandbox.summary()["calls"] == 2
    assert len(result.waiting) == 3
    times = job.run("store-1", *result.waiting, most=300)  # it asks every 30 seconds
    assert times[-1] // 3_600_000 - ARRIVED // 3_600_000 == 2
    assert job.outcomes == dict.fromkeys(range(15), "accepted")
    job.check()


def test_a_batch_that_is_not_due_waits_without_a_claim(job: Job) -> None:
    later = Batch(wire_batch(range(3)).messages, 2, ARRIVED + 700)
    result = job.handle("store-1", later)
    assert (result.waiting, result.wake_at) == ([later], ARRIVED + 700)
    assert job.run("store-1", *result.waiting) == [ARRIVED, ARRIVED + 700]
    assert job.receipts[0].attempt == 3
    job.check()


def test_calls_in_flight_when_the_process_ends_are_settled(
    another: Callable[[], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_WAIT_S", 0.0)
    one, two = another(), another()
    one.sandbox.script([{"answer": "slow", "seconds": 0.3}])
    result = one.handle("store-1", wire_batch(range(3)))
    assert result.waiting
    one.dispatcher.close()
    two.clock.wait_until(ARRIVED + 60_000)
    two.run("store-1", *result.waiting)
    assert two.sandbox.summary()["accepted"] == 3
    assert two.ledger.counts(ARRIVED)["accepted"] == len(two.ledger.unreported(10)) == 3
