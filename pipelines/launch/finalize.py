"""Finalize a launch: make the summary, the sticky assignments and the report from the counts of its batches."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from connectors.event_sinks import event_path
from connectors.files.avro_blocks import record_damage
from connectors.inputs.sticky import write_sticky
from pipelines.command_line.logs import say
from pipelines.launch.input_warnings import list_lines
from pipelines.launch.inputs import LaunchJob
from pipelines.operations.deliveries import join_receipts, receipt_folders, with_deliveries
from pipelines.operations.report.page import write_report
from schemas.contracts import DeadLetter
from schemas.problems import InputError, Problem, plural
from stores.dead_letters import read_dead_letters, write_dead_letters
from stores.launches.launch_folder import SUMMARY, LaunchFolder
from stores.launches.snapshot import read_rejected, rejected_by_reason
from stores.launches.whole_files import damaged
from transforms.reconciliation.totals import EMITTED, Totals, summarise
from transforms.warnings.history_and_sticky import earlier_lines
from transforms.warnings.warning import warning_text

EXAMPLES = 20
_NUMBERS = ("launch_id", "state", "customers", "campaigns", "retailers", "ledger")
_STAGES = "stages_us_per_event"


def finalize_launch(job: LaunchJob, seconds: dict[str, float]) -> dict[str, Any]:
    """The summary of a launch; writes it with report.html, sticky.parquet and the snapshot's dead letters."""
    folder = job.folder
    rejected = _rejected(job)
    summary = sum_up(job, rejected)
    summary["timing"] = _timing(seconds, summary)
    summary["dead_letter_examples"] = _examples(folder)
    folder.write_json(folder.summary, summary)
    if not job.plan.test:
        _write_sticky(job)
    write_report(summary, folder.report)
    return summary


def report_again(job: LaunchJob, receipts: Sequence[str] = ()) -> str:
    """Write the report of the launch as it is now, with its delivery if there are receipts; the path of the report.

    `receipts` are folders; without any, the launch's own delivery/receipts is read if it exists. Raises InputError when
    summary.json has other numbers than the batches.
    """
    summary = read_finished_summary(job) or _summary_now(job)
    if folders := receipt_folders(job, receipts):
        summary = with_deliveries(summary, join_receipts(job, folders, waits=True))
    write_report(summary, job.folder.report)
    if job.folder.remote is not None:
        job.folder.remote.upload_file(job.folder.report)
    return str(job.folder.report)


def read_finished_summary(job: LaunchJob) -> dict[str, Any] | None:
    """The summary of a finalized launch, or None. Raises InputError when summary.json is damaged or has other numbers
    than the batches."""
    written = job.folder.read_summary()
    if written is None:
        return None
    now = _summary_now(job)
    wrong = contradictions(written, now)
    timing = written.get("timing")
    if not isinstance(timing, dict) or any(type(timing.get(name)) is not dict for name in ("phases", _STAGES)):
        wrong, timing = [*wrong, "timing"], {}
    if wrong:
        raise InputError([damaged(job.folder.summary, f"its {', '.join(wrong)} are not those of the batches", SUMMARY)])
    return {**now, "finished_at": str(written.get("finished_at")), "timing": {**now["timing"], **timing}}


def _summary_now(job: LaunchJob) -> dict[str, Any]:
    now = sum_up(job, rejected_by_reason(job.snapshot))
    return now | {"timing": _timing({}, now), "dead_letter_examples": _examples(job.folder)}


