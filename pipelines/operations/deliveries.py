"""Join a launch's exposures with the receipts of its events, for check and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from pipelines.launch.inputs import LaunchJob
from stores.deliveries.receipts import open_receipts
from transforms.reconciliation.deliveries import (
    EVENT_OUTCOMES,
    EventCount,
    Group,
    count_outcomes,
    count_outcomes_by,
    open_groups,
    reasons,
)
from transforms.reconciliation.record_exposures import SCHEMA
from transforms.reconciliation.sample_ratio import ratio_summary

_COLUMNS = ("campaign_id", "retailer_id", "variant", "resent", "arrived_at")
_EXPOSED = """
CREATE TABLE emitted AS
SELECT event_id, campaign_id, retailer_id, variant, assigned_by, unit, deliver_after FROM exposures
WHERE outcome = 'emitted';
"""
_ROWS = """
SELECT campaign_id, retailer_id, variant, outcome, reason, count(*) FROM outcomes SEMI JOIN emitted USING (event_id)
GROUP BY ALL
UNION ALL
SELECT campaign_id, retailer_id, variant, 'pending', NULL, count(*) FROM emitted ANTI JOIN receipts USING (event_id)
GROUP BY ALL
"""
_EMITTED = "SELECT campaign_id, retailer_id, variant, count(*) FROM emitted GROUP BY ALL"
_ACCEPTED = """
SELECT e.campaign_id, e.variant, count(*), count(DISTINCT e.unit) + count(*) FILTER (e.unit IS NULL)
FROM emitted e JOIN outcomes o USING (event_id)
WHERE o.outcome = 'accepted' AND e.variant IS NOT NULL AND e.assigned_by IS DISTINCT FROM 'forced' GROUP BY ALL
"""
_TWICE = """
SELECT count(*) FILTER (plain > 1), count(*) FILTER (plain < 2), min(event_id) FILTER (plain > 1) FROM (
    SELECT event_id, count(DISTINCT call) AS calls, count(DISTINCT call) FILTER (NOT resent) AS plain FROM (
        SELECT event_id, resent, coalesce(batch_id, '') || ' ' || coalesce(vendor_id, '') AS call
        FROM receipts SEMI JOIN repeated USING (event_id) SEMI JOIN emitted USING (event_id) WHERE outcome = 'accepted'
    ) GROUP BY event_id
) WHERE calls > 1
"""
_STRAYS = "SELECT count(DISTINCT event_id), min(event_id) FROM receipts ANTI JOIN emitted USING (event_id)"
_WAITS = """
SELECT outcome, count(*), quantile_cont(since_arrival, [0.5, 0.99]), quantile_cont(since_due, [0.5, 0.99]) FROM (
    SELECT s.outcome, (s.settled_at - s.arrived_at) / 1000 AS since_arrival,
        (s.settled_at - greatest(s.arrived_at, coalesce(epoch_ms(e.deliver_after), 0))) / 1000 AS since_due
    FROM outcomes s JOIN emitted e USING (event_id)
) GROUP BY outcome
"""


@dataclass(frozen=True)
class Deliveries:
    """The events of a launch against the receipts of some folders.

    `rows` count by what the receipts say of themselves, `emitted` by the exposures. `accepted` counts customers and
    their units, without forced assignments, as the sample-ratio test does. `strays` are events with receipts of this
    launch that no exposure emitted. `twice` are events that several calls had accepted, `resent` those of them of which
    the receipts say so; `an_example` names one of each wrong kind. `others` counts the receipts of other launches.
    """

    folders: tuple[str, ...]
    rows: list[EventCount]
    emitted: dict[Group, int]
    accepted: dict[tuple[str, str], tuple[int, int]]
    receipts: int
    others: dict[str, int]
    strays: int
    twice: int
    resent: int
    an_example: dict[str, str]
    waits: list[dict[str, Any]]


def receipt_folders(job: LaunchJob, folders: Sequence[str]) -> tuple[str, ...]:
    """The folders, by default the launch's own delivery/receipts if it exists."""
    own = job.folder.root / "delivery" / "receipts"
    return tuple(folders) or ((str(own),) if own.is_dir() else ())


