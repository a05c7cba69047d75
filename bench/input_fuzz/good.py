"""Inputs in which nothing is wrong: what a launch must take."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from bench.input_fuzz.customers import Draw, chance, customers, one_of
from bench.input_fuzz.inputs import Facts, Inputs
from bench.input_fuzz.tables import Table

SCHEMES = ("growthbook/2", "growthbook/1", "unleash/rollout", "unleash/variant", "eppo", "optimizely", "launchdarkly", "planout", "statsig")  # fmt: skip
CONDITIONS = (
    "spend >= 0", "true", "orders > 3", "spend > 10 AND orders < 9", "first_name IS NOT NULL", "first_name LIKE 'N%'",
    "signed_up < launched_at", "signed_up >= TIMESTAMP '2020-01-01'", "coalesce(first_name, '') <> 'x'",
    "orders BETWEEN 1 AND 12", "orders IN (1, 2, 3)", "NOT email_consent", "lower(email) LIKE '%@example.com'",
    "TRY_CAST(first_name AS INTEGER) IS NULL", "household % 2 = 0", "length(first_name) > 2", "CASE WHEN spend > 5 THEN true ELSE false END",
    "date_diff('day', signed_up, launched_at) > 30", "spend IS NULL OR spend < 1e9", "first_name IN ('Ann', 'O''Brien', 'Zoë')",
)  # fmt: skip
PROPERTIES = (
    "first_name", "coalesce(first_name, 'friend')", "round(spend, 2)", "orders", "signed_up", "spend > 3", "'plain'",
    "upper(email)", "CAST(orders AS VARCHAR)", "NULL", "orders + 1", "strftime(signed_up, '%Y-%m-%d')", "email_consent",
)  # fmt: skip


def good(draw: Draw) -> Inputs:
    """Inputs that a launch must take, with what is known about them."""
    table, facts = customers(draw)
    lists: dict[str, bytes] = {}
    engine = _engine(draw, table, facts, lists)
    audiences = {"regulars": {"audience": _node(draw, 1, {}, table, lists, None)}}
    audiences["others"] = {"audience": {"not": {"audience": "regulars"}}, "description": "nobody of them"}
    campaigns = {}
    for number in range(draw(st.integers(1, 3))):
        campaign = _campaign(draw, number, audiences, table, facts, lists)
        campaigns[campaign["id"]] = campaign
    inputs = Inputs(engine, campaigns, table, audiences, lists, facts=facts)
    inputs.options = {
        "--campaigns": ["campaigns"],
        "--customers": [table.source],
        "--events": ["file:events"],
        "--output": ["out"],
    }
    _more_options(draw, inputs)
    inputs.commands = _commands(draw)
    return inputs


def _commands(draw: Draw) -> list[str]:
    if draw(st.integers(0, 4)) < 3:
        return [one_of(draw, "validate", "validate", "preview", "schema")]
    return [
        "launch",
        "check",
        *([one_of(draw, "report", "why", "launch", "validate", "preview")] if chance(draw, 3) else []),
    ]


def condition(draw: Draw, table: Table) -> str:
    """A sound condition; times are text in NDJSON."""
    text: str = draw(st.sampled_from(CONDITIONS))
    return text.replace("signed_up", "CAST(signed_up AS TIMESTAMP)") if "json" in table.format else text


def _node(
    draw: Draw, depth: int, audiences: dict[str, Any], table: Table, lists: dict[str, bytes], never: set[str] | None
) -> Any:
    kind = draw(st.integers(0, 7)) if depth < 3 else 0
    if kind == 4:
        return {"all": [_node(draw, depth + 1, audiences, table, lists, None) for _ in range(draw(st.integers(1, 3)))]}
    if kind == 5:
        return {"any": [_node(draw, depth + 1, audiences, table, lists, None) for _ in range(draw(st.integers(1, 3)))]}
    if kind == 6:
        return {"not": _node(draw, depth + 1, audiences, table, lists, None)}
    if kind == 7 and audiences:
        return {"audience": draw(st.sampled_from(sorted(audiences)))}
    return condition(draw, table)


def id_list(draw: Draw, table: Table) -> tuple[bytes, set[str]]:
    """A list of some customers' ids, one a line or in the first of two columns, and the ids."""
    every = [str(value) for value in table.columns["customer_id"]]
    ids = every[:: draw(st.integers(1, 4))]
    quoted = ['"' + one.replace('"', '""') + '"' if any(c in one for c in ',;|"') else one for one in ids]
    if chance(draw, 3):
        lines = ["customer_id,reason", *(f"{one},asked" for one in quoted)]
    else:
        lines = [*(["customer_id"] if chance(draw) else []), *quoted]
    end = one_of(draw, "\n", "\r\n")
    return "".join(line + end for line in lines).encode(), set(ids)


