"""The events of the examples: they keep their own rules, are the same in every run, and show the truth they came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from connectors.files.reader import read_envelopes
from examples.events.__main__ import main
from examples.events.cards import card_attempts
from examples.events.journey import Journey
from examples.events.shop import item_scans, session_events
from examples.events.tables import Generated, as_they_come, at_speed, encode, encode_rows
from examples.journey.purchases import read_tables
from schemas.events.event_types import load_event_types
from schemas.events.framing import frame
from schemas.transport import Envelope
from transforms.features.scan_events import Scanned, scan

START = 1_700_000_000_000
DAY = 86_400_000
TYPES = load_event_types()
GENERATORS: dict[str, Callable[[int], Generated]] = {
    "item_scan": lambda seed: item_scans(20_000, seed, START, stores=5, products=20),
    "session_event": lambda seed: session_events(2_000, seed, START, products=40),
    "card_attempt": lambda seed: card_attempts(3_000, seed, START),
}


@pytest.fixture(scope="module")
def journey() -> Journey:
    return Journey()


def scanned(name: str, events: pa.Table, version: int = 0) -> Scanned:
    """The events as the engine reads them."""
    start = frame(TYPES[name], version or TYPES[name].newest)
    bodies = encode(TYPES[name], events, version).to_pylist()
    now = max(events["published_at"].to_pylist())
    return scan(TYPES[name], [Envelope(f"0:{place}", {}, start + one, now) for place, one in enumerate(bodies)], now)


@pytest.mark.parametrize("name", GENERATORS)
def test_generated_events_keep_every_rule_and_are_ordered_by_publication(name: str) -> None:
    made = GENERATORS[name](1)
    found = scanned(name, made.events)
    assert found.rejected == []
    assert len(set(found.event_ids)) == made.events.num_rows > 3_000
    assert (np.diff(found.published) >= 0).all()


@pytest.mark.parametrize("name", GENERATORS)
def test_a_seed_gives_the_same_events_and_another_one_others(name: str) -> None:
    one, again, other = (GENERATORS[name](seed) for seed in (1, 1, 2))
    assert one == again
    assert not one.events.equals(other.events)


@pytest.mark.parametrize("name", GENERATORS)
def test_rows_are_encoded_as_the_table_is(name: str) -> None:
    made = GENERATORS[name](3)
    rows = list(made.rows())[:50]
    assert {kind for kind, _ in rows} == {name}
    bodies = encode_rows(TYPES[name], [row for _, row in rows])
    assert bodies == encode(TYPES[name], made.events.slice(0, 50)).to_pylist()


def test_items_are_found_as_often_as_the_truth_says() -> None:
    made = GENERATORS["item_scan"](1)
    joined = made.events.join(made.truth, ["store_id", "product_id"])
    found = joined["found"].to_numpy()
    at, begins, ends = (joined[name].to_numpy() for name in ("occurred_at", "empty_from", "empty_until"))
    empty = (at >= begins) & (at < ends)
    assert empty.sum() > 100
    assert found[empty].mean() < 0.1
    expected = joined["found_rate"].to_numpy()[~empty]
    assert abs(found[~empty].mean() - expected.mean()) < 0.02
    assert made.events["units"].null_count == len(found) - found.sum()


def test_products_are_viewed_in_the_order_of_their_attraction() -> None:
    made = GENERATORS["session_event"](1)
    counts = made.events.group_by(["product_id", "action"]).aggregate([("event_id", "count")]).to_pylist()
    by_product = {(row["product_id"], row["action"]): row["event_id_count"] for row in counts}
    rate = [
        by_product.get((one, "view"), 0) / by_product[one, "impression"] for one in made.truth["product_id"].to_pylist()
    ]
    assert np.corrcoef(rate, made.truth["attraction"].to_numpy())[0, 1] > 0.95
    first = made.events.filter(pc.equal(made.events["place"], 1))
    assert set(first["action"].to_pylist()) == {"impression"}


def test_planted_fraud_looks_like_it_and_is_known_days_later() -> None:
    made = GENERATORS["card_attempt"](1)
    joined = made.events.join(made.truth, "event_id").to_pylist()
    tested = [row for row in joined if row["fraud"] == "card_testing"]
    taken = [row for row in joined if row["fraud"] == "takeover"]
    assert (len(tested), len(taken), len(joined)) == (480, 150, 3_630)
    devices = {row["device_id"] for row in tested}
    for device in devices:
        cards = [row for row in tested if row["device_id"] == device]
        assert len(cards) == 40
        assert max(row["occurred_at"] for row in cards) - min(row["occurred_at"] for row in cards) <= 600_000
    assert max(row["amount_cents"] for row in tested) < 200 <= 20_000 <= min(row["amount_cents"] for row in taken)
    assert all(2 * DAY <= row["known_at"] - row["occurred_at"] <= 30 * DAY for row in [*tested, *taken])
    assert {row["known_at"] for row in joined if row["fraud"] is None} == {None}
    assert not {*made.events.column_names} & {"fraud", "known_at"}


def test_every_purchase_of_the_study_is_an_order_line(journey: Journey) -> None:
    events = journey.order_lines()
    study = read_tables()["transactions"]
    assert events.num_rows == study.num_rows == 1_469_307
    assert len(pc.unique(events["event_id"])) == events.num_rows
    assert pc.sum(events["quantity"]).as_py() == pc.sum(study["quantity"]).as_py()
    cents = sum(round(value * 100) for value in study["sales_value"].to_pylist())
    assert pc.sum(events["sales_cents"]).as_py() == cents
    for version in (1, 2):
        found = scanned("order_line", events.slice(700_000, 20_000), version)
        assert found.rejected == []
        assert found.warned == {}


def test_campaigns_and_coupons_keep_their_rules(journey: Journey) -> None:
    sent, redeemed = journey.campaigns_sent(), journey.coupons_redeemed()
    assert (sent.num_rows, redeemed.num_rows) == (6_589, 2_102)
    for name, events in (("campaign_sent", sent), ("coupon_redeemed", redeemed)):
        found = scanned(name, events)
        assert found.rejected == []
        assert len(set(found.event_ids)) == events.num_rows


def test_events_are_replayed_at_another_speed(journey: Journey) -> None:
    sent = journey.campaigns_sent()
    fast = at_speed(sent, START, 86_400)
    assert fast["published_at"][0].as_py() == START
    days = (sent["published_at"][-1].as_py() - sent["published_at"][0].as_py()) / DAY
    assert fast["published_at"][-1].as_py() - START == int(days * 1_000)
    assert fast["ends_at"][0].as_py() > START
    assert fast.schema == sent.schema


def test_events_come_when_they_are_due() -> None:
    events = at_speed(item_scans(1_000, 1, START).events, START, 8_640)
    now = [START / 1000]

    def sleep(seconds: float) -> None:
        assert seconds > 0
        now[0] += seconds

    got = []
    for part in as_they_come(events, lambda: now[0], sleep):
        assert max(part["published_at"].to_pylist()) <= now[0] * 1000
        got.append(part)
    assert pa.concat_tables(got) == events
    assert len(got) > 100
    assert now[0] < START / 1000 + 11


def test_files_of_every_type_are_written(tmp_path: Path) -> None:
    assert main(["--output", str(tmp_path), "--events", "200"]) == 0
    for name in ("order_line", "campaign_sent", "coupon_redeemed", "item_scan", "session_event", "card_attempt"):
        messages = list(read_envelopes(str(tmp_path / name / "events.avro")))
        found = scan(TYPES[name], messages, 1_800_000_000_000)
        assert found.rejected == []
        assert len(found.events) == len(messages) >= 100
