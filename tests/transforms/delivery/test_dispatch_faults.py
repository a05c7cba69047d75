"""BatchDispatcher when the vendor refuses, is busy, breaks, loses its reply or hangs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.dispatching import Job
from support.vendor_calls import any_event
from support.wire_events import ARRIVED, body_of, wire_batch, wire_message

from schemas.delivery import Batch
from transforms.delivery import dispatch
from transforms.delivery.vendor_call import back_off_ms


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that hangs is handed back soon."""
    monkeypatch.setattr(dispatch, "_WAIT_S", 0.1)


@pytest.mark.parametrize("answer", [400, 413, "fatal"])
def test_one_bad_recipient_is_found_and_the_rest_is_sent(job: Job, answer: int | str) -> None:
    job.sandbox.script([{"match": {"recipient": "customer-7"}, "answer": answer}])
    times = job.run("store-1", wire_batch(range(50)))
    assert job.outcomes == {**dict.fromkeys(range(50), "accepted"), 7: "rejected"}
    (bad,) = [receipt for receipt in job.receipts if receipt.outcome == "rejected"]
    assert bad.reason == ("vendor_message" if answer == "fatal" else f"http_{answer}")
    (letter,) = job.dead
    assert (letter.step, letter.reason, letter.data) == ("DeliverBatches", bad.reason, wire_message(7).body)
    assert json.loads(letter.trace)["event_id"] == wire_message(7).event_id
    assert job.sandbox.summary()["calls"] <= 14
    assert times[-1] - times[0] < 100  # the halves do not wait
    job.check()


@pytest.mark.parametrize("form", ["named", "indexed"])
def test_recipients_that_the_answer_names_are_rejected_at_once(job: Job, form: str) -> None:
    job.sandbox.script([{"match": {"recipient": "customer-2?"}, "answer": "errors", "form": form}])
    job.run("store-1", wire_batch(range(30)))
    assert job.outcomes == {n: "rejected" if n >= 20 else "accepted" for n in range(30)}
    assert sorted(letter.data for letter in job.dead) == sorted(wire_message(n).body for n in range(20, 30))
    assert job.sandbox.summary()["calls"] == 1
    job.check()