def _engine(draw: Draw, table: Table, facts: Facts, lists: dict[str, bytes]) -> dict[str, Any]:
    engine: dict[str, Any] = {
        "channels": {"email": {"address": "email", "consent": "email_consent"}, "sms": {"address": "phone"}},
        "retailers": {"*": {"time_zone": "America/New_York"}},
    }
    if chance(draw):
        engine["columns"] = {"customer": "customer_id", "retailer": "retailer_id", "time_zone": "tz"}
    if chance(draw, 3):
        engine["holdouts"] = {"global": {"share": 0.05, "seed": "g"}, "retailers": {"store-1": 0.1, "*": 0.0}}
    if chance(draw, 3):
        engine["caps"] = [{"channel": "email", "at_most": one_of(draw, 0, 1, 3), "within": one_of(draw, "P7D", "PT1H")}]
    if chance(draw, 3):
        engine["shared_address"] = {
            "column": one_of(draw, "spend", "orders", "household"),
            "keep": one_of(draw, "highest", "lowest"),
        }
    if chance(draw):
        lists["lists/stop.csv"], ids = id_list(draw, table)
        engine["suppression_lists"] = [{"file": "lists/stop.csv"}]
        facts.never |= ids
    if chance(draw, 6):
        engine["retailers"]["store-1"] = {"opted_out": True, "time_zone": "Asia/Tokyo"}
    if chance(draw, 6):
        engine["delivery"] = {"vendor": "webhook", "timeout": "PT3S"}
        engine["workspaces"] = {
            "*": {
                "url": "http://127.0.0.1:9/w/{retailer}",
                "key_env": "KEY_{retailer}",
                "pace": {"per_second": 5.5, "burst": 9},
            }
        }
    return engine


def _offers(draw: Draw, campaign: str, facts: Facts, lists: dict[str, bytes]) -> list[dict[str, Any]]:
    kind = one_of(draw, "fixed", "unique_code", "code_list")
    offer: dict[str, Any] = {"id": "five", "kind": kind, "value": one_of(draw, "5.00", 5, 0.5), "currency": "USD"}
    offers = [offer, {"id": "one", "kind": "fixed", "code": "ONE", "value": "1.00", "currency": "USD"}]
    if kind == "code_list":
        codes = [f"{campaign.upper()}-{n}" for n in range(draw(st.integers(1, 40)))]
        lists[f"lists/{campaign}.csv"] = ("\n".join(codes) + "\n").encode()
        offer["codes"] = f"lists/{campaign}.csv"
        facts.codes[campaign, "five"] = set(codes)
    elif chance(draw):
        offer["budget"] = one_of(draw, 0, 1, 10, 10_000)
    if kind == "code_list" or "budget" in offer:
        offer |= one_of(
            draw,
            {},
            {"on_exhausted": "without"},
            {"on_exhausted": "fallback", "fallback": "one"},
            {"on_exhausted": "suppress"},
        )
    if chance(draw, 3):
        offer["valid_for"] = one_of(draw, "P14D", "PT1H")
    if chance(draw, 4):
        offer["when"] = one_of(draw, "orders > 2", "first_name IS NOT NULL", "true")
    return offers


def _experiment(draw: Draw, number: int, offers: bool) -> dict[str, Any]:
    arms: list[dict[str, Any]] = [{"key": "a", "template": "plain"}, {"key": "b"}, {"key": "c"}][
        : draw(st.integers(1, 3))
    ]
    if chance(draw) and len(arms) > 1:
        for arm, weight in zip(arms, {2: (0.7, 0.3), 3: (0.2, 0.3, 0.5)}[len(arms)], strict=True):
            arm["weight"] = weight
    if offers:
        arms[-1]["offers"] = ["five"]
    experiment: dict[str, Any] = {"key": f"split-{number}", "hash": one_of(draw, *SCHEMES), "variants": arms}
    for name, value in (
        ("holdout", 0.1), ("coverage", 0.5), ("sticky", True), ("unit", "household"), ("outside", "exclude"),
        ("seed", "other"), ("force", {"c-1": "a"}), ("namespace", {"key": f"space-{number}", "range": [0.0, 0.5]}),
    ):  # fmt: skip
        if chance(draw, 4):
            experiment[name] = value
    return experiment


