"""The checks right before the first byte of a call: expiry, due time, pause, account, lease."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from support.dispatching import Job
from support.wire_events import ARRIVED, wire_batch, wire_message

from schemas.delivery import Account, Batch
from transforms.pacing.limiter import WorkspaceLimits


@pytest.fixture
def at_account(job: Job, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """`at_account(happens)`: something happens between the claim of the next call and its first byte."""

    def arrange(happens: Callable[[], None]) -> None:
        def once() -> None:
            job.settings.on_account = lambda: None
            happens()

        job.settings.on_account = once

    return arrange


def test_an_event_that_expires_between_claim_and_call_is_not_sent(job: Job, at_account: Callable[..., None]) -> None:
    at_account(lambda: job.clock.wait_until(ARRIVED + 5_000))
    soon = wire_message(1, expires_at=ARRIVED + 4_000)
    job.run("store-1", Batch([wire_message(0), soon]))
    assert job.outcomes == {0: "accepted", 1: "expired"}
    assert job.sandbox.summary()["calls"] == 1
    job.check()


def test_a_retailer_that_is_paused_between_claim_and_call_is_not_sent_to(
    job: Job, at_account: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = job.settings.limits
    paused = WorkspaceLimits(limits("store-1").workspace.model_copy(update={"paused": True}))
    at_account(lambda: monkeypatch.setattr(job.settings, "limits", lambda retailer: paused))
    result = job.handle("store-1", wire_batch(range(3)))
    assert job.sandbox.summary()["calls"] == 0
    assert job.ledger.counts(ARRIVED)["claimed"] == 0
    monkeypatch.setattr(job.settings, "limits", limits)
    job.clock.wait_until(result.wake_at)
    job.run("store-1", *result.waiting)
    assert job.outcomes == dict.fromkeys(range(3), "accepted")


def test_a_call_uses_the_key_that_holds_when_it_begins(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    account, keys = job.settings.account, iter(["old", "new", "new", "new"])

    def changing(retailer: str) -> Account:
        return replace(account(retailer), key=next(keys))

    monkeypatch.setattr(job.settings, "account", changing)
    job.run("store-1", wire_batch(range(3)))
    assert job.outcomes == dict.fromkeys(range(3), "accepted")
    assert job.sandbox.summary()["calls"] == 1
    assert job.receipts[0].attempt == 1  # what was withdrawn was no attempt


def test_an_event_that_expires_before_it_is_due_is_expired_at_once(job: Job) -> None:
    hour = int(timedelta(hours=1).total_seconds() * 1000)
    hopeless = wire_message(1, deliver_after=ARRIVED + 2 * hour, expires_at=ARRIVED + hour)
    job.run("store-1", Batch([hopeless, wire_message(2)]))
    assert job.outcomes == {1: "expired", 2: "accepted"}
    assert job.sandbox.summary()["accepted"] == 1
    job.check()


def test_an_event_that_is_not_due_yet_is_not_sent(job: Job) -> None:
    result = job.handle("store-1", Batch([wire_message(1, deliver_after=ARRIVED + 10_000)]))
    assert job.sandbox.summary()["calls"] == 0
    job.clock.wait_until(ARRIVED + 10_000)
    job.run("store-1", *result.waiting)
    assert job.outcomes == {1: "accepted"}
