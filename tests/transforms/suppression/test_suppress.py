from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.batches import LAUNCHED_AT, any_plan, outcomes, stepped
from support.factories import any_campaign, any_customers, any_engine

from schemas.outcomes import OUTCOMES
from transforms.suppression.suppress import value_counts

PLAIN = {"experiment": None, "audience": "spend >= 0"}


def suppressed(tmp_path: Path, customers: pa.Table, *campaigns: dict[str, Any], **more: Any) -> dict[str, str]:
    folder = {key: more.pop(key) for key in ("engine", "lists") if key in more}
    plan = any_plan(tmp_path, *(campaigns or (any_campaign(**PLAIN),)), customers=customers, **folder)
    return outcomes(stepped(plan, customers, **more))


def test_without_a_reason_everyone_is_sent_to(tmp_path: Path) -> None:
    assert set(suppressed(tmp_path, any_customers()).values()) == {"emitted"}


@pytest.mark.parametrize("consent", [False, None])
def test_no_consent_is_a_refusal_and_so_is_an_unknown_one(tmp_path: Path, consent: bool | None) -> None:
    customers = any_customers(4, email_consent=[True, consent, True, True])
    assert suppressed(tmp_path, customers)["c-1"] == "suppressed/no_consent"


def test_a_channel_without_a_consent_column_needs_none(tmp_path: Path) -> None:
    customers = any_customers(4, email_consent=[False] * 4)
    found = suppressed(tmp_path, customers, any_campaign(channel="sms", **PLAIN))
    assert set(found.values()) == {"emitted"}


@pytest.mark.parametrize("address", [None, "", "   "])
def test_a_missing_address_is_a_refusal(tmp_path: Path, address: str | None) -> None:
    customers = any_customers(3, email=["a@x.com", address, "b@x.com"])
    assert suppressed(tmp_path, customers) == {"c-0": "emitted", "c-1": "suppressed/no_address", "c-2": "emitted"}


def test_a_retailer_that_opted_out_sends_nothing(tmp_path: Path) -> None:
    engine = any_engine(retailers={"store-1": {"opted_out": True}})
    found = suppressed(tmp_path, any_customers(3), engine=engine)
    assert found == {"c-0": "emitted", "c-1": "suppressed/retailer_opted_out", "c-2": "emitted"}


def test_suppression_lists_hold_for_their_channel_and_column(tmp_path: Path) -> None:
    engine = any_engine(
        suppression_lists=[
            {"file": "lists/legal.csv"},
            {"file": "lists/bounced.csv", "column": "email", "channel": "email"},
            {"file": "lists/phones.csv", "column": "phone", "channel": "sms"},
        ]
    )
    lists = {"legal.csv": "c-0\n", "bounced.csv": "email\nc1@example.com\n", "phones.csv": "+15550000002\n"}
    found = suppressed(tmp_path, any_customers(4), engine=engine, lists=lists)
    assert [name for name, outcome in found.items() if outcome == "suppressed/suppression_list"] == ["c-0", "c-1"]


def test_the_first_reason_in_the_documented_order_counts(tmp_path: Path) -> None:
    engine = any_engine(retailers={"store-0": {"opted_out": True}})
    customers = any_customers(3, email_consent=[False, False, True], email=[None, None, None])
    found = suppressed(tmp_path, customers, engine=engine)
    assert list(found.values()) == ["suppressed/retailer_opted_out", "suppressed/no_consent", "suppressed/no_address"]


def test_a_window_that_quiet_hours_close_is_a_refusal(tmp_path: Path) -> None:
    schedule = {
        "start": "2026-04-01T22:00",
        "expires": "2026-04-02T02:00",
        "local_time": True,
        "quiet_hours": ["21:00", "08:00"],
    }
    found = suppressed(tmp_path, any_customers(2), any_campaign(schedule=schedule, **PLAIN))
    assert set(found.values()) == {"suppressed/window_closed"}