def join_receipts(job: LaunchJob, folders: Sequence[str], *, waits: bool) -> Deliveries:
    """The launch's events against these receipts, with the `waits` if they are asked for. Raises InputError for folders
    and files that cannot be used."""
    con = open_receipts(folders, job.plan.launch_id, _COLUMNS)
    _open_emitted(con, job)
    strays, stray = _one(con, _STRAYS)
    twice, resent, example = _one(con, _TWICE)
    return Deliveries(
        folders=tuple(folders),
        rows=[EventCount(*row) for row in con.execute(_ROWS).fetchall()],
        emitted={(row[0], row[1], row[2]): row[3] for row in con.execute(_EMITTED).fetchall()},
        accepted={(row[0], row[1]): (row[2], row[3]) for row in con.execute(_ACCEPTED).fetchall()},
        receipts=_one(con, "SELECT count(*) FROM receipts")[0],
        others=dict(con.execute("SELECT launch_id, sum(receipts)::BIGINT FROM others GROUP BY ALL").fetchall()),
        strays=strays,
        twice=twice,
        resent=resent,
        an_example={"stray": stray, "twice": example},
        waits=[_wait(*row) for row in con.execute(_WAITS).fetchall()] if waits else [],
    )


def _open_emitted(con: duckdb.DuckDBPyConnection, job: LaunchJob) -> None:
    """The table `emitted`, the exposures that became events."""
    files = [str(job.folder.exposures / f"{name}.parquet") for name in sorted(job.folder.done())]
    source = con.read_parquet(files) if files else con.from_arrow(SCHEMA.empty_table())
    source.create_view("exposures")
    con.execute(_EXPOSED)


def _one(con: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    return tuple(con.execute(query).fetchall()[0])


def _wait(outcome: str, events: int, arrival: Sequence[float], due: Sequence[float]) -> dict[str, Any]:
    return {"outcome": outcome, "events": events, "since_arrival": list(arrival), "since_due": list(due)}


def with_deliveries(summary: Mapping[str, Any], found: Deliveries) -> dict[str, Any]:
    """A launch's summary with `delivery`, and the accepted as one more stage of every experiment."""
    campaigns = [_campaign(one, found) for one in summary["campaigns"]]
    delivery = {
        "folders": list(found.folders),
        "receipts": found.receipts,
        "others": found.others,
        "strays": found.strays,
        "twice": found.twice,
        "resent": found.resent,
        "open": [[*group, told] for group, told in open_groups(found.rows, found.emitted).items()],
        "ends": count_outcomes(found.rows),
        "campaigns": {key: counts for (key,), counts in count_outcomes_by(found.rows, "campaign").items()},
        "retailers": [{"id": key, **counts} for (key,), counts in count_outcomes_by(found.rows, "retailer").items()],
        "variants": [
            {"campaign": campaign, "variant": variant, **counts}
            for (campaign, variant), counts in sorted(
                count_outcomes_by(found.rows, "campaign", "variant").items(), key=lambda item: _place(summary, *item[0])
            )
        ],
        "reasons": {end: reasons(found.rows, end) for end in EVENT_OUTCOMES if end not in ("accepted", "pending")},
        "waits": sorted(found.waits, key=lambda wait: EVENT_OUTCOMES.index(wait["outcome"])),
    }
    return {**summary, "campaigns": campaigns, "delivery": delivery}


def _place(summary: Mapping[str, Any], campaign: str, variant: str | None) -> tuple[int, str]:
    """The sort key of a variant: campaigns as in the rest of the report, then variants together."""
    names = [one["id"] for one in summary["campaigns"]]
    return (names.index(campaign) if campaign in names else len(names)), variant or ""


def _campaign(campaign: Mapping[str, Any], found: Deliveries) -> dict[str, Any]:
    experiment = campaign["experiment"]
    if experiment is None:
        return dict(campaign)
    pairs = [found.accepted.get((campaign["id"], one["key"]), (0, 0)) for one in experiment["variants"]]
    variants = [{**one, "accepted": pair[0]} for one, pair in zip(experiment["variants"], pairs, strict=True)]
    test = ratio_summary([units for _, units in pairs], [one["weight"] for one in variants])
    tests = {**experiment["sample_ratio"], "accepted": test}
    return {**campaign, "experiment": {**experiment, "variants": variants, "sample_ratio": tests}}
