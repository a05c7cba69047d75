"""A summary that closes, with every kind of content; and one as large as launches get."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def node(kind: str, label: str, entered: int, passed: int, *children: Json, failed: int = 0) -> Json:
    counts = {"entered": entered, "passed": passed, "failed": failed}
    return {"kind": kind, "label": label, **counts, "children": list(children)}


def any_experiment(**changes: Any) -> Json:
    variants = [
        {"key": "control", "weight": 0.5, "assigned": 562, "emitted": 451, "share": 0.502, "low": 0.473, "high": 0.531},
        {"key": "code", "weight": 0.5, "assigned": 558, "emitted": 447, "share": 0.498, "low": 0.469, "high": 0.527},
    ]
    tests = {"assigned": {"p_value": 0.905, "mismatch": False}, "emitted": {"p_value": 0.894, "mismatch": False}}
    experiment = {
        "key": "spring-subject",
        "scheme": "growthbook/2",
        "forced": 2,
        "sticky": 31,
        "without_variant": 40,
        "variants": variants,
        "sample_ratio": tests,
    }
    return experiment | changes


def any_offer(**changes: Any) -> Json:
    offer = {"id": "five-off", "kind": "unique_code", "value": "5.00", "currency": "USD", "budget": 400}
    counts = {"granted": 393, "condition_not_met": 41, "exhausted": 13, "fallback_granted": 0,
              "others_suppressed": 0, "held_out_exhausted": 0}  # fmt: skip
    return offer | counts | changes


def any_campaign(**changes: Any) -> Json:
    """A campaign that closes: 2,460 evaluated, 1,240 matched, 916 emitted."""
    audience = node(
        "all",
        "all",
        2460,
        1240,
        node("retailers", "customers of every retailer", 2460, 2031),
        node("sql", "orders_90d >= 2 AND home_state IN ('CA', 'NY')", 2031, 1402, failed=3),
        node(
            "any",
            "any",
            1402,
            1330,
            node("sql", "spend_90d >= 100", 1402, 1120),
            node("sql", "last_order_at > launched_at - INTERVAL 30 DAY", 282, 210),
        ),
        node("not", "not", 1330, 1251, node("audience", "churned", 1330, 79, node("sql", "visits_180d = 0", 1330, 79))),
        node("not", "not", 1251, 1240, node("list", "customer_id in suppressed_by_legal.csv", 1251, 11)),
    )
    campaign = {
        "id": "spring-produce",
        "description": "Produce for customers who cook",
        "version": "ab12cd34ef56",
        "surface": "storefront",
        "channel": "email",
        "priority": 100,
        "evaluated": 2460,
        "not_matched": 1220,
        "matched": 1240,
        "audience": audience,
        "held_out": {"global": 25, "retailer": 13, "campaign": 62},
        "outside": {"namespace": 18},
        "suppressed": {"no_consent": 121, "suppression_list": 6, "no_address": 17, "frequency_cap": 60},
        "dead_lettered": {"over_size": 2},
        "emitted": 916,
        "experiment": any_experiment(),
        "offers": [any_offer(), any_offer(id="thanks", kind="fixed", budget=None, granted=447, exhausted=0)],
    }
    return campaign | changes


ENDS = ("held_out", "outside", "suppressed", "dead_lettered", "emitted")


def totals(campaign: Json) -> Json:
    """The counts of a campaign by outcome."""
    return {end: campaign[end] if end == "emitted" else sum(campaign[end].values()) for end in ENDS}


def any_summary(**changes: Any) -> Json:
    """A finished launch whose every equation closes, of one retailer unless `retailers` says otherwise."""
    campaigns = changes.get("campaigns", [any_campaign()])
    ends = [totals(campaign) for campaign in campaigns]
    over_all = {end: sum(counts[end] for counts in ends) for end in ENDS}
    retailer = {"id": "store-292", "evaluated": 2460, "matched": sum(over_all.values()), **over_all}
    ledger = [
        [c["id"], "store-292", None, None, end, None, n[end]]
        for c, n in zip(campaigns, ends, strict=True)
        for end in ENDS
    ]
    summary = {
        "launch_id": "spring-1",
        "state": "finished",
        "test": False,
        "started_at": "2026-04-01T13:00:00Z",
        "finished_at": "2026-04-01T13:00:12Z",
        "customers": {
            "source": "out/demo/customers.parquet",
            "rows": 2469,
            "evaluated": 2460,
            "dead_lettered": {"duplicate_customer": 5, "missing_id": 4},
        },
        "events_to": "file:out/demo/events",
        "campaigns": campaigns,
        "retailers": [retailer],
        "ledger": ledger,
        "timing": {
            "seconds": 12.3,
            "phases": {"read and check": 0.5, "survey": 3.1, "launch": 8.7},
            "customers_per_s": 1893.4,
            "events_per_s": 704.2,
            "stages_us_per_event": {"audience": 0.82, "assignment": 0.31, "offers": 1.1, "encode": 1.9, "publish": 0.4},
        },
        "dead_letter_examples": [
            {
                "step": "CheckCustomers",
                "reason": "missing_id",
                "detail": "the customer's or the retailer's id is empty; correct the source and launch again",
                "source": "customers.csv row 17",
            }
        ],
        "lists": [{"file": "lists/legal.csv", "column": "customer_id", "ids": 31, "known": 30, "customers": 33}],
        "warnings": [],
    }
    return summary | changes


def any_warning(text: str = "Nobody is given this offer.", **changes: Any) -> dict[str, Any]:
    """A warning of summary.json."""
    place = {"campaign": "welcome", "file": "welcome.yaml", "field": "offers.0", "value": "five-off"}
    return {"kind": "offer_reaches_nobody", **place, "count": 0, "example": "", "text": text, **changes}


def spread(total: int, places: int) -> list[int]:
    """A count in `places` whole parts, the first ones larger by one."""
    return [total // places + (place < total % places) for place in range(places)]


def large_summary(campaigns: int = 50, retailers: int = 350) -> Json:
    """A launch of many campaigns over many retailers, which closes; store-1 has emitted the most."""
    every = [any_campaign(id=f"campaign-{number}") for number in range(1, campaigns + 1)]
    ends = {end: spread(sum(totals(campaign)[end] for campaign in every), retailers) for end in ENDS}
    evaluated = spread(2460, retailers)
    rows = []
    for place in range(retailers):
        counts = {end: ends[end][place] for end in ENDS}
        own = {"id": f"store-{place + 1}", "evaluated": evaluated[place], "matched": sum(counts.values())}
        rows.append(own | counts)
    return any_summary(campaigns=every, retailers=rows)


def ends(**changes: int) -> Json:
    """Events by outcome: 916 that keep the target, unless changed."""
    return {"accepted": 916, "rejected": 0, "expired": 0, "unknown": 0, "pending": 0} | changes


def any_delivery(**changes: Any) -> Json:
    """The delivery of `any_summary`: 916 events of one retailer and two variants, 12 of them lost, 20 pending."""
    whole = ends(accepted=884, rejected=7, expired=2, unknown=3, pending=20)
    half = ends(accepted=442, rejected=3, expired=1, unknown=1, pending=10)
    other = {end: whole[end] - half[end] for end in whole}
    delivery = {
        "folders": ["out/demo/delivery/receipts"],
        "receipts": 901,
        "others": {"spring-0": 40, "winter-9": 2},
        "strays": 0,
        "twice": 0,
        "resent": 1,
        "open": [],
        "ends": whole,
        "campaigns": {"spring-produce": whole},
        "retailers": [{"id": "store-292", **whole}],
        "variants": [
            {"campaign": "spring-produce", "variant": "control", **half},
            {"campaign": "spring-produce", "variant": None, **other},
        ],
        "reasons": {
            "rejected": {"invalid_address": 5, "http_401": 2},
            "expired": {"expired": 2},
            "unknown": {"timeout": 3},
        },
        "waits": [
            {"outcome": "accepted", "events": 884, "since_arrival": [2.1, 95.0], "since_due": [0.4, 3.25]},
            {"outcome": "expired", "events": 2, "since_arrival": [259200.0, 259201.0], "since_due": [0.0, 0.5]},
        ],
    }
    return delivery | changes


def delivered_summary(**changes: Any) -> Json:
    """`any_summary` with its delivery, the accepted as a stage of the experiment; changes are of the delivery."""
    experiment = any_experiment()
    variants = [one | {"accepted": 440} for one in experiment["variants"]]
    tests = experiment["sample_ratio"] | {"accepted": {"p_value": 0.5, "mismatch": False}}
    campaign = any_campaign(experiment=experiment | {"variants": variants, "sample_ratio": tests})
    return any_summary(campaigns=[campaign], delivery=any_delivery(**changes))