def in_zones(*zones: str | None, **engine: Any) -> tuple[pa.Table, dict[str, Any]]:
    """Customers of store-0 with these time zones, and an engine in which that retailer is in Tokyo."""
    customers = any_customers(len(zones), zone=pa.array(zones, pa.string()), retailer_id=["store-0"] * len(zones))
    retailers = {"*": {"time_zone": "UTC"}, "store-0": {"time_zone": "Asia/Tokyo"}}
    return customers, any_engine(columns={"time_zone": "zone"}, retailers=retailers, **engine)


def test_a_customer_whose_zone_is_empty_or_unknown_is_in_the_retailers_quiet_hours(tmp_path: Path) -> None:
    zones = ["asia/tokyo ", "Europe/Berlin", None, "", " ", "JST", "JST", "Tokyo"]
    customers, engine = in_zones(*zones)
    schedule = {"start": "2026-04-01T14:00Z", "quiet_hours": ["21:00", "08:00"]}
    plan = any_plan(tmp_path, any_campaign(schedule=schedule, **PLAIN), customers=customers, engine=engine)
    batch = stepped(plan, customers)
    hours = [datetime.fromtimestamp(ms / 1000, UTC).hour for ms in batch.campaigns[0].deliver_after.tolist()]
    assert hours == [23, 14, *[23] * 6]  # 14:00 is 23:00 in Tokyo, which moves to 08:00 there, and 16:00 in Berlin
    assert batch.counts["unknown_time_zones"] == {"'JST'": [2, "c-5 of store-0"], "'Tokyo'": [1, "c-7 of store-0"]}


def test_many_unknown_zones_are_counted_together_beyond_a_hundred() -> None:
    values = pa.array([f"z-{n}" for n in range(150)] + ["z-149"] * 3)
    ids = pa.array([f"c-{n}" for n in range(153)])
    found = value_counts(values, ids, pa.array(["r"] * 153))
    assert len(found) == 101
    assert found["'z-149'"] == [4, "c-149 of r"]
    assert sum(number for number, _ in found.values()) == 153


def at(days: float) -> datetime:
    return datetime.fromtimestamp(LAUNCHED_AT / 1000, UTC) - timedelta(days=days)


def history(path: Path, *sends: tuple[str, str, str, float]) -> str:
    """A history file of (retailer, customer, channel, days before the launch)."""
    rows = [{"retailer_id": r, "customer_id": c, "channel": ch, "sent_at": at(days)} for r, c, ch, days in sends]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def test_a_cap_counts_the_rolling_window_by_customer_and_channel(tmp_path: Path) -> None:
    sends = history(
        tmp_path / "sends.parquet",
        ("store-0", "c-0", "email", 1), ("store-0", "c-0", "email", 6.9),
        ("store-1", "c-1", "email", 1), ("store-1", "c-1", "email", 7.1),
        ("store-2", "c-2", "email", 1), ("store-2", "c-2", "sms", 2),
        ("store-1", "c-0", "email", 1), ("store-1", "c-3", "email", 2),
    )  # fmt: skip
    engine = any_engine(caps=[{"channel": "email", "at_most": 2, "within": "P7D"}])
    found = suppressed(tmp_path, any_customers(5), engine=engine, history=(sends,))
    assert [name for name, outcome in found.items() if outcome == "suppressed/frequency_cap"] == ["c-0"]


def test_campaigns_of_one_launch_share_the_cap_by_priority(tmp_path: Path) -> None:
    engine = any_engine(caps=[{"channel": "email", "at_most": 1, "within": "P7D"}])
    customers = any_customers(6)
    plan = any_plan(
        tmp_path,
        any_campaign(id="second", priority=2, **PLAIN),
        any_campaign(id="first", priority=1, experiment=None, audience="spend >= 3"),
        any_campaign(id="text", priority=3, channel="sms", **PLAIN),
        customers=customers,
        engine=engine,
    )
    batch = stepped(plan, customers)
    first, second, text = batch.campaigns
    assert set(outcomes(batch, first).values()) == {"emitted"}
    assert [n for n, o in outcomes(batch, second).items() if o == "emitted"] == ["c-0", "c-1", "c-2"]
    assert set(outcomes(batch, text).values()) == {"emitted"}


