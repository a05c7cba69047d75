"""The braze vendor against the sandbox, over real sockets."""

from __future__ import annotations

import json
import pickle
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.vendor_calls import KEY, any_account, any_call, any_event, kind, opened

from connectors.vendors.braze import Braze
from runners.sandbox.process import Sandbox
from schemas.delivery import Answer, Vendor


@pytest.fixture
def braze() -> Iterator[Vendor]:
    vendor = opened(Braze())
    yield vendor
    vendor.close()


def send(vendor: Vendor, sandbox: Sandbox, *events: dict[str, Any], **account: Any) -> Answer:
    return vendor.send(any_account(sandbox.workspace("store-1"), **account), any_call(*events))


def test_a_batch_is_sent_and_has_the_dispatch_id(braze: Vendor, sandbox: Sandbox) -> None:
    answer = send(braze, sandbox)
    assert kind(answer) == ("sent", None, False)
    assert not answer.rejected
    assert answer.vendor_id is not None
    assert len(answer.vendor_id) == 32
    assert sandbox.accepted() == {any_event(n)["event_id"]: 1 for n in range(3)}


def test_the_payload_is_what_the_api_takes(braze: Vendor, sandbox: Sandbox) -> None:
    send(braze, sandbox, any_event(5, properties={"first_name": "Ann", "offers": "mine", "town": None}))
    (call,) = sandbox.calls()
    assert call["workspace"] == "store-1"
    assert call["path"] == "/campaigns/trigger/send"
    assert json.loads(call["body"]) == {
        "campaign_id": "vendor-campaign-1",
        "recipients": [
            {
                "external_user_id": "cust-5",
                "trigger_properties": {
                    "first_name": "Ann",
                    "town": None,
                    "event_id": any_event(5)["event_id"],
                    "launch_id": "launch-1",
                    "campaign_id": "welcome",
                    "channel": "email",
                    "template": "plain",
                    "experiment": "split",
                    "variant": "a",
                    "offers": [
                        {
                            "id": "ten",
                            "kind": "fixed",
                            "code": "TEN",
                            "value": "10.00",
                            "currency": "USD",
                            "expires_at": "1970-01-01T01:00:00Z",
                        }
                    ],
                },
            }
        ],
    }


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"answer": 200}, ("sent", None, False)),
        ({"answer": 202}, ("sent", None, False)),
        ({"answer": "fatal"}, ("refused", "vendor_message", True)),
        ({"answer": 302}, ("blocked", "http_302", False)),
        ({"answer": 400}, ("refused", "http_400", True)),
        ({"answer": 401}, ("blocked", "http_401", False)),
        ({"answer": 403}, ("blocked", "http_403", False)),
        ({"answer": 404}, ("blocked", "http_404", False)),
        ({"answer": 413}, ("refused", "http_413", True)),
        ({"answer": 429}, ("slow_down", "http_429", False)),
        ({"answer": 500}, ("unknown", "http_500", False)),
        ({"answer": 502}, ("unknown", "http_502", False)),
        ({"answer": 503}, ("unknown", "http_503", False)),
        ({"answer": "hang"}, ("unknown", "no_answer", False)),
        ({"answer": "reset"}, ("unknown", "no_answer", False)),
        ({"answer": "slow", "seconds": 0.1}, ("sent", None, False)),
        ({"answer": "slow", "seconds": 3_600}, ("unknown", "no_answer", False)),
        ({"answer": "lose"}, ("unknown", "no_answer", False)),
        ({"answer": "lose", "form": "hang"}, ("unknown", "no_answer", False)),
        ({"answer": "lose", "form": "half"}, ("unknown", "no_answer", False)),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_every_answer_of_the_vendor_has_its_kind(
    braze: Vendor, sandbox: Sandbox, rule: dict[str, Any], expected: tuple[str, str | None, bool]
) -> None:
    sandbox.script([rule])
    silent = "hang" in (rule["answer"], rule.get("form")) or rule.get("seconds") == 3_600
    assert kind(send(braze, sandbox, timeout_s=2 if silent else 60)) == expected
    was_sent = rule["answer"] in (200, 202, "slow", "lose")
    assert len(sandbox.accepted()) == (3 if was_sent else 0)


@pytest.mark.parametrize("form", ["retry-after", "x-ratelimit-retry-after", "reset", "seconds"])
def test_a_429_says_when_to_come_again_in_any_of_its_forms(braze: Vendor, sandbox: Sandbox, form: str) -> None:
    sandbox.script([{"answer": 429, "form": form, "seconds": 40}])
    assert send(braze, sandbox).retry_after_s == pytest.approx(40, abs=2)


def test_a_429_may_also_say_nothing(braze: Vendor, sandbox: Sandbox) -> None:
    sandbox.script([{"answer": 429, "form": "none"}])
    assert send(braze, sandbox).retry_after_s is None


