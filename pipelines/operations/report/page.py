"""Render a launch's summary.json as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from connectors.files.whole_file import write_whole
from pipelines.operations.report import charts, delivery, equations, labels
from schemas.problems import plural, shown

Summary = Mapping[str, Any]
SHOWN = 30


class Node(NamedTuple):
    """A node of the audience, `depth` levels below the root."""

    depth: int
    node: Mapping[str, Any]


class Step(NamedTuple):
    """A stage between match, event and acceptance; `start` is where its bar begins."""

    kind: str
    label: str
    customers: int
    start: int


class Item(NamedTuple):
    """A sentence of a notice; `subject` names the campaign it is about, `anchor` leads there."""

    text: str
    subject: str = ""
    anchor: str = ""


class Notice(NamedTuple):
    """What must be read first: `level` is bad, warn or info."""

    level: str
    title: str
    items: list[Item]


class Section(NamedTuple):
    """All of one campaign: `c` as the summary has it, and what is computed from it."""

    anchor: str
    c: Mapping[str, Any]
    outcomes: dict[str, int]
    audience: list[Node]
    steps: list[Step]
    ledger: list[equations.Equation]

    @property
    def closes(self) -> bool:
        """Whether every line of the ledger does."""
        return not any(line.gap for line in self.ledger)

    @property
    def mismatches(self) -> list[str]:
        """The stages at which the experiment's split is not the planned one."""
        tests = self.c["experiment"]["sample_ratio"] if self.c["experiment"] else {}
        return [stage for stage, test in tests.items() if test["mismatch"]]


def render_report(summary: Summary) -> str:
    """The page. `summary` has the shape of summary.json; nothing in it is trusted to be free of HTML.

    Where it has `delivery` (pipelines/operations/deliveries.py), the page says what became of the events.
    """
    delivered = summary.get("delivery")
    ends = delivered["campaigns"] if delivered else {}
    sections = [_section(place, one, ends.get(one["id"])) for place, one in enumerate(summary["campaigns"], start=1)]
    ledger = equations.launch_equations(summary)
    return _template().render(
        s=summary,
        sections=sections,
        totals=_totals(summary, sections),
        notices=list(_notices(summary, sections, ledger)),
        ledger=ledger,
        delivered=delivery.delivery_view(delivered) if delivered else None,
        retailers=sorted(summary["retailers"], key=lambda r: (-r["emitted"], -r["matched"], r["id"])),
        dead_letters=_dead_letters(summary),
        shown=SHOWN,
    )


def write_report(summary: Summary, path: str | Path) -> None:
    """Write the page as a whole file. Raises JobError when the disk refuses."""
    write_whole(path, [render_report(summary).encode("utf-8", "replace")])


@cache
def _template() -> Template:
    env = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.globals.update(
        css=Markup(_text("page.css")),
        bar=charts.bar,
        stack=charts.stack,
        whiskers=charts.whiskers,
        kinds=labels.KINDS,
        ends=delivery.NAMES,
        target=delivery.target(),
        dash=charts.DASH,
    )
    for function in (
        charts.number, charts.percent, charts.p_value, charts.duration,
        charts.moment, charts.shades, labels.verdict, labels.plain, labels.dead_letter,
        labels.offer_kind, labels.node_word, delivery.success_share,
    ):  # fmt: skip
        env.filters[function.__name__] = function
    return env.get_template("page.html")


def _text(name: str) -> str:
    return resources.files("pipelines.operations.report").joinpath(name).read_text("utf-8")


def _section(place: int, campaign: Mapping[str, Any], ends: Mapping[str, int] | None) -> Section:
    return Section(
        anchor=f"campaign-{place}",
        c=campaign,
        outcomes=equations.outcomes(campaign),
        audience=list(_flat(campaign["audience"])),
        steps=list(_steps(campaign, ends)),
        ledger=equations.campaign_equations(campaign, ends),
    )


def _flat(node: Mapping[str, Any], depth: int = 0) -> Iterator[Node]:
    yield Node(depth, node)
    for child in node["children"]:
        yield from _flat(child, depth + 1)


def _steps(campaign: Mapping[str, Any], ends: Mapping[str, int] | None) -> Iterator[Step]:
    left = campaign["matched"]
    yield Step("matched", "Matched", left, 0)
    for kind in ("held_out", "outside", "suppressed", "dead_lettered"):
        for label, count in labels.losses(kind, campaign[kind]):
            left -= count
            yield Step(kind, label, count, left)
    left = campaign["emitted"]
    yield Step("emitted", "Emitted", left, 0)
    if ends is None:
        return
    for kind, label, count in delivery.last_steps(ends):
        left -= count
        yield Step(kind, label, count, left)
    yield Step("accepted", "Accepted", ends["accepted"], 0)


def _totals(summary: Summary, sections: list[Section]) -> dict[str, int]:
    totals = Counter({"matched": sum(section.c["matched"] for section in sections)})
    for section in sections:
        totals.update(section.outcomes)
    totals["dead_rows"] = sum(summary["customers"]["dead_lettered"].values())
    return totals


def _dead_letters(summary: Summary) -> list[tuple[str, str, int]]:
    """(step, reason, count): first the refused rows, then the refused events, most frequent first."""
    events: Counter[str] = Counter()
    for campaign in summary["campaigns"]:
        events.update(campaign["dead_lettered"])
    rows = Counter(summary["customers"]["dead_lettered"])
    found = [("row", rows), ("event", events)]
    return [(unit, reason, count) for unit, counts in found for reason, count in counts.most_common() if count]


def _notices(summary: Summary, sections: list[Section], ledger: list[equations.Equation]) -> Iterator[Notice]:
    unclosed = [Item(line.text, s.c["id"], s.anchor) for s in sections for line in s.ledger if line.gap]
    unclosed += [Item(line.text, "Whole launch", "ledger") for line in ledger if line.gap]
    unclosed += [Item(line.text, name, "retailers") for name, line in equations.open_retailers(summary)]
    if unclosed:
        title = "The ledger does not close: some customers have no outcome, or two. Do not trust these numbers"
        yield Notice("bad", title, unclosed)
    split = [
        Item(labels.mismatched(s.mismatches[0], s.c["experiment"]), s.c["id"], s.anchor)
        for s in sections
        if s.mismatches
    ]
    if split:
        yield Notice("bad", "Sample-ratio mismatch: an experiment is not split as planned", split)
    if found := summary.get("delivery"):
        yield from _delivery_notices(found, summary["state"] == "finished")
    if number := len(summary["warnings"]):
        title = f"{plural(number, 'warning')}: something in the inputs has no effect, or not the one meant"
        yield Notice("warn", title, [Item(one["text"], _subject(one), "warnings") for one in summary["warnings"]])
    if summary["state"] != "finished":
        yield Notice("info", "This launch has not finished: the numbers are those so far", [])


def _subject(warning: Mapping[str, Any]) -> str:
    """What a warning is about: its value, and the campaign where it is one's."""
    value = shown(warning["value"], 60)
    return f"{warning['campaign']}, {value}" if warning["campaign"] else value


def _delivery_notices(found: Mapping[str, Any], finished: bool) -> Iterator[Notice]:
    if wrong := list(delivery.complaints(found, finished)):
        title = "The receipts contradict the launch. Do not trust the delivery’s numbers before the cause is known"
        yield Notice("bad", title, [Item(text, "Delivery", "delivery") for text in wrong])
    if text := delivery.shortfall(found):
        yield Notice("warn", "Delivery is below its target", [Item(text, "Delivery", "delivery")])