def contradictions(written: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The parts of a written summary with other numbers than the batches. Fields that only one version of the summary
    has are not compared."""
    numbers = json.loads(json.dumps({name: now[name] for name in _NUMBERS}))
    return [name for name in _NUMBERS if name not in written or not _agree(written[name], numbers[name])]


def _agree(written: Any, now: Any) -> bool:
    if isinstance(written, dict) and isinstance(now, dict):
        return all(_agree(value, now[name]) for name, value in written.items() if name in now)
    if isinstance(written, list) and isinstance(now, list):
        return len(written) == len(now) and all(map(_agree, written, now))
    return bool(written == now)


def check_resumed(job: LaunchJob) -> None:
    """Raises InputError when the exposures or the events of a finished batch are damaged."""
    job.check_done()
    folder = job.config.events.folder
    if folder is None:
        return
    problems = []
    for name in sorted(job.folder.done()):
        emitted = sum(count for _, outcome, _, count in job.folder.read_counts(name)["outcomes"] if outcome == EMITTED)
        path = event_path(folder, job.plan.launch_id, name)
        if emitted and (damage := record_damage(path, emitted)):
            exposures = job.folder.exposures / f"{name}.parquet"
            fix = f"delete {exposures} and run the launch command again: the same events are written again"
            problems.append(Problem(path, "", damage, fix))
    if problems:
        raise InputError(problems)


def add_up(job: LaunchJob) -> Totals:
    """The sums over the finished batches."""
    totals = Totals()
    done = job.folder.done()
    for name in sorted(done):
        totals.add(job.folder.read_counts(name))
    totals.ledger = job.folder.count_exposures(done)
    totals.units = job.folder.count_units(done)
    return totals


def sum_up(job: LaunchJob, rejected: dict[str, int]) -> dict[str, Any]:
    """The summary of the finished batches, whether or not all are."""
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


def _rejected(job: LaunchJob) -> dict[str, int]:
    """The rows that the snapshot could not read, by reason. Writes them to the dead letters."""
    reasons: Counter[str] = Counter()
    letters, trace = [], f"{job.plan.launch_id}/snapshot"
    for row in read_rejected(job.snapshot):
        reasons[row.reason] += 1
        letters.append(DeadLetter("TakeSnapshot", row.reason, row.detail, row.source, row.data, trace))
    if letters:
        write_dead_letters(str(job.folder.dead_letters), "snapshot", letters)
    return dict(reasons)


def _examples(folder: LaunchFolder) -> list[dict[str, str]]:
    """The first dead letters, a few of each reason."""
    examples: list[dict[str, str]] = []
    seen: Counter[str] = Counter()
    for path in sorted(folder.dead_letters.glob("*.avro")):
        for letter in read_dead_letters(str(path)):
            seen[letter.reason] += 1
            if seen[letter.reason] <= 5 and len(examples) < EXAMPLES:
                examples.append({k: str(v) for k, v in letter._asdict().items() if k not in ("data", "trace")})
    return examples


def _timing(seconds: dict[str, float], summary: dict[str, Any]) -> dict[str, Any]:
    """The seconds and rates of this run, and the microseconds an event in each stage over all runs."""
    running = seconds.get("launch", 0.0)
    emitted = sum(campaign["emitted"] for campaign in summary["campaigns"])
    stages = summary.pop("stage_seconds")
    return {
        "seconds": round(sum(seconds.values()), 3),
        "phases": seconds,
        "customers_per_s": round(summary["customers"]["evaluated"] / running) if running else 0,
        "events_per_s": round(emitted / running) if running else 0,
        _STAGES: {name: round(value * 1e6 / max(emitted, 1), 3) for name, value in stages.items()},
    }


def _write_sticky(job: LaunchJob) -> None:
    experiments = {
        entry.campaign.id: (experiment.key, experiment.bucket_version)
        for entry in job.plan.campaigns
        if (experiment := entry.campaign.experiment) and experiment.sticky
    }
    if experiments:
        write_sticky(job.folder.sticky, job.config.sticky, job.folder.exposures, experiments)


def log_results(summary: dict[str, Any]) -> None:
    """Logs one line a campaign, with its counts, and one a warning."""
    launch = summary["launch_id"]
    for campaign in summary["campaigns"]:
        counts = {name: campaign[name] for name in ("matched", "emitted")}
        say(f"{campaign['id']} is launched", launch=launch, campaign=campaign["id"], counts=counts)
    for warning in summary["warnings"]:
        say(warning_text(warning), logging.WARNING, launch=launch, campaign=warning["campaign"])


def summary_table(summary: dict[str, Any], report: str) -> str:
    """The summary as a table for a terminal, with the warnings below it."""
    rows = [("campaign", "matched", "held out", "outside", "suppressed", "dead", "emitted")]
    for campaign in summary["campaigns"]:
        parts = (sum(campaign[key].values()) for key in ("held_out", "outside", "suppressed", "dead_lettered"))
        rows.append((campaign["id"], *(f"{n:,}" for n in (campaign["matched"], *parts, campaign["emitted"]))))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    customers, timing = summary["customers"], summary["timing"]
    emitted = sum(campaign["emitted"] for campaign in summary["campaigns"])
    dead = sum(customers["dead_lettered"].values())
    lines += [
        "",
        f"launch {summary['launch_id']}: {plural(customers['evaluated'], 'customer')}, "
        f"{plural(emitted, 'event')} to {summary['events_to']}"
        f" in {timing['seconds']:.1f} s" + (f", {plural(dead, 'row')} in dead_letters/" if dead else ""),
        *list_lines(summary["lists"]),
        *earlier_lines(summary),
        *map(warning_text, summary["warnings"]),
        f"report: {report}",
    ]
    return "\n".join(lines)