def test_campaigns_further_apart_than_the_window_do_not_share_the_cap(tmp_path: Path) -> None:
    engine = any_engine(caps=[{"channel": "email", "at_most": 1, "within": "P7D"}])
    customers = any_customers(3)
    campaigns = [
        any_campaign(id=f"n-{day}", schedule={"start": f"2026-04-{day}T09:00"}, **PLAIN) for day in ("01", "05", "09")
    ]
    plan = any_plan(tmp_path, *campaigns, customers=customers, engine=engine)
    batch = stepped(plan, customers)
    assert [set(outcomes(batch, rows).values()) for rows in batch.campaigns] == [
        {"emitted"}, {"suppressed/frequency_cap"}, {"emitted"},
    ]  # fmt: skip


def test_a_held_out_customer_keeps_the_place_under_the_cap_and_the_reason(tmp_path: Path) -> None:
    engine = any_engine(holdouts={"global": {"share": 1.0}})
    customers = any_customers(2, email_consent=[True, False])
    plan = any_plan(tmp_path, any_campaign(**PLAIN), customers=customers, engine=engine)
    rows = stepped(plan, customers).campaigns[0]
    assert set(outcomes(stepped(plan, customers)).values()) == {"held_out/global"}
    assert [int(code) > 0 for code in rows.suppression] == [False, True]


def test_a_cap_counts_campaigns_of_the_launch_on_both_sides_and_the_history_before_it_only(tmp_path: Path) -> None:
    engine = any_engine(caps=[{"channel": "email", "at_most": 1, "within": "P7D"}])
    customers = any_customers(2)
    later = any_campaign(id="later", priority=1, schedule={"start": "2026-04-20T09:00"}, **PLAIN)
    starts = {"six-before": "2026-04-14T09:00", "seven-before": "2026-04-13T09:00", "six-after": "2026-04-26T09:00",
              "seven-after": "2026-04-27T09:00"}  # fmt: skip
    for name, start in starts.items():
        other = any_campaign(id=name, priority=2, schedule={"start": start}, **PLAIN)
        plan = any_plan(tmp_path / name, later, other, customers=customers, engine=engine)
        found = set(outcomes(batch := stepped(plan, customers), batch.campaigns[1]).values())
        assert found == {"suppressed/frequency_cap" if name.startswith("six") else "emitted"}, name
    sent = {
        "sent_at": datetime(2026, 4, 21, tzinfo=UTC),
        "retailer_id": "store-0",
        "customer_id": "c-0",
        "channel": "email",
    }
    pq.write_table(pa.Table.from_pylist([sent]), tmp_path / "sends.parquet")
    plan = any_plan(tmp_path / "alone", later, customers=customers, engine=engine)
    assert set(outcomes(stepped(plan, customers, history=(str(tmp_path / "sends.parquet"),))).values()) == {"emitted"}


def test_a_held_out_customers_suppression_tells_the_cap_and_takes_no_place(tmp_path: Path) -> None:
    engine = any_engine(
        caps=[{"channel": "email", "at_most": 1, "within": "P7D"}], holdouts={"retailers": {"store-0": 1.0}}
    )
    customers = any_customers(2)
    campaigns = [any_campaign(id=f"n-{n}", priority=n, **PLAIN) for n in (1, 2)]
    plan = any_plan(tmp_path, *campaigns, customers=customers, engine=engine)
    first, second = stepped(plan, customers).campaigns
    assert [OUTCOMES[code].reason for code in first.suppression.tolist()] == [None, None]
    assert [OUTCOMES[code].reason for code in second.suppression.tolist()] == [None, "frequency_cap"]
    sends = history(tmp_path / "sends.parquet", ("store-0", "c-0", "email", 1))
    capped = stepped(plan, customers, history=(sends,)).campaigns[0]
    assert [OUTCOMES[code].reason for code in capped.suppression.tolist()] == ["frequency_cap", None]
    assert [OUTCOMES[code].reason for code in capped.outcome.tolist()] == ["retailer", None]


def test_of_customers_with_one_address_the_survey_named_ones_are_refused(tmp_path: Path) -> None:
    found = suppressed(tmp_path, any_customers(3), superseded={"00000-000": {"welcome": [1]}})
    assert found == {"c-0": "emitted", "c-1": "suppressed/shared_address", "c-2": "emitted"}
