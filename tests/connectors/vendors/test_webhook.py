"""The webhook vendor against the sandbox, and the receiver's side as the documentation shows it."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.vendor_calls import KEY, any_account, any_call, any_event, kind, opened

from connectors.vendors.webhook import Webhook, sign
from runners.sandbox.process import Sandbox, running_sandbox
from schemas.delivery import Answer, Vendor

DOCUMENT = Path(__file__).parents[3] / "docs" / "delivery.md"


@pytest.fixture
def webhook() -> Iterator[Vendor]:
    vendor = opened(Webhook(clock=lambda: 1_800_000_000.5))
    yield vendor
    vendor.close()


def send(vendor: Vendor, sandbox: Sandbox, *events: dict[str, Any], **account: Any) -> Answer:
    return vendor.send(any_account(f"{sandbox.workspace('store-1')}/webhook", **account), any_call(*events))


def test_a_batch_is_posted_with_its_id_and_a_text_where_there_is_a_template(webhook: Vendor, sandbox: Sandbox) -> None:
    events = [any_event(1, template="mine"), any_event(2)]
    assert kind(send(webhook, sandbox, *events, templates={"mine": "Hi {{ first_name }}"})) == ("sent", None, False)
    (call,) = sandbox.calls()
    assert json.loads(call["body"]) == {
        "batch_id": "0f" * 16,
        "retailer": "store-1",
        "campaign": "vendor-campaign-1",
        "events": [{**events[0], "content": "Hi Name 1"}, events[1]],
    }
    assert call["headers"]["idempotency-key"] == "0f" * 16
    assert call["headers"]["x-campaigns-signature"] == sign(KEY, call["body"].encode(), 1_800_000_000)
    assert KEY not in repr(call)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"answer": 400}, ("refused", "http_400", True)),
        ({"answer": 401}, ("blocked", "http_401", False)),
        ({"answer": 413}, ("refused", "http_413", True)),
        ({"answer": 429, "seconds": 3}, ("slow_down", "http_429", False)),
        ({"answer": 503}, ("failed", "http_503", False)),
        ({"answer": "hang"}, ("unknown", "no_answer", False)),
        ({"answer": "lose"}, ("unknown", "no_answer", False)),
    ],
    ids=lambda value: str(value["answer"]) if isinstance(value, dict) else "",
)
def test_answers_are_read_as_those_of_any_vendor(
    webhook: Vendor, sandbox: Sandbox, rule: dict[str, Any], expected: tuple[str, str | None, bool]
) -> None:
    sandbox.script([rule])
    assert kind(send(webhook, sandbox, timeout_s=2 if rule["answer"] == "hang" else 60)) == expected


def test_a_receiver_that_answers_503_has_taken_nothing_and_any_other_5xx_proves_nothing(
    webhook: Vendor, sandbox: Sandbox
) -> None:
    sandbox.script([{"answer": 503, "first": 1}, {"answer": 500}])
    assert [send(webhook, sandbox).kind for _ in range(2)] == ["failed", "unknown"]


def test_a_recipient_with_an_error_is_rejected(webhook: Vendor, sandbox: Sandbox) -> None:
    sandbox.script([{"match": {"recipient": "cust-2"}, "answer": "errors", "form": "indexed"}])
    assert send(webhook, sandbox).rejected == {2: "vendor_error"}


def test_a_call_whose_reply_was_lost_is_sent_once_however_often_it_is_repeated(
    webhook: Vendor, sandbox: Sandbox
) -> None:
    sandbox.script([{"first": 1, "answer": "lose"}])
    assert [send(webhook, sandbox).kind for _ in range(3)] == ["unknown", "sent", "sent"]
    summary = sandbox.summary()
    assert (summary["accepted"], summary["accepted_twice"], summary["repeated_calls"]) == (3, 0, 2)


def test_a_receiver_with_the_key_takes_only_what_is_signed_with_it(webhook: Vendor) -> None:
    with running_sandbox(keys={"store-1": KEY, "store-2": "another"}) as sandbox:
        assert send(webhook, sandbox).kind == "sent"
        assert kind(send(webhook, sandbox, key="another")) == ("blocked", "http_401", False)


def test_the_check_in_the_documentation_tells_genuine_calls_from_others(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "example.py").write_text(next(block for block in blocks if "def verify" in block))
    verify = runpy.run_path(str(tmp_path / "example.py"))["verify"]
    body, now = b'{"events": []}', 1_800_000_000
    header = sign(KEY, body, now)
    assert verify(KEY, header, body, now + 299)
    assert not verify(KEY, header, body, now + 301)
    assert not verify(KEY, header, body + b" ", now)
    assert not verify("another", header, body, now)
    assert not verify(KEY, header.replace(str(now), str(now + 1)), body, now)
    assert not verify(KEY, "nonsense", body, now)
