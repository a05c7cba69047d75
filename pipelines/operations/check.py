"""Check a launch: the ledger equation, the exposures against the counts, the events, the split, the delivery."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from connectors.event_sinks import event_path
from connectors.files.avro_blocks import read_columns
from connectors.uri import FileUri
from pipelines.launch.finalize import add_up, contradictions, sum_up
from pipelines.launch.inputs import LaunchJob
from pipelines.operations.deliveries import Deliveries, join_receipts, receipt_folders
from stores.launches.snapshot import rejected_by_reason
from transforms.reconciliation.deliveries import (
    TARGET,
    Group,
    accepted_ratio,
    ends,
    on_target,
    open_groups,
    reasons,
    success,
)
from transforms.reconciliation.totals import Totals, check_ledger

_WRONG_EVENTS = """
SELECT count(*) FROM (SELECT event_id FROM exposures WHERE outcome = 'emitted') AS wanted
FULL JOIN (SELECT DISTINCT event_id FROM ids) AS found USING (event_id)
WHERE wanted.event_id IS NULL OR found.event_id IS NULL
"""


@dataclass
class Findings:
    """What was checked, one line each; `wrong` are the lines that do not hold."""

    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Say something that is neither right nor wrong."""
        self.lines.append(f"note   {what}")

    def hold(self, what: str, holds: bool, otherwise: str = "") -> None:
        """Note a check."""
        self.lines.append(
            f"{'ok   ' if holds else 'WRONG'}  {what}" + ("" if holds or not otherwise else f": {otherwise}")
        )
        if not holds:
            self.wrong.append(what)


def check(job: LaunchJob, receipts: Sequence[str] = ()) -> Findings:
    """The findings about a launch that is running, broken off or finished, and about its delivery.

    `receipts` are folders; the launch's own delivery/receipts is looked at when none is given and it is there.
    """
    folders = receipt_folders(job, receipts)
    with ThreadPoolExecutor(1) as beside:  # the receipts are read and joined while the events are
        joined = beside.submit(join_receipts, job, folders, waits=False) if folders else None
        found, finished = _launch(job)
        if joined is not None:
            _deliveries(found, job, joined.result(), finished)
    return found


def _launch(job: LaunchJob) -> tuple[Findings, bool]:
    """The findings about the launch alone, and whether it is finished."""
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
    return found, summary["state"] == "finished"


def _summary_file(found: Findings, job: LaunchJob, summary: dict[str, Any]) -> None:
    written = job.folder.read_summary()
    if written is None and summary["state"] == "running":
        return
    wrong = ["there is none"] if written is None else contradictions(written, summary)
    told = f"{', '.join(wrong)}; delete the file and run the launch command again, which writes it again"
    found.hold("summary.json says the same as the batches", not wrong, told)


def _exposures(found: Findings, job: LaunchJob, totals: Totals) -> None:
    """The rows of the exposures against the counts that the batches kept beside them."""
    counted: Counter[tuple[Any, ...]] = Counter()
    for (campaign, _, _, _, outcome, reason), number in totals.ledger.items():
        counted[campaign, outcome, reason] += number
    found.hold(f"{sum(counted.values()):,} exposures agree with the counts", counted == totals.outcomes)
    con = job.folder.open_exposures(job.folder.done())
    pairs = "SELECT 1 FROM exposures GROUP BY campaign_id, retailer_id, customer_id HAVING count(*) > 1"
    twice = con.execute(f"SELECT count(*) FROM ({pairs})").fetchall()[0][0]  # noqa: S608
    found.hold("no customer is exposed twice to a campaign", twice == 0, f"{twice:,} are")


def _events(found: Findings, job: LaunchJob, summary: dict[str, Any]) -> None:
    """The event files against the exposures, event by event."""
    assert isinstance(job.config.events, FileUri)
    emitted = sum(one["emitted"] for one in summary["campaigns"])
    unusable: dict[str, str] = {}
    folder, launch_id = job.config.events.directory, job.plan.launch_id
    paths = [event_path(folder, launch_id, name) for name in sorted(job.folder.done())]

    def refuse(path: str, error: Exception) -> None:
        unusable[path] = str(error) or type(error).__name__

    ids = [table["event_id"] for table in read_columns(paths, "campaign_event", {"event_id": pa.string()}, refuse)]
    for path, error in unusable.items():
        todo = "delete the exposures of its batch and run the launch command again: the same events are written again"
        found.hold(f"{path} can be read", False, f"{error}; {todo}")
    con = job.folder.open_exposures(job.folder.done()) if job.folder.done() else duckdb.connect(":memory:")
    con.register(
        "ids", pa.table({"event_id": pa.chunked_array([chunk for one in ids for chunk in one.chunks], pa.string())})
    )
    number, distinct = con.execute("SELECT count(*), count(DISTINCT event_id) FROM ids").fetchall()[0]
    found.hold(f"{emitted:,} events are in the files, each once", number == emitted == distinct, f"{number:,} are")
    wrong = con.execute(_WRONG_EVENTS).fetchall()[0][0] if job.folder.done() else 0
    found.hold("they are the events of the exposures", not wrong)


