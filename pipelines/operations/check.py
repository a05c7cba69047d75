"""Check a launch: the counts, the exposures and events against them, the splits, the delivery."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from connectors.event_sinks import event_path
from connectors.files.avro_blocks import read_columns
from pipelines.launch.finalize import add_up, contradictions, sum_up
from pipelines.launch.inputs import LaunchJob, open_launch
from pipelines.operations.deliveries import Deliveries, join_receipts, receipt_folders
from stores.launches.launch_folder import LaunchFolder
from stores.launches.snapshot import rejected_by_reason
from transforms.reconciliation.deliveries import (
    TARGET,
    Group,
    count_outcomes,
    on_target,
    open_groups,
    reasons,
    success,
)
from transforms.reconciliation.sample_ratio import ratio_summary
from transforms.reconciliation.totals import Totals, check_ledger

_WRONG_EVENTS = """
SELECT count(*) FROM (SELECT event_id FROM exposures WHERE outcome = 'emitted') AS emitted
FULL JOIN (SELECT DISTINCT event_id FROM ids) AS written USING (event_id)
WHERE emitted.event_id IS NULL OR written.event_id IS NULL
"""


class Finding(msgspec.Struct):
    """One check: its name, whether it holds (None: a note), a sentence, and what is wrong where it does not hold."""

    check: str
    holds: bool | None
    text: str
    detail: str = ""


class Findings(msgspec.Struct):
    """The findings about a launch, in the order of the checks."""

    launch_id: str
    batches_done: int
    batches: int
    findings: list[Finding]

    @property
    def all_hold(self) -> bool:
        """Whether no check failed."""
        return all(finding.holds is not False for finding in self.findings)

    def add(self, check: str, text: str, holds: bool, detail: str = "") -> None:
        """Add the result of a check; `detail` counts where it does not hold."""
        self.findings.append(Finding(check, holds, text, "" if holds else detail))

    def note(self, check: str, text: str) -> None:
        """Add what is neither right nor wrong."""
        self.findings.append(Finding(check, None, text))


def check(launch: str, receipts: Sequence[str] = ()) -> Findings:
    """The findings about the launch in a folder, running, stopped or finished, and about its delivery.

    `receipts` are folders; the default is the launch's own delivery/receipts, if it exists.
    """
    job = open_launch(LaunchFolder(launch))
    folders = receipt_folders(job, receipts)
    with ThreadPoolExecutor(1) as pool:  # receipts are read and joined while the launch is checked
        joined = pool.submit(join_receipts, job, folders, waits=False) if folders else None
        findings, finished = _check_launch(job)
        if joined is not None:
            _check_deliveries(findings, job, joined.result(), finished)
    return findings


def _check_launch(job: LaunchJob) -> tuple[Findings, bool]:
    """The findings about the launch alone, and whether it is finished."""
    rejected = rejected_by_reason(job.snapshot)
    summary = sum_up(job, rejected)
    findings = Findings(summary["launch_id"], len(job.folder.done()), job.batches, [])
    gaps = check_ledger(summary)
    findings.add("places", "every customer is in exactly one counted place", not gaps, "; ".join(gaps))
    if summary["state"] == "finished":
        rows = summary["customers"]["rows"]
        total = job.snapshot.rows + sum(rejected.values())
        findings.add("rows", f"all {total:,} rows of the source were read", rows == total, f"{rows:,} were")
    _check_summary_file(findings, job, summary)
    if job.folder.done():
        _check_exposures(findings, job, add_up(job))
    if (folder := job.config.events.folder) is not None:
        _check_events(findings, job, summary, folder)
    for campaign in summary["campaigns"]:
        for stage, test in (campaign["experiment"] or {}).get("sample_ratio", {}).items():
            _check_split(findings, campaign["id"], stage, test)
    return findings, summary["state"] == "finished"


def _check_summary_file(findings: Findings, job: LaunchJob, summary: dict[str, Any]) -> None:
    written = job.folder.read_summary()
    if written is None and summary["state"] == "running":
        return
    wrong = ["there is none"] if written is None else contradictions(written, summary)
    detail = f"{', '.join(wrong)}; delete the file and run the launch command again, which writes it again"
    findings.add("summary_file", "summary.json says the same as the batches", not wrong, detail)


def _check_exposures(findings: Findings, job: LaunchJob, totals: Totals) -> None:
    """Compare the rows of the exposures with the counts that each batch wrote."""
    counted: Counter[tuple[Any, ...]] = Counter()
    for (campaign, _, _, _, outcome, reason), number in totals.ledger.items():
        counted[campaign, outcome, reason] += number
    text = f"{sum(counted.values()):,} exposures agree with the counts"
    findings.add("exposures", text, counted == totals.outcomes)
    con = job.folder.open_exposures(job.folder.done())
    pairs = "SELECT 1 FROM exposures GROUP BY campaign_id, retailer_id, customer_id HAVING count(*) > 1"
    twice = con.execute(f"SELECT count(*) FROM ({pairs})").fetchall()[0][0]  # noqa: S608
    findings.add("exposed_once", "no customer is exposed twice to a campaign", twice == 0, f"{twice:,} are")


def _check_events(findings: Findings, job: LaunchJob, summary: dict[str, Any], folder: str) -> None:
    """Compare the event files with the exposures, event by event."""
    emitted = sum(campaign["emitted"] for campaign in summary["campaigns"])
    unusable: dict[str, str] = {}
    paths = [event_path(folder, job.plan.launch_id, name) for name in sorted(job.folder.done())]

    def refuse(path: str, error: Exception) -> None:
        unusable[path] = str(error) or type(error).__name__

    tables = list(read_columns(paths, "campaign_event", {"event_id": pa.string()}, refuse))
    for path, error in unusable.items():
        todo = "delete the exposures of its batch and run the launch command again: the same events are written again"
        findings.add("event_file", f"{path} can be read", False, f"{error}; {todo}")
    con = job.folder.open_exposures(job.folder.done()) if job.folder.done() else duckdb.connect(":memory:")
    chunks = [chunk for table in tables for chunk in table["event_id"].chunks]
    con.register("ids", pa.table({"event_id": pa.chunked_array(chunks, pa.string())}))
    number, distinct = con.execute("SELECT count(*), count(DISTINCT event_id) FROM ids").fetchall()[0]
    text = f"{emitted:,} events are in the files, each once"
    findings.add("events", text, number == emitted == distinct, f"{number:,} are")
    wrong = con.execute(_WRONG_EVENTS).fetchall()[0][0] if job.folder.done() else 0
    findings.add("events_of_exposures", "they are the events of the exposures", not wrong)


def _check_split(findings: Findings, campaign: str, stage: str, test: dict[str, Any]) -> None:
    findings.add(
        f"split_{stage}",
        f"{campaign}: the split of the {stage} is as weighted (p = {test['p_value']:.3g})",
        not test["mismatch"],
        "sample-ratio mismatch: do not trust the result before the cause is known",
    )


def _check_deliveries(findings: Findings, job: LaunchJob, deliveries: Deliveries, finished: bool) -> None:
    """Compare the receipts with the exposures."""
    if others := deliveries.others:
        named = ", ".join(f"{launch} {number:,}" for launch, number in sorted(others.items())[:3])
        more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
        text = f"receipts of other launches are left out: {sum(others.values()):,} ({named}{more})"
        findings.note("other_launches", text)
    if finished or not deliveries.strays:
        detail = f"of {deliveries.strays:,} they are not, such as {deliveries.an_example['stray']}"
        text = f"all {deliveries.receipts:,} receipts are of events of this launch"
        findings.add("receipts", text, not deliveries.strays, detail)
    else:
        text = f"events with a receipt and no exposure yet, as their batch is not done: {deliveries.strays:,}"
        findings.note("receipts", text)
    gaps = open_groups(deliveries.rows, deliveries.emitted)
    for campaign in sorted({group[0] for group in deliveries.emitted}):
        _check_equation(findings, campaign, deliveries, gaps)
    example = deliveries.an_example["twice"]
    detail = f"{deliveries.twice:,} by their receipts, such as {example}; ask the vendor what it sent"
    findings.add("accepted_once", "no event was accepted in two calls", not deliveries.twice, detail)
    if number := deliveries.resent:
        text = f"events accepted in two calls, one sent again because no answer had come: {number:,}"
        findings.note("resent", text)
    _check_success(findings, deliveries)
    for entry in job.plan.campaigns:
        if experiment := entry.campaign.experiment:
            pairs = [deliveries.accepted.get((entry.campaign.id, arm.key), (0, 0)) for arm in experiment.variants]
            test = ratio_summary([units for _, units in pairs], experiment.weights)
            _check_split(findings, entry.campaign.id, "accepted", test)


def _check_equation(findings: Findings, campaign: str, deliveries: Deliveries, open_gaps: Mapping[Group, str]) -> None:
    """emitted = accepted + rejected + expired + unknown + pending, for the campaign and each of its groups."""
    groups = [group for group in deliveries.emitted if group[0] == campaign]
    emitted = sum(deliveries.emitted[group] for group in groups)
    counts = count_outcomes(row for row in deliveries.rows if row.campaign == campaign)
    gaps = [
        f"{retailer}, {variant or 'no variant'}: {gap}"
        for (group_campaign, retailer, variant), gap in open_gaps.items()
        if group_campaign == campaign
    ]
    more = f"; and {len(gaps) - 3:,} more" if len(gaps) > 3 else ""
    terms = " + ".join(f"{number:,} {outcome}" for outcome, number in counts.items())
    text = f"{campaign}: {emitted:,} emitted = {terms}, and so in each of {len(groups):,} retailers and variants"
    findings.add("delivery_equation", text, not gaps, "; ".join(gaps[:3]) + more)


def _check_success(findings: Findings, deliveries: Deliveries) -> None:
    """Note the outcomes of all events, and compare the success with the target once nothing is pending."""
    counts = count_outcomes(deliveries.rows)
    parts = []
    for outcome, number in counts.items():
        by_reason = reasons(deliveries.rows, outcome) if outcome in ("rejected", "expired") else {}
        why = ", ".join(f"{reason} {events:,}" for reason, events in by_reason.items() if reason != outcome)
        parts.append(f"{number:,} {outcome}" + (f" ({why})" if why else ""))
    findings.note("outcomes", f"deliveries: {', '.join(parts)}")
    share = success(counts)
    if share is None:
        findings.note("success", "delivery success: nothing was tried yet")
        return
    percent = math.floor(share * 1e5 + 1e-9) / 1e3
    text = f"{percent:.3f}% of what was tried is accepted, the target is {TARGET:.1%}"
    if counts["pending"] and not on_target(counts):
        findings.note("success", f"{text}: below it so far, {counts['pending']:,} are pending")
    else:
        findings.add("success", text, on_target(counts), "see the reasons in the report")
