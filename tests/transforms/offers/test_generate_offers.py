from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.batches import any_plan, outcomes, stepped
from support.factories import SECRET, any_campaign, any_customers

from schemas.elements import CampaignRows
from transforms.offers.codes import verify_code, verify_for_customer
from transforms.offers.generate_offers import Limit, order_keys

CUSTOMERS = any_customers(60)
KEY = ("welcome", "five")


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)


def offering(*offers: dict[str, Any], given: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    names = given or [offers[0]["id"]]
    return any_campaign(experiment=None, offers=list(offers), content={"offers": names}, **changes)


def granted(rows: CampaignRows, offer: str) -> dict[str, str | None]:
    """customer → code of those granted the offer."""
    grant = next(grant for grant in rows.offers if grant.offer == offer)
    customers = rows.customer.filter(pa.array(grant.granted)).to_pylist()
    codes = [None] * len(customers) if grant.code is None else grant.code.to_pylist()
    return dict(zip(customers, codes, strict=True))


def queue(plan: Any, batch: Any, offer: str = "five") -> list[str]:
    """The customers of the first campaign in the order of an offer's queue."""
    rows = batch.campaigns[0]
    keys = order_keys(plan, rows, offer, np.arange(len(rows.rows)))
    return [str(rows.customer[place]) for place in np.argsort(keys)]


def first(plan: Any, offer: str, number: int) -> np.ndarray:
    """What the survey decides for a budget when all customers stand in the queue."""
    batch = stepped(
        plan,
        CUSTOMERS,
        allocations={("welcome", offer): np.zeros(0, "S32")},
        offer_capacity={("welcome", offer): 10**9},
    )
    rows = batch.campaigns[0]
    return np.sort(order_keys(plan, rows, offer, np.arange(len(rows.rows))))[:number]


def test_a_unique_code_is_the_customers_own_and_the_same_every_time(tmp_path: Path) -> None:
    plan = any_plan(tmp_path, offering({"id": "five", "kind": "unique_code"}), customers=CUSTOMERS)
    codes = granted(stepped(plan, CUSTOMERS).campaigns[0], "five")
    assert codes == granted(stepped(plan, CUSTOMERS.slice(30)).campaigns[0], "five") | codes
    assert len(set(codes.values())) == 60
    retailer = dict(zip(*(CUSTOMERS[name].to_pylist() for name in ("customer_id", "retailer_id")), strict=True))
    for customer, code in codes.items():
        assert verify_code(SECRET.encode(), str(code), "launch-1", "five")
        assert verify_for_customer(SECRET.encode(), str(code), "launch-1", "five", retailer[customer], customer)
        assert not verify_code(SECRET.encode(), str(code), "launch-2", "five")


def test_who_does_not_meet_the_condition_is_sent_without_the_offer(tmp_path: Path) -> None:
    plan = any_plan(tmp_path, offering({"id": "five", "kind": "fixed", "when": "orders > 5"}), customers=CUSTOMERS)
    batch = stepped(plan, CUSTOMERS)
    wanted = {
        c for c, o in zip(CUSTOMERS["customer_id"].to_pylist(), CUSTOMERS["orders"].to_pylist(), strict=True) if o > 5
    }
    assert set(granted(batch.campaigns[0], "five")) == wanted
    assert set(outcomes(batch).values()) == {"emitted"}
    count = batch.counts["offers"]["welcome"]["five"]
    assert (count.granted, count.condition_not_met) == (len(wanted), 60 - len(wanted))


@pytest.mark.parametrize("budget", [0, 1, 7, 59, 60, 100])
def test_a_budget_grants_exactly_the_first_by_hash_order(tmp_path: Path, budget: int) -> None:
    plan = any_plan(tmp_path, offering({"id": "five", "kind": "fixed", "budget": budget}), customers=CUSTOMERS)
    every = first(plan, "five", 60)
    last = every[budget - 1 : budget] if 0 < budget <= 60 else every[:0]
    batch = stepped(plan, CUSTOMERS, allocations={KEY: last}, offer_capacity={KEY: budget})
    assert sorted(granted(batch.campaigns[0], "five")) == sorted(queue(plan, batch)[:budget])
    assert batch.counts["offers"]["welcome"]["five"].exhausted == max(0, 60 - budget)


def test_who_comes_too_late_is_suppressed_or_given_the_fallback(tmp_path: Path) -> None:
    limited = {"id": "five", "kind": "fixed", "budget": 10}
    plan = any_plan(tmp_path / "s", offering({**limited, "on_exhausted": "suppress"}), customers=CUSTOMERS)
    last = first(plan, "five", 10)[-1:]
    batch = stepped(plan, CUSTOMERS, allocations={KEY: last}, offer_capacity={KEY: 10})
    late = [name for name, outcome in outcomes(batch).items() if outcome == "suppressed/offer_exhausted"]
    assert sorted(late) == sorted(queue(plan, batch)[10:])
    fallback = {**limited, "on_exhausted": "fallback", "fallback": "one"}
    campaign = offering(fallback, {"id": "one", "kind": "fixed", "code": "ONE"})
    plan = any_plan(tmp_path / "f", campaign, customers=CUSTOMERS)
    batch = stepped(plan, CUSTOMERS, allocations={KEY: last}, offer_capacity={KEY: 10})
    assert set(outcomes(batch).values()) == {"emitted"}
    assert sorted(granted(batch.campaigns[0], "one")) == sorted(late)
    assert batch.counts["offers"]["welcome"]["one"].fallback_granted == 50


def test_the_nth_customer_in_hash_order_takes_the_nth_code(tmp_path: Path) -> None:
    codes = [f"CODE-{n}" for n in range(25)]
    campaign = offering({"id": "five", "kind": "code_list", "codes": "lists/codes.csv"})
    plan = any_plan(tmp_path, campaign, customers=CUSTOMERS, lists={"codes.csv": "\n".join(codes)})
    batch = stepped(plan, CUSTOMERS, allocations={KEY: first(plan, "five", 25)}, offer_capacity={KEY: 25})
    assert granted(batch.campaigns[0], "five") == dict(zip(queue(plan, batch)[:25], codes, strict=True))


def test_only_the_variants_that_have_an_offer_give_it(tmp_path: Path) -> None:
    experiment = {"key": "e", "variants": [{"key": "a", "offers": ["five"]}, {"key": "b"}], "coverage": 0.8}
    campaign = any_campaign(experiment=experiment, offers=[{"id": "five", "kind": "fixed"}, {"id": "all", "kind": "fixed"}],
                            content={"offers": ["all"]})  # fmt: skip
    plan = any_plan(tmp_path, campaign, customers=CUSTOMERS)
    rows = stepped(plan, CUSTOMERS).campaigns[0]
    by_variant = {0: "five", 1: None, -1: "all"}
    for offer in ("five", "all"):
        wanted = {str(c) for c, v in zip(rows.customer, rows.variant.tolist(), strict=True) if by_variant[v] == offer}
        assert set(granted(rows, offer)) == wanted


def test_a_limit_with_no_room_grants_nobody() -> None:
    keys = np.array([b"a" * 32, b"b" * 32])
    assert Limit(0, keys[:0]).within(keys).tolist() == [False, False]
    assert Limit(5, keys[:0]).within(keys).tolist() == [True, True]
    assert Limit(1, keys[:1]).within(keys).tolist() == [True, False]
