"""Check a launch: the ledger equation, the exposures against the counts, the events, the split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import fastavro

from pipelines.closing import add_up, sum_up
from pipelines.launch_inputs import Prepared
from stores.customers.snapshot import rejected_by_reason
from stores.transports.uri import FileUri
from transforms.ledger.totals import Totals, check_ledger


@dataclass
class Findings:
    """What was checked, one line each; `wrong` are the lines that do not hold."""

    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def hold(self, what: str, holds: bool, otherwise: str = "") -> None:
        """Note a check."""
        self.lines.append(
            f"{'ok   ' if holds else 'WRONG'}  {what}" + ("" if holds or not otherwise else f": {otherwise}")
        )
        if not holds:
            self.wrong.append(what)


def check(job: Prepared) -> Findings:
    """The findings about a launch that is running, broken off or finished."""
    found = Findings()
    rejected = rejected_by_reason(job.snapshot)
    summary = sum_up(job, rejected)
    found.lines.append(f"launch {summary['launch_id']}: {len(job.folder.done())} of {job.batches} batches done")
    gaps = check_ledger(summary)
    found.hold("every customer is in exactly one counted place", not gaps, "; ".join(gaps))
    if summary["state"] == "finished":
        rows = summary["customers"]["rows"]
        total = job.snapshot.rows + sum(rejected.values())
        found.hold(f"all {total:,} rows of the source were read", rows == total, f"{rows:,} were")
        _summary_file(found, job, summary)
    if job.folder.done():
        _exposures(found, job, add_up(job))
    if isinstance(job.config.events, FileUri):
        _events(found, job, summary)
    _splits(found, summary)
    return found


def _summary_file(found: Findings, job: Prepared, summary: dict[str, Any]) -> None:
    written = job.folder.read_summary() or {}
    same = all(written.get(key) == summary[key] for key in ("campaigns", "retailers", "ledger"))
    found.hold("summary.json says the same as the batches", same, "launch again to write it anew")


def _exposures(found: Findings, job: Prepared, totals: Totals) -> None:
    """The rows of the exposures against the counts that the batches kept beside them."""
    counted: Counter[tuple[Any, ...]] = Counter()
    for (campaign, _, _, _, outcome, reason), number in totals.ledger.items():
        counted[campaign, outcome, reason] += number
    found.hold(f"{sum(counted.values()):,} exposures agree with the counts", counted == totals.outcomes)
    con = job.folder.open_exposures(job.folder.done())
    pairs = "SELECT 1 FROM exposures GROUP BY campaign_id, retailer_id, customer_id HAVING count(*) > 1"
    twice = con.execute(f"SELECT count(*) FROM ({pairs})").fetchall()[0][0]  # noqa: S608
    found.hold("no customer is exposed twice to a campaign", twice == 0, f"{twice:,} are")


def _events(found: Findings, job: Prepared, summary: dict[str, Any]) -> None:
    """The event files against the exposures, event by event."""
    assert isinstance(job.config.events, FileUri)
    emitted = sum(one["emitted"] for one in summary["campaigns"])
    con = job.folder.open_exposures(job.folder.done()) if job.folder.done() else None
    wanted = set() if con is None else {
        row[0] for row in con.execute("SELECT event_id FROM exposures WHERE outcome = 'emitted'").fetchall()
    }  # fmt: skip
    ids: list[str] = []
    for name in job.folder.done():
        path = f"{job.config.events.directory}/{job.plan.launch_id}-{name}.avro"
        with open(path, "rb") as file:
            ids += [record["event_id"] for record in fastavro.reader(file)]
    found.hold(
        f"{emitted:,} events are in the files, each once", len(ids) == emitted == len(set(ids)), f"{len(ids):,} are"
    )
    found.hold("they are the events of the exposures", set(ids) == wanted)


def _splits(found: Findings, summary: dict[str, Any]) -> None:
    for one in summary["campaigns"]:
        for stage, test in (one["experiment"] or {}).get("sample_ratio", {}).items():
            found.hold(
                f"{one['id']}: the split of the {stage} is as weighted (p = {test['p_value']:.3g})",
                not test["mismatch"],
                "sample-ratio mismatch: do not trust the result before the cause is known",
            )