def _splits(found: Findings, summary: dict[str, Any]) -> None:
    for one in summary["campaigns"]:
        for stage, test in (one["experiment"] or {}).get("sample_ratio", {}).items():
            _split(found, one["id"], stage, test)


def _split(found: Findings, campaign: str, stage: str, test: dict[str, Any]) -> None:
    found.hold(
        f"{campaign}: the split of the {stage} is as weighted (p = {test['p_value']:.3g})",
        not test["mismatch"],
        "sample-ratio mismatch: do not trust the result before the cause is known",
    )


def _deliveries(found: Findings, job: LaunchJob, given: Deliveries, finished: bool) -> None:
    """The receipts against the exposures."""
    if given.others:
        named = ", ".join(f"{launch} {number:,}" for launch, number in sorted(given.others.items())[:3])
        more = f" and {len(given.others) - 3:,} more" if len(given.others) > 3 else ""
        found.note(f"receipts of other launches are left out: {sum(given.others.values()):,} ({named}{more})")
    stray = f"of {given.strays:,} they are not, such as {given.an_example['stray']}"
    if finished or not given.strays:
        found.hold(f"all {given.receipts:,} receipts are of events of this launch", not given.strays, stray)
    else:
        found.note(f"events with a receipt and no exposure yet, as their batch is not done: {given.strays:,}")
    gaps = open_groups(given.rows, given.emitted)
    for campaign in sorted({group[0] for group in given.emitted}):
        _equation(found, campaign, given, gaps)
    twice = f"{given.twice:,} by their receipts, such as {given.an_example['twice']}; ask the vendor what it sent"
    found.hold("no event was accepted in two calls", not given.twice, twice)
    if given.resent:
        found.note(f"events accepted in two calls, one sent again because no answer had come: {given.resent:,}")
    _totals(found, given)
    for entry in job.plan.campaigns:
        if experiment := entry.campaign.experiment:
            accepted = [given.accepted.get((entry.campaign.id, one.key), (0, 0))[1] for one in experiment.variants]
            _split(found, entry.campaign.id, "accepted", accepted_ratio(accepted, experiment.weights))


def _equation(found: Findings, campaign: str, given: Deliveries, open_: Mapping[Group, str]) -> None:
    """emitted = accepted + rejected + expired + unknown + pending, for the campaign and each of its groups."""
    groups = [group for group in given.emitted if group[0] == campaign]
    emitted = sum(given.emitted[group] for group in groups)
    counts = ends(row for row in given.rows if row.campaign == campaign)
    gaps = [
        f"{retailer}, {variant or 'no variant'}: {gap}"
        for (of, retailer, variant), gap in open_.items()
        if of == campaign
    ]
    more = f"; and {len(gaps) - 3:,} more" if len(gaps) > 3 else ""
    terms = " + ".join(f"{number:,} {end}" for end, number in counts.items())
    told = f"{campaign}: {emitted:,} emitted = {terms}, and so in each of {len(groups):,} retailers and variants"
    found.hold(told, not gaps, "; ".join(gaps[:3]) + more)


def _totals(found: Findings, given: Deliveries) -> None:
    """What became of all events, and how good that is once nothing is pending."""
    counts = ends(given.rows)
    parts = []
    for end, number in counts.items():
        named = reasons(given.rows, end) if end in ("rejected", "expired") else {}
        why = ", ".join(f"{reason} {events:,}" for reason, events in named.items() if reason != end)
        parts.append(f"{number:,} {end}" + (f" ({why})" if why else ""))
    found.note(f"deliveries: {', '.join(parts)}")
    share = success(counts)
    if share is None:
        found.note("delivery success: nothing was tried yet")
        return
    told = f"{math.floor(share * 1e5 + 1e-9) / 1e3:.3f}% of what was tried is accepted, the target is {TARGET:.1%}"
    if counts["pending"] and not on_target(counts):
        found.note(f"{told}: below it so far, {counts['pending']:,} are pending")
    else:
        found.hold(told, on_target(counts), "see the reasons in the report")
