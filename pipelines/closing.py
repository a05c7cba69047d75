"""The end of a launch: the batches' counts become the summary, the sticky file and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.deliveries import join_receipts, receipt_folders, with_deliveries
from pipelines.launch_inputs import Prepared
from pipelines.report.page import write_report
from pipelines.warnings.counting import list_lines
from schemas.contracts import DeadLetter
from stores.customers.snapshot import read_rejected, rejected_by_reason
from stores.launch_folder import LaunchFolder
from stores.sticky import write_sticky
from stores.transports.dead_letters import read_dead_letters, write_dead_letters
from transforms.ledger.totals import Totals, summarise
from transforms.warnings.warning import warning_text

EXAMPLES = 20


def close(job: Prepared, seconds: dict[str, float]) -> dict[str, Any]:
    """Write summary.json, sticky.parquet, the snapshot's dead letters and report.html; the summary."""
    folder = job.folder
    rejected = _rejected(job)
    summary = sum_up(job, rejected)
    summary["timing"] = _timing(seconds, summary)
    summary["dead_letter_examples"] = _examples(folder)
    folder.write_json(folder.summary, summary)
    if not job.plan.test:
        _keep_sticky(job)
    write_report(summary, folder.report)
    return summary


def report_again(job: Prepared, receipts: Sequence[str] = ()) -> str:
    """Write the report of what is there now, with the delivery when there are receipts; its path.

    `receipts` are folders; the launch's own delivery/receipts is looked at when none is given and it is there.
    """
    summary = job.folder.read_summary() or {}
    now = sum_up(job, rejected_by_reason(job.snapshot))
    if summary.get("state") != "finished":
        summary = {**now, "timing": _timing({}, now), "dead_letter_examples": _examples(job.folder)}
    if folders := receipt_folders(job, receipts):
        summary = with_deliveries(summary, join_receipts(job, folders))
    write_report(summary, job.folder.report)
    if job.folder.remote is not None:
        job.folder.remote.put(job.folder.report)
    return str(job.folder.report)


def add_up(job: Prepared) -> Totals:
    """The sums over the batches that are done."""
    totals = Totals()
    done = job.folder.done()
    for name in sorted(done):
        totals.add(job.folder.read_counts(name))
    totals.ledger = job.folder.count_exposures(done)
    return totals


def sum_up(job: Prepared, rejected: dict[str, int]) -> dict[str, Any]:
    """The summary of the batches that are done, whether or not all are."""
    totals = add_up(job)
    finished = len(job.folder.done()) == job.batches
    head = {
        "launch_id": job.plan.launch_id,
        "state": "finished" if finished else "running",
        "started_at": _time(job.plan.launched),
        "finished_at": _time(datetime.now(UTC)) if finished else None,
        "events_to": str(job.config.events),
        "strict": job.strict,
    }
    summary = {**head, **summarise(job.plan, totals, rejected, finished)}
    summary["customers"]["source"] = job.snapshot.source
    summary["stage_seconds"] = {name: round(value, 3) for name, value in totals.seconds.items()}
    return summary


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _rejected(job: Prepared) -> dict[str, int]:
    """The rows that the snapshot refused, by reason; their bytes go to the dead letters."""
    reasons: Counter[str] = Counter()
    letters = []
    for row in read_rejected(job.snapshot):
        reasons[row.reason] += 1
        letters.append(
            DeadLetter("TakeSnapshot", row.reason, row.detail, row.source, row.data, f"{job.plan.launch_id}/snapshot")
        )
    if letters:
        write_dead_letters(str(job.folder.dead_letters), "snapshot", letters)
    return dict(reasons)


def _examples(folder: LaunchFolder) -> list[dict[str, str]]:
    """The first dead letters, a few of each reason."""
    found: list[dict[str, str]] = []
    seen: Counter[str] = Counter()
    for path in sorted(folder.dead_letters.glob("*.avro")):
        for letter in read_dead_letters(str(path)):
            seen[letter.reason] += 1
            if seen[letter.reason] <= 5 and len(found) < EXAMPLES:
                found.append({k: str(v) for k, v in letter._asdict().items() if k not in ("data", "trace")})
    return found


def _timing(seconds: dict[str, float], summary: dict[str, Any]) -> dict[str, Any]:
    """Seconds and rates of this run, and what an event cost in each stage over all runs."""
    running = seconds.get("launch", 0.0)
    emitted = sum(campaign["emitted"] for campaign in summary["campaigns"])
    stages = summary.pop("stage_seconds")
    return {
        "seconds": round(sum(seconds.values()), 3),
        "phases": seconds,
        "customers_per_s": round(summary["customers"]["evaluated"] / running) if running else 0,
        "events_per_s": round(emitted / running) if running else 0,
        "stages_us_per_event": {name: round(value * 1e6 / max(emitted, 1), 3) for name, value in stages.items()},
    }


def _keep_sticky(job: Prepared) -> None:
    experiments = {
        entry.campaign.id: (experiment.key, experiment.bucket_version)
        for entry in job.plan.campaigns
        if (experiment := entry.campaign.experiment) and experiment.sticky
    }
    if experiments:
        write_sticky(job.folder.sticky, job.config.sticky, job.folder.exposures, experiments)


def table(summary: dict[str, Any], report: str) -> str:
    """The launch in a few lines for a terminal."""
    rows = [("campaign", "matched", "held out", "outside", "suppressed", "dead", "emitted")]
    for one in summary["campaigns"]:
        parts = (sum(one[key].values()) for key in ("held_out", "outside", "suppressed", "dead_lettered"))
        rows.append((one["id"], *(f"{n:,}" for n in (one["matched"], *parts, one["emitted"]))))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    customers, timing = summary["customers"], summary["timing"]
    emitted = sum(one["emitted"] for one in summary["campaigns"])
    dead = sum(customers["dead_lettered"].values())
    lines += [
        "",
        f"launch {summary['launch_id']}: {customers['evaluated']:,} customers, "
        f"{emitted:,} events to {summary['events_to']}"
        f" in {timing['seconds']:.1f} s" + (f", {dead:,} rows in dead_letters/" if dead else ""),
        *list_lines(summary["lists"]),
        *map(warning_text, summary["warnings"]),
        f"report: {report}",
    ]
    return "\n".join(lines)