def _campaign(
    draw: Draw, number: int, audiences: dict[str, Any], table: Table, facts: Facts, lists: dict[str, bytes]
) -> dict[str, Any]:
    name = f"welcome-{number}"
    campaign: dict[str, Any] = {
        "id": name,
        "surface": one_of(draw, "storefront", "storefront", "marketplace"),
        "channel": one_of(draw, "email", "sms"),
    }
    campaign["audience"] = _node(draw, 0, audiences, table, lists, None)
    if chance(draw, 3):
        lists[f"lists/not-{number}.csv"], ids = id_list(draw, table)
        campaign["audience"] = {"all": [campaign["audience"], {"not": {"list": f"lists/not-{number}.csv"}}]}
        facts.never_of[name] = ids
    offers = chance(draw)
    if offers:
        campaign["offers"] = _offers(draw, name, facts, lists)
    if chance(draw):
        campaign["experiment"] = _experiment(draw, number, offers)
        for offer in campaign.get("offers", ()):
            if offer.get("on_exhausted") == "suppress":
                offer["on_exhausted"] = "suppress_all_variants"
    campaign["content"] = {"template": "plain", "properties": {}}
    for place, text in enumerate(draw(st.lists(st.sampled_from(PROPERTIES), max_size=3))):
        text = text.replace("signed_up", "CAST(signed_up AS TIMESTAMP)") if "json" in table.format else text
        campaign["content"]["properties"][f"p{place}"] = text
    if offers and "experiment" not in campaign:
        campaign["content"]["offers"] = ["five"]
    if chance(draw):
        campaign["schedule"] = one_of(
            draw, {"start": "2030-04-01T09:00", "local_time": True, "expires": "P3D", "quiet_hours": ["21:00", "08:00"]},
            {"start": "2030-06-01T09:00Z", "expires": "2030-07-01T00:00Z"}, {"expires": "P30D"}, {"quiet_hours": ["22:00", "06:30"]},
        )  # fmt: skip
    for field, value in (
        ("priority", number),
        ("description", "Grüße: 50% off # now"),
        ("vendor", {"campaign": "v-1"}),
    ):
        if chance(draw, 3):
            campaign[field] = value
    return campaign


def history_table(table: Table) -> pa.Table:
    """Earlier sends of the customers, as a file of history holds them."""
    ids = [str(value) for value in table.columns["customer_id"]]
    stores = [str(value) for value in table.columns["retailer_id"]]
    times = pa.array([datetime(2026, 1, 1 + n % 28, tzinfo=UTC) for n in range(len(ids))], pa.timestamp("ms", "UTC"))
    return pa.table({"customer_id": ids, "retailer_id": stores, "channel": ["email"] * len(ids), "sent_at": times})


def sticky_table() -> pa.Table:
    """Assignments of an earlier launch."""
    rows = {
        "experiment": ["split-0"] * 3,
        "unit": ["c-1", "c-2", "3"],
        "variant": ["a", "b", "gone"],
        "bucket_version": [0, 0, 0],
    }
    return pa.table(rows)


def parquet(table: pa.Table) -> bytes:
    """A Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _more_options(draw: Draw, inputs: Inputs) -> None:
    more: tuple[tuple[str, list[str]], ...] = (
        ("--launch_id", ["launch-1"]), ("--batch_rows", [str(one_of(draw, 1, 5, 100_000))]), ("--broker_wait", ["5.5"]),
    )  # fmt: skip
    for name, values in more:
        if chance(draw, 3):
            inputs.options[name] = values
    if chance(draw, 4):
        inputs.options["--history"] = ["history.parquet"]
        inputs.other["history.parquet"] = parquet(history_table(inputs.table))
    if chance(draw, 5):
        inputs.options["--sticky"] = ["sticky.parquet"]
        inputs.other["sticky.parquet"] = parquet(sticky_table())