@pytest.mark.parametrize("status", [401, 403, 404, 302, 410])
def test_an_error_of_the_account_rejects_nobody_and_stops_this_workspace_only(
    job: Job, status: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_WAIT_S", 60.0)
    job.sandbox.script([{"match": {"workspace": "store-1"}, "answer": status}])
    result = job.handle("store-1", wire_batch(range(5)))
    assert not job.receipts
    result = job.handle("store-1", *result.waiting, wire_batch(range(5, 10)), wire_batch(range(10, 15)))
    assert result.wake_at <= ARRIVED + 1_000
    job.run("store-2", wire_batch(range(15, 20), "store-2"))
    assert job.sandbox.summary()["calls"] == 2
    alarms = [record.message for record in caplog.records if "ALARM" in record.message]
    assert [f"store-1 (http_{status}" in alarm for alarm in alarms] == [True]
    job.sandbox.script([])
    job.run("store-1", *result.waiting)
    assert job.outcomes == dict.fromkeys(range(20), "accepted")
    assert "the workspace of store-1 works again" in caplog.text
    job.check()


def test_a_workspace_that_stopped_is_probed_by_one_event_at_a_time(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_WAIT_S", 60.0)
    job.sandbox.script([{"answer": 404}])
    waiting, sizes = [wire_batch(range(at, at + 50)) for at in range(0, 200, 50)], list[int]()
    for _ in range(12):
        result = job.handle("store-1", *waiting)
        waiting = result.waiting
        job.clock.wait_until(result.wake_at)
    sizes = [len(json.loads(call["body"])["recipients"]) for call in reversed(job.sandbox.calls())]
    assert sizes[0] == 50
    assert set(sizes[4:]) <= {1}
    assert not job.receipts
    job.sandbox.script([])
    job.run("store-1", *waiting)
    assert job.outcomes == dict.fromkeys(range(200), "accepted")
    job.check()


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_an_open_breaker_probes_with_one_event_then_sends_the_rest(job: Job, batches: int) -> None:
    job.sandbox.script([{"answer": 401, "first": 1}])
    blocked = job.handle("store-1", wire_batch([0])).waiting
    waiting = [wire_batch(range(at, at + 10)) for at in range(10, 10 + 10 * batches, 10)]
    job.clock.wait_until(ARRIVED + 1_000)
    job.sandbox.reset()
    job.sandbox.script([{"answer": "slow", "seconds": 0.3, "first": 1}])
    result = job.handle("store-1", *waiting)
    assert job.sandbox.summary()["calls"] == 1
    times = job.run("store-1", *result.waiting, *blocked)
    assert times[-1] - ARRIVED < 40_000  # during the probe the others retry every 30 seconds
    assert sorted(job.outcomes) == [0, *range(10, 10 + 10 * batches)]
    job.check()


def test_settled_batches_do_not_use_up_the_probes_of_an_open_breaker(job: Job, another: Callable[[], Job]) -> None:
    """After a crash a job goes on from a checkpoint that is older than the ledger: much of what waits there is over."""
    waiting = [wire_batch(range(at, at + 5)) for at in range(0, 50, 5)]
    for batch in waiting[:-1]:
        job.run("store-1", batch)
    job.sandbox.script([{"answer": 429, "form": "retry-after", "seconds": 1, "first": 1}])
    job.handle("store-1", wire_batch(range(90, 95)))
    restored = another()
    times = restored.run("store-1", *waiting)
    assert times[-1] - times[0] < 30_000
    assert restored.outcomes == dict.fromkeys(range(45, 50), "accepted")


@pytest.mark.parametrize(
    ("form", "least", "most"),
    [
        ("retry-after", 7_000, 7_000),
        ("x-ratelimit-retry-after", 7_000, 7_000),
        ("seconds", 7_000, 7_000),
        ("reset", 5_000, 7_000),  # a whole second of the sandbox's own clock
        ("none", 500, 1_000),
    ],
)
def test_a_429_is_waited_for_as_long_as_it_says_by_its_workspace_only(
    job: Job, form: str, least: int, most: int
) -> None:
    rule: dict[str, Any] = {"match": {"workspace": "store-1"}, "answer": 429, "form": form, "first": 1}
    job.sandbox.script([rule | ({} if form == "none" else {"seconds": 7})])
    result = job.handle("store-1", wire_batch(range(5)))
    job.clock.wait_until(result.wake_at)
    result = job.handle("store-1", *result.waiting, wire_batch(range(5, 10)))
    assert least <= result.wake_at - ARRIVED <= most + 1
    job.run("store-2", wire_batch(range(10, 15), "store-2"))
    job.clock.wait_until(result.wake_at - 1)
    result = job.handle("store-1", *result.waiting)
    assert job.sandbox.summary()["by_workspace"]["store-1"]["calls"] == 1
    job.clock.wait_until(result.wake_at)
    job.run("store-1", *result.waiting)
    assert job.outcomes == dict.fromkeys(range(15), "accepted")
    assert {receipt.attempt for receipt in job.receipts} == {1, 2}
    job.check()


@pytest.mark.parametrize("answer", [500, 502, 503, 504])
def test_a_5xx_is_unknown_for_the_call_may_have_been_taken(job: Job, answer: int) -> None:
    job.settings.on_unknown = "hold"
    job.sandbox.script([{"answer": answer, "first": 1}])
    job.run("store-1", wire_batch(range(5)), wire_batch(range(5, 9)))
    ends = {(receipt.outcome, receipt.reason, receipt.attempt, receipt.resent) for receipt in job.receipts}
    assert ends == {("unknown", f"http_{answer}", 1, False), ("accepted", None, 1, False)}


def test_a_5xx_is_sent_again_under_resend_and_the_receipt_says_so(job: Job) -> None:
    job.sandbox.script([{"answer": 503, "first": 1}])
    job.run("store-1", wire_batch(range(5)))
    assert {(receipt.outcome, receipt.attempt, receipt.resent) for receipt in job.receipts} == {("accepted", 2, True)}


def test_a_reply_that_is_always_lost_is_resent_twice_and_then_unknown(job: Job) -> None:
    job.sandbox.script([{"answer": "lose"}])
    job.run("store-1", wire_batch(range(5)))
    assert set(job.sandbox.accepted().values()) == {3}
    ends = {(receipt.outcome, receipt.reason, receipt.attempt, receipt.resent) for receipt in job.receipts}
    assert ends == {("unknown", "no_answer", 3, True)}


def test_a_refusal_after_a_lost_reply_is_unknown_for_the_lost_call_may_have_been_accepted(job: Job) -> None:
    job.sandbox.script([{"answer": "lose", "first": 1}, {"answer": 400}])
    job.run("store-1", wire_batch(range(3)))
    ends = {(receipt.outcome, receipt.reason, receipt.resent) for receipt in job.receipts}
    assert ends == {("unknown", "http_400", True)}
    assert not job.dead


def test_the_attempts_of_a_run_that_died_are_counted(another: Callable[[], Job]) -> None:
    one, two = another(), another()
    one.sandbox.script([{"answer": "lose", "first": 1}])
    one.handle("store-1", wire_batch(range(3)))
    two.clock.wait_until(ARRIVED + 60_000)
    two.run("store-1", wire_batch(range(3)))
    assert {(receipt.outcome, receipt.attempt, receipt.resent) for receipt in two.receipts} == {("accepted", 2, True)}


def test_the_back_off_doubles_to_thirty_seconds() -> None:
    assert [back_off_ms(attempt, 0.0) for attempt in (1, 2, 3, 7, 50)] == [250, 500, 1_000, 15_000, 15_000]
    assert back_off_ms(50, 0.999999) < 30_000


def test_a_vendor_that_cannot_be_reached_is_tried_again(job: Job) -> None:
    there, job.settings.sandbox = job.settings.sandbox, type(job.sandbox)("http://127.0.0.1:1", job.sandbox.process)
    result = job.handle("store-1", wire_batch(range(5)))
    assert result.waiting
    job.settings.sandbox = there
    job.run("store-1", *result.waiting)
    assert {(receipt.outcome, receipt.attempt) for receipt in job.receipts} == {("accepted", 2)}
    job.check()


@pytest.mark.parametrize("form", ["reset", "half"])
def test_a_lost_reply_is_sent_again_when_its_lease_has_ended_and_says_so(job: Job, form: str) -> None:
    job.sandbox.script([{"answer": "lose", "form": form, "first": 1}])
    times = job.run("store-1", wire_batch(range(5)), wire_batch(range(5, 8), "store-1"))
    assert times[-1] - ARRIVED > 30_000
    assert job.outcomes == dict.fromkeys(range(8), "accepted")
    twice = {int(receipt.event_id, 16) for receipt in job.receipts if receipt.resent}
    assert twice in ({0, 1, 2, 3, 4}, {5, 6, 7})
    job.check(twice=twice)


def test_what_was_sent_without_an_answer_is_unknown_when_its_time_is_over_and_not_expired(job: Job) -> None:
    job.sandbox.script([{"answer": "lose", "first": 1}])
    soon = wire_batch(range(5), expires_at=ARRIVED + 10_000)
    result = job.handle("store-1", soon)
    job.clock.wait_until(ARRIVED + 20_000)
    job.run("store-1", *result.waiting, wire_batch(range(5, 8), expires_at=ARRIVED + 10_000))
    assert job.outcomes == {**dict.fromkeys(range(5), "unknown"), **dict.fromkeys(range(5, 8), "expired")}
    job.check(unknown=set(range(5)))


def test_a_refusal_that_comes_too_late_to_count_leaves_no_dead_letter(another: Callable[[], Job]) -> None:
    one, two = another(), another()
    one.sandbox.script([{"answer": 400, "seconds": 0.5, "first": 1}])
    result = one.handle("store-1", wire_batch([1]))
    one.clock.wait_until(ARRIVED + 60_000)
    two.run("store-1", wire_batch([1]))
    assert two.outcomes == {1: "accepted"}
    one.run("store-1", *result.waiting)
    assert (one.receipts, one.dead) == ([], [])
    two.check()


def test_a_lost_reply_is_unknown_under_hold(job: Job) -> None:
    job.settings.on_unknown = "hold"
    job.sandbox.script([{"answer": "lose", "first": 1}])
    job.run("store-1", wire_batch(range(5)))
    assert {(receipt.outcome, receipt.reason) for receipt in job.receipts} == {("unknown", "no_answer")}
    job.clock.wait_until(ARRIVED + 3_600_000)
    job.run("store-1", wire_batch(range(5)))
    assert job.sandbox.summary()["calls"] == 1
    job.check(unknown=set(range(5)))


def test_an_answer_that_comes_after_its_lease_is_not_lost(another: Callable[[], Job]) -> None:
    one, two = another(), another()
    one.settings.on_unknown = "hold"
    one.sandbox.script([{"answer": "slow", "seconds": 0.5}])
    result = one.handle("store-1", wire_batch(range(5)))
    assert not one.receipts
    one.clock.wait_until(ARRIVED + 60_000)
    two.run("store-1", wire_batch(range(5)))
    assert two.outcomes == dict.fromkeys(range(5), "unknown")
    one.run("store-1", *result.waiting)
    assert one.outcomes == dict.fromkeys(range(5), "accepted")
    assert one.sandbox.summary()["calls"] == 1
    one.check()


def test_a_workspace_that_hangs_delays_no_other(job: Job) -> None:
    job.settings.timeout_s = 1.0
    job.sandbox.script([{"match": {"workspace": "store-1"}, "answer": "hang", "first": 1}])
    hanging = job.dispatcher.start("store-1", [wire_batch(range(5))])
    assert not job.handle("store-2", wire_batch(range(5, 10), "store-2")).waiting
    assert job.outcomes == dict.fromkeys(range(5, 10), "accepted")
    result = job.collect(job.dispatcher.finish("store-1", *hanging))
    assert [batch.batch_id for batch in result.waiting] == [wire_batch(range(5)).batch_id]
    assert result.wake_at <= ARRIVED + 50
    assert job.ledger.counts(ARRIVED)["claimed"] == 5  # the call is still out
    job.run("store-1", *result.waiting)
    assert job.outcomes == dict.fromkeys(range(10), "accepted")
    assert {receipt.retailer_id for receipt in job.receipts if receipt.resent} == {"store-1"}
    job.check()


def test_a_workspace_that_hangs_gets_few_calls_until_it_answers_again(job: Job) -> None:
    job.sandbox.script([{"answer": "slow", "seconds": 0.4, "first": 4}])
    batches = [wire_batch(range(at, at + 2)) for at in range(0, 20, 2)]
    result = job.handle("store-1", *batches[:1])
    result = job.handle("store-1", *result.waiting, *batches[1:])
    assert len(result.waiting) == 10 - len(job.receipts) // 2
    assert job.sandbox.summary()["calls"] <= 3
    job.run("store-1", *result.waiting)
    assert job.outcomes == dict.fromkeys(range(20), "accepted")
    job.check()


def test_a_batch_that_the_adapter_cannot_send_is_halved_until_the_event_at_fault_is_found(job: Job) -> None:
    wrong = wire_batch([1, 3])
    wrong.messages.append(wire_message(2, customer_id="customer-1", body=wire_message(1).body))
    job.run("store-1", wrong)  # a customer twice in one call: each half can be sent
    assert job.outcomes == {1: "accepted", 2: "accepted", 3: "accepted"}


def test_an_adapter_that_fails_at_every_call_stops_the_job(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(job.dispatcher._vendor, "send", fail)
    with pytest.raises(KeyError):
        job.run("store-1", *(wire_batch([number]) for number in range(100)))
    assert len(job.receipts) < 50


def test_an_event_of_which_no_message_can_be_made_is_a_dead_letter_and_its_neighbours_are_sent_once(job: Job) -> None:
    """Decode lets no such event through today; one that waited in an engine's state may have come through earlier."""
    offers = [{**any_event()["offers"][0], "expires_at": ARRIVED * 1_000}]
    bad = wire_message(7, body=body_of(7, offers=offers))
    job.run("store-1", Batch([bad if n == 7 else wire_message(n) for n in range(50)]))
    assert job.outcomes == {**dict.fromkeys(range(50), "accepted"), 7: "rejected"}
    (letter,) = job.dead
    assert (letter.step, letter.reason, letter.data) == ("DeliverBatches", "unusable_event", bad.body)
    assert job.sandbox.summary()["calls"] == 1
    job.check()
