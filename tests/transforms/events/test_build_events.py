import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.batches import LAUNCHED_AT, any_plan, stepped
from support.factories import SECRET, any_campaign, any_customers

from schemas.contracts import decode, fingerprint
from schemas.elements import EventBatch, Refusal
from transforms.events.build_events import build_events
from transforms.events.publish_events import refuse_events
from transforms.reconciliation.record_exposures import batch_counts, exposures

CUSTOMERS = any_customers(40)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)


def built(tmp_path: Path, *campaigns: dict[str, Any], customers: pa.Table = CUSTOMERS) -> EventBatch:
    plan = any_plan(tmp_path, *campaigns, customers=customers)
    return build_events(plan, stepped(plan, customers))


def decoded(events: EventBatch) -> list[dict[str, Any]]:
    return [decode(fingerprint("campaign_event"), body) for body in events.bodies.to_pylist()]


def test_an_event_carries_all_that_delivery_needs(tmp_path: Path) -> None:
    campaign = any_campaign(
        experiment={"key": "e", "variants": [{"key": "a", "template": "big", "offers": ["five"]}]},
        offers=[{"id": "five", "kind": "unique_code", "value": "5.00", "currency": "USD", "valid_for": "P14D"}],
        content={"template": "plain", "properties": {"name": "coalesce(first_name, 'friend')", "orders": "orders", "spend": "spend",
                                                     "big": "spend > 10", "raw": "first_name"}},
        schedule={"start": "2026-04-01T09:00", "local_time": True, "expires": "P3D"},
        vendor={"campaign": "v-1"},
    )  # fmt: skip
    event = next(e for e in decoded(built(tmp_path, campaign)) if e["customer_id"] == "c-3")
    start = 1_775_048_400_000
    assert event.pop("event_id") == hashlib.sha256(b"launch-1\x1fwelcome\x1fstore-0\x1fc-3").hexdigest()[:32]
    assert len(event.pop("campaign_version")) == 12
    (offer,) = event.pop("offers")
    assert len(offer.pop("code")) == 17
    assert offer == {
        "id": "five",
        "kind": "unique_code",
        "value": "5.00",
        "currency": "USD",
        "expires_at": start + 14 * 86_400_000,
    }
    assert 0 <= event["experiment"].pop("bucket") < 1
    assert event == {
        "launch_id": "launch-1", "campaign_id": "welcome", "surface": "storefront", "retailer_id": "store-0",
        "customer_id": "c-3", "recipient": "c3@example.com", "channel": "email", "vendor_campaign": "v-1",
        "experiment": {"key": "e", "variant": "a", "scheme": "growthbook/2"}, "template": "big",
        "properties": {"name": "friend", "orders": 3, "spend": 3.0, "big": False, "raw": None},
        "deliver_after": start, "expires_at": start + 3 * 86_400_000, "emitted_at": LAUNCHED_AT,
        "trace": "launch-1/00000-000",
    }  # fmt: skip


def test_campaigns_of_every_kind_share_one_encoding(tmp_path: Path) -> None:
    campaigns = [
        any_campaign(id="bare", experiment=None, content={}),
        any_campaign(id="split"),
        any_campaign(id="offers", experiment=None, content={"offers": ["x", "y"], "properties": {"n": "orders"}},
                     offers=[{"id": "x", "kind": "fixed", "when": "orders > 3"}, {"id": "y", "kind": "fixed", "code": "Y"}]),
        any_campaign(id="nobody", audience="spend < 0"),
    ]  # fmt: skip
    events = decoded(built(tmp_path, *campaigns))
    by = {name: [e for e in events if e["campaign_id"] == name] for name in ("bare", "split", "offers", "nobody")}
    assert [len(one) for one in by.values()] == [40, 40, 40, 0]
    assert all(e["experiment"] is None and e["properties"] == {} and e["template"] is None for e in by["bare"])
    assert {e["experiment"]["variant"] for e in by["split"]} == {"a", "b"}
    orders = dict(zip(CUSTOMERS["customer_id"].to_pylist(), CUSTOMERS["orders"].to_pylist(), strict=True))
    for event in by["offers"]:
        number = orders[event["customer_id"]]
        assert [o["id"] for o in event["offers"]] == (["x", "y"] if number > 3 else ["y"])
        assert event["properties"] == {"n": number}


def test_events_of_a_campaign_come_retailer_by_retailer(tmp_path: Path) -> None:
    retailers = [event["retailer_id"] for event in decoded(built(tmp_path, any_campaign()))]
    assert len([1 for before, after in pairwise(retailers) if before != after]) == 2


def test_attributes_name_what_the_body_says(tmp_path: Path) -> None:
    events = built(tmp_path, any_campaign(), any_campaign(id="again"))
    attributes = events.attributes
    for place, event in enumerate(decoded(events)):
        assert str(attributes["event_id"][place]) == event["event_id"]
        assert str(attributes["retailer_id"][place]) == event["retailer_id"]
        assert attributes["campaign_id"][place].as_py() == event["campaign_id"]
        campaign, row = events.place[:, place].tolist()
        assert str(events.batch.campaigns[campaign].event_id[row]) == event["event_id"]


def test_nobody_to_send_to_is_no_event(tmp_path: Path) -> None:
    assert len(built(tmp_path, any_campaign(audience="spend < 0")).bodies) == 0


def test_a_refused_event_is_a_dead_letter_with_its_bytes_and_a_place_in_the_ledger(tmp_path: Path) -> None:
    events = built(tmp_path, any_campaign(), any_campaign(id="again"))
    batch = refuse_events(
        events, [Refusal(3, "over_size", "too large"), Refusal(41, "refused_by_broker", "no")], "trace"
    )
    assert [letter.data for letter in batch.dead_letters] == [events.bodies[3].as_py(), events.bodies[41].as_py()]
    plan = any_plan(tmp_path / "again", any_campaign(), any_campaign(id="again"), customers=CUSTOMERS)
    table = exposures(plan, batch)
    dead = table.filter(pa.compute.equal(table["outcome"], "dead_lettered"))
    assert dead["reason"].to_pylist() == ["over_size", "refused_by_broker"]
    assert dead["event_id"].to_pylist() == [str(events.attributes["event_id"][n]) for n in (3, 41)]
    counted = {tuple(key): number for *key, number in batch_counts(batch)["outcomes"]}
    first, second = table["campaign_id"].unique().to_pylist()
    assert counted[first, "dead_lettered", "over_size"] == 1
    assert counted[second, "dead_lettered", "refused_by_broker"] == 1