@pytest.mark.parametrize("form", ["named", "indexed"])
def test_a_recipient_with_an_error_is_rejected_and_the_rest_is_sent(braze: Vendor, sandbox: Sandbox, form: str) -> None:
    sandbox.script([{"match": {"recipient": "cust-1"}, "answer": "errors", "form": form}])
    answer = send(braze, sandbox)
    assert answer.kind == "sent"
    assert answer.rejected == {1: "vendor_error"}
    assert "cannot be reached" in answer.detail
    assert set(sandbox.accepted()) == {any_event(0)["event_id"], any_event(2)["event_id"]}


def test_an_error_about_nobody_in_particular_is_only_reported(braze: Vendor, sandbox: Sandbox) -> None:
    sandbox.script([{"answer": "errors", "form": "vague"}])
    answer = send(braze, sandbox)
    assert (answer.kind, answer.rejected) == ("sent", {})
    assert answer.detail == "Some recipients could not be reached"
    assert len(sandbox.accepted()) == 3


def test_a_connection_that_was_never_made_has_sent_nothing(braze: Vendor) -> None:
    with socket.socket() as bound:  # bound, but nobody listens
        bound.bind(("127.0.0.1", 0))
        answer = braze.send(any_account(f"http://127.0.0.1:{bound.getsockname()[1]}"), any_call())
    assert kind(answer) == ("failed", "no_connection", False)


def test_a_payload_over_4_mb_is_refused_without_a_call(braze: Vendor, sandbox: Sandbox) -> None:
    events = [any_event(n, properties={"text": "x" * 2_100_000}) for n in range(2)]
    assert kind(send(braze, sandbox, *events)) == ("refused", "payload_over_4_mb", True)
    assert send(braze, sandbox, events[0]).kind == "sent"
    assert sandbox.summary()["calls"] == 1


def test_a_retailers_template_goes_as_content_and_one_that_fails_keeps_nobody_else(
    braze: Vendor, sandbox: Sandbox
) -> None:
    templates = {"mine": "Hello {{ first_name }}, {{ offers[0].code }}", "odd": "{{ first_name | divided_by: 0 }}"}
    events = [any_event(0, template="odd"), any_event(1, template="mine"), any_event(2), any_event(3, template="mine")]
    sandbox.script([{"match": {"recipient": "cust-3"}, "answer": "errors", "form": "indexed"}])
    answer = send(braze, sandbox, *events, templates=templates)
    assert (answer.kind, answer.rejected) == ("sent", {0: "template_error", 3: "vendor_error"})
    assert answer.detail.startswith("template odd: line 1: ")
    properties = [one["trigger_properties"] for one in json.loads(sandbox.calls()[0]["body"])["recipients"]]
    assert [one.get("content") for one in properties] == ["Hello Name 1, TEN", None, "Hello Name 3, TEN"]


def test_no_call_is_made_when_no_recipient_has_a_text(braze: Vendor, sandbox: Sandbox) -> None:
    answer = send(braze, sandbox, any_event(template="odd"), templates={"odd": "{% for %}"})
    assert (answer.kind, answer.rejected) == ("sent", {0: "template_error"})
    assert sandbox.summary()["calls"] == 0


def test_a_customer_twice_in_a_call_is_a_bug(braze: Vendor, sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="2 events of 1 customers"):
        send(braze, sandbox, any_event(1), any_event(1))
    with pytest.raises(ValueError, match="51 events"):
        send(braze, sandbox, *map(any_event, range(51)))


def test_connections_are_kept_and_a_lost_reply_costs_only_its_own(braze: Vendor, sandbox: Sandbox) -> None:
    for _ in range(10):
        send(braze, sandbox)
    assert sandbox.summary()["connections"] == 1
    sandbox.script([{"first": 1, "answer": "lose"}])
    kinds = [send(braze, sandbox).kind for _ in range(5)]
    assert kinds == ["unknown", "sent", "sent", "sent", "sent"]
    assert sandbox.summary()["connections"] == 2


def test_threads_share_a_vendor(braze: Vendor, sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: send(braze, sandbox, any_event(n)), range(200)))
    assert {answer.kind for answer in answers} == {"sent"}
    assert sandbox.summary()["connections"] <= 8
    assert set(sandbox.accepted().values()) == {1}
    assert len({answer.vendor_id for answer in answers}) == 200


def test_the_key_is_the_bearer_and_shows_nowhere(
    braze: Vendor, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    account = any_account(sandbox.url)
    sandbox.script([{"first": 1, "answer": 401, "message": f"Invalid API Key {KEY}"}, {"answer": "reset"}])
    answers = [braze.send(account, any_call()) for _ in range(2)]
    broken = braze.send(any_account(sandbox.url, key=f"{KEY}\n"), any_call())
    assert kind(broken) == ("blocked", "bad_configuration", False)
    assert broken.detail == "the header Authorization has characters that no header can have"
    assert answers[0].detail == "Invalid API Key …"
    assert KEY not in repr((account, answers, broken, sandbox.calls(), caplog.text))


def test_a_vendor_can_be_pickled_before_it_is_open() -> None:
    assert pickle.loads(pickle.dumps(Braze())).name == "braze"
