"""An event of which nothing can be made for the vendor is rejected alone; its neighbours in the call are sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from support.vendor_calls import HOUR_MS, any_account, any_call, any_event, kind, opened

from connectors.vendors import recipients
from connectors.vendors.braze import Braze, recipient
from connectors.vendors.liquid_text import Contents, render_all
from connectors.vendors.outbox import Outbox
from connectors.vendors.recipients import make_recipients
from connectors.vendors.webhook import Webhook
from runners.sandbox.process import Sandbox
from schemas.delivery import Vendor

MICROSECONDS = {"offers": [{**any_event()["offers"][0], "expires_at": HOUR_MS * 10**9}]}
NO_JSON = {"properties": {"name": "\ud800"}}


@pytest.fixture(params=[Braze, Webhook])
def vendor(request: pytest.FixtureRequest) -> Iterator[Vendor]:
    made = opened(request.param())
    yield made
    made.close()


def url_of(vendor: Vendor, sandbox: Sandbox) -> str:
    return sandbox.workspace("store-1") + "/webhook" * (vendor.name == "webhook")


def test_an_event_that_cannot_be_encoded_is_rejected_alone(vendor: Vendor, sandbox: Sandbox) -> None:
    events = [any_event(0), any_event(1, **NO_JSON), any_event(2)]
    answer = vendor.send(any_account(url_of(vendor, sandbox)), any_call(*events))
    assert kind(answer) == ("sent", None, False)
    assert answer.rejected == {1: "unusable_event"}
    assert events[1]["event_id"] in answer.detail
    assert sandbox.accepted() == {events[0]["event_id"]: 1, events[2]["event_id"]: 1}


def test_an_offer_that_expires_in_no_year_is_rejected_alone(sandbox: Sandbox) -> None:
    braze = opened(Braze())
    answer = braze.send(any_account(sandbox.url), any_call(any_event(0, **MICROSECONDS), any_event(1)))
    braze.close()
    assert answer.rejected == {0: "unusable_event"}
    assert sandbox.accepted() == {any_event(1)["event_id"]: 1}


def test_a_call_of_which_nothing_is_left_is_not_made(vendor: Vendor, sandbox: Sandbox) -> None:
    answer = vendor.send(any_account(url_of(vendor, sandbox)), any_call(any_event(0, **NO_JSON)))
    assert kind(answer) == ("sent", None, False)
    assert answer.rejected == {0: "unusable_event"}
    assert sandbox.summary()["calls"] == 0


def test_an_error_that_the_vendor_names_by_its_place_is_of_the_right_event(vendor: Vendor, sandbox: Sandbox) -> None:
    sandbox.script([{"match": {"recipient": "cust-2"}, "answer": "errors", "form": "indexed"}])
    events = [any_event(0, **NO_JSON), any_event(1), any_event(2)]
    answer = vendor.send(any_account(url_of(vendor, sandbox)), any_call(*events))
    assert answer.rejected == {0: "unusable_event", 2: "vendor_error"}
    assert sandbox.accepted() == {events[1]["event_id"]: 1}


def test_the_outbox_leaves_out_only_what_cannot_be_written(tmp_path: Path) -> None:
    events = [any_event(0), any_event(1, properties={"who": object()}), any_event(2)]
    answer = Outbox().send(any_account(str(tmp_path)), any_call(*events))
    assert answer.rejected == {1: "unusable_event"}
    with next(tmp_path.glob("*.avro")).open("rb") as file:
        assert [one["event_id"] for one in fastavro.reader(file)] == [events[0]["event_id"], events[2]["event_id"]]
    alone = Outbox().send(any_account(f"{tmp_path}/none"), any_call(events[1]))
    assert (alone.kind, alone.rejected) == ("sent", {0: "unusable_event"})
    assert not (tmp_path / "none").exists()


def test_a_broken_template_and_an_unusable_event_keep_their_own_reasons() -> None:
    templates = {"mine": "{{ visits | divided_by: 0 }}"}
    events = [any_event(0, template="mine"), any_event(1, **NO_JSON), any_event(2)]
    made = make_recipients(templates, events, recipient)
    assert made.broken == {0: "template_error", 1: "unusable_event"}
    assert made.places == [2]
    assert [one["external_user_id"] for one in json.loads(bytes(made.encoded))] == ["cust-2"]
    assert "divided" in made.words or "ZeroDivision" in made.words or "template mine" in made.words


def test_what_breaks_the_texts_of_all_is_found_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_at(templates: Any, events: Any) -> Contents:
        if any(event["customer_id"] == "cust-1" for event in events):
            raise RuntimeError("boom")
        return render_all(templates, events)

    monkeypatch.setattr(recipients, "render_all", fails_at)
    made = make_recipients({"plain": "Hi {{ first_name }}"}, [any_event(n) for n in range(3)], recipient)
    assert (made.places, made.broken) == ([0, 2], {1: "unusable_event"})
    texts = [one["trigger_properties"]["content"] for one in json.loads(bytes(made.encoded))]
    assert texts == ["Hi Name 0", "Hi Name 2"]


def test_one_encoding_of_all_is_what_each_alone_would_be() -> None:
    events = [any_event(n, properties={"name": "Zoë 🧀", "n": n}) for n in range(50)]
    whole = json.loads(bytes(make_recipients({}, events, recipient).encoded))
    assert whole == [json.loads(bytes(make_recipients({}, [one], recipient).encoded))[0] for one in events]
