"""What every run must be: an end with 0 whose sums close, or with 2 that says file, field, value and remedy."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import fastavro

from bench.input_fuzz.inputs import Facts, Inputs
from bench.input_fuzz.worker import Run
from transforms.reconciliation.totals import check_ledger

_PROBLEM = re.compile(r"^\S.*?  \S.* = .*\n {4}\S", re.MULTILINE)
_PYTHON = re.compile(r"Traceback|<class '|\bat 0x[0-9a-f]{6}|\b[A-Z]\w+(?:Error|Exception)\b|object has no attribute")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ANSWERS = {"check", "verify-code"}
"""Commands whose exit code 1 is an answer."""


class Find(NamedTuple):
    """A rule that does not hold, in a few words by which finds are told apart, and the details."""

    rule: str
    detail: str


def judge_run(inputs: Inputs, argv: list[str], run: Run) -> Find | None:
    """What is wrong with the end of one command."""
    command = argv[0]
    if run.code is None:
        return Find(_last(run.raised), run.raised)
    if shown := _PYTHON.search(run.err):
        line = run.err[: shown.end()].rpartition("\n")[2] + run.err[shown.end() :].partition("\n")[0]
        return Find(f"{command}: Python shows: {_plain(line)}", run.err)
    if _CONTROL.search(run.err):
        return Find(f"{command}: control characters in the message", run.err)
    if run.code == 2 and not _PROBLEM.search(run.err):
        return Find(f"{command}: exit code 2 without file, field, value and remedy: {_first(run.err)}", run.err)
    if run.code == 1 and command in _ANSWERS:
        wrong = [line for line in run.out.splitlines() if line.startswith("WRONG") and "the split of the" not in line]
        if command == "check" and (wrong or not run.out) and not inputs.damage:
            return Find(f"check: {(wrong or ['no line'])[0][7:60]}", run.out + run.err)
    elif run.code == 1 and not inputs.machine:
        return Find(f"{command}: exit code 1 for an input: {_first(run.err)}", run.err)
    if run.code not in (0, 1, 2):
        return Find(f"{command}: exit code {run.code}", run.err)
    if not inputs.bad and run.code == 2:
        return Find(
            f"{command}: a sound input is refused: {_plain((run.err.strip().splitlines() or [''])[-1])}", run.err
        )
    return None


def _last(raised: str) -> str:
    """The exception and the last line of ours, without what varies."""
    ours = re.findall(
        r'File "[^"]*/((?:schemas|stores|transforms|pipelines|runners)/[^"]+)", line \d+, in (\w+)', raised
    )
    error = (raised.strip().splitlines() or [""])[-1].partition(":")[0]
    return f"{error} in {' '.join(ours[-1])}" if ours else raised.strip()[-60:]


def _first(text: str) -> str:
    return re.sub(r"[\d'\"].*", "…", (text.strip().splitlines() or ["silence"])[-1])[:70]


def _plain(line: str) -> str:
    return re.sub(r"\d+|'.*?'", "…", line.strip())[:80]


def judge_launch(inputs: Inputs, folder: Path) -> Find | None:
    """What is wrong with the files of a launch that ended with 0, counted anew from the files alone."""
    output = folder / inputs.options["--output"][0]
    events = read_events(folder / inputs.options["--events"][0].removeprefix("file:"))
    summary = json.loads((output / "summary.json").read_text())
    if gaps := check_ledger(summary):
        return Find("the ledger does not close", "; ".join(gaps))
    emitted = sum(one["emitted"] for one in summary["campaigns"])
    ids = Counter(event["event_id"] for event in events)
    if emitted != len(events) or len(ids) != len(events):
        return Find(
            "the events are not those of the summary", f"{emitted} emitted, {len(events)} events, {len(ids)} ids"
        )
    facts, customers = inputs.facts, summary["customers"]
    if facts.rows is not None and facts.rows != customers["evaluated"] + sum(customers["dead_lettered"].values()):
        return Find("rows read are not evaluated + dead-lettered", f"{facts.rows} rows, {customers}")
    if not inputs.bad and summary["state"] != "finished":
        return Find("exit code 0 and the launch is not finished", summary["state"])
    return _judge_events(facts, events)


def _judge_events(facts: Facts, events: list[dict[str, Any]]) -> Find | None:
    """Whether somebody was sent to who must not be, under a name that nobody has, or a code that is none."""
    codes: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        who, campaign = event["customer_id"], event["campaign_id"]
        if facts.customers is not None and (who, event["retailer_id"]) not in facts.customers:
            return Find("an event is to nobody", f"{who!r} of {event['retailer_id']!r}: {sorted(facts.customers)[:3]}")
        if who in facts.never | facts.never_of.get(campaign, set()):
            return Find("somebody on a list is written to", f"{who!r} by {campaign}")
        for offer in event["offers"]:
            place = campaign, offer["id"]
            if place in facts.codes and offer["code"] not in facts.codes[place]:
                return Find("a code is given that is not in the list", f"{offer['code']!r} by {campaign}")
            if place in facts.codes:
                codes[campaign, offer["id"], offer["code"]] += 1
    twice = [key for key, number in codes.items() if number > 1]
    return Find("a code is given to two people", str(twice[0])) if twice else None


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Every event of a folder, read without anything of ours."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.avro")):
        with open(path, "rb") as file:
            found += [record for record in fastavro.reader(file) if isinstance(record, dict)]
    return found


def listing(base: Path) -> dict[str, bytes | None]:
    """Every file and folder below one, with the bytes of the files."""
    return {
        path.relative_to(base).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(base.rglob("*"))
    }


def judge_files(inputs: Inputs, base: Path, folder: Path, before: dict[str, bytes | None]) -> Find | None:
    """Whether something outside the folders of the output was written, or an input changed or removed."""
    here, now = folder.relative_to(base), listing(base)
    own = tuple(f"{here / name}" for name in inputs.outputs)
    ours = {f"{here.parent / name}" for name in ("stdout", "stderr", "home", "tmp")}
    for name in now.keys() - before.keys() - ours:
        path = Path(name)
        if not path.is_relative_to(here.parent / "tmp") and not any(path.is_relative_to(one) for one in own):
            return Find("a file outside the output", name)
    for name, data in before.items():
        if name not in now:
            return Find("an input was removed", name)
        if now[name] != data:
            return Find("an input was changed", name)
    return None
