"""A template that fails for everybody stops the workspace; one that fails for somebody rejects that event."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.dispatching import Job
from support.wire_events import wire_batch

from schemas.delivery import Account

BROKEN = "{{ 1 | divided_by: 0 }}"


@pytest.fixture
def template(job: Job, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of store-1's template, of events that name none, which the test may change."""
    text, account = ["{{ customer_id }}"], job.settings.account

    def with_template(retailer: str) -> Account:
        return replace(account(retailer), templates={"": text[0]} if retailer == "store-1" else {})

    monkeypatch.setattr(job.settings, "account", with_template)
    return text


def test_a_template_that_fails_for_everybody_rejects_at_most_nine_and_stops_its_workspace(
    job: Job, template: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    template[0] = BROKEN
    waiting = [wire_batch(range(at, at + 5)) for at in range(0, 100, 5)]
    for _ in range(15):
        result = job.handle("store-1", *waiting)
        waiting = result.waiting
        job.clock.wait_until(result.wake_at)
    assert len(job.receipts) <= 9
    assert {receipt.reason for receipt in job.receipts} <= {"template_error"}
    assert job.sandbox.summary()["calls"] == 0
    assert "ALARM: nothing is sent to store-1 (template_error" in caplog.text
    job.run("store-2", wire_batch(range(200, 205), "store-2"))
    template[0] = "{{ customer_id }}"
    job.run("store-1", *waiting)
    assert sum(receipt.outcome == "accepted" for receipt in job.receipts) == 105 - sum(
        receipt.outcome == "rejected" for receipt in job.receipts
    )
    job.check()


def test_a_whole_batch_that_fails_rejects_nobody(job: Job, template: list[str]) -> None:
    template[0] = BROKEN
    result = job.handle("store-1", wire_batch(range(50)))
    assert not job.receipts
    template[0] = "{{ customer_id }}"
    job.clock.wait_until(result.wake_at)
    job.run("store-1", *result.waiting)
    assert job.outcomes == dict.fromkeys(range(50), "accepted")


def test_a_template_that_fails_for_one_customer_rejects_that_one(job: Job, template: list[str]) -> None:
    template[0] = "{% if customer_id == 'customer-7' %}" + BROKEN + "{% endif %}"
    job.run("store-1", *(wire_batch(range(at, at + 5)) for at in range(0, 100, 5)), wire_batch([107]))
    assert [number for number, outcome in job.outcomes.items() if outcome == "rejected"] == [7]
    job.check()
