"""The tables of the documents against the code: what a command can say has its line, and no line is left over."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path

import yaml

from pipelines.rebatch_options import RebatchOptions
from schemas.engine import Engine
from schemas.outcomes import OUTCOMES
from schemas.workspaces import Delivery
from transforms import intake
from transforms.rebatch.counters import NAMES
from transforms.warnings import find

ROOT = Path(__file__).resolve().parent.parent


def section(name: str, heading: str) -> str:
    """The part of a document below a heading."""
    text = (ROOT / "docs" / name).read_text()
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def first_column(table: str) -> set[str]:
    """The names in backticks in the first cell of each row."""
    return {
        name for line in re.findall(r"^\|([^|]*)\|", table, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", line)
    }


def literals(pattern: str, *folders: str) -> set[str]:
    """What a pattern captures in the Python files of some folders."""
    files = [path for folder in folders for path in (ROOT / folder).glob("*.py")]
    return {name for path in files for name in re.findall(pattern, path.read_text())}


def test_the_order_of_decisions_names_every_outcome_and_reason_in_order() -> None:
    rows = re.findall(r"^\|[^|]*\| ([\w -]+) \| (.*) \|$", section("launch.md", "The order of decisions"), re.MULTILINE)
    told = [
        (re.sub(r"[ -]", "_", outcome), reason)
        for outcome, reasons in rows
        for reason in re.findall(r"`(\w+)`", reasons)
    ]
    told = [pair for pair in told if pair[1] not in ("suppress", "suppress_all_variants")]
    assert told == [(one.outcome, one.reason) for one in OUTCOMES if one.reason]


def test_the_warnings_of_a_launch_are_those_of_its_page() -> None:
    kinds = literals(r'(?:LaunchWarning|warn)\(\s*"(\w+)"', "transforms/warnings") | find._DO.keys()
    assert len(kinds) == 27
    assert first_column(section("launch.md", "Warnings")) == kinds


def test_the_reasons_of_broken_rows_are_those_of_their_page() -> None:
    reasons = literals(r'"(broken_\w+|wrong_\w+)"', "stores/tables") | intake._DETAIL.keys()
    assert first_column(section("customers.md", "Rows that cannot be used")) == reasons


def test_the_reasons_of_decode_are_those_of_their_page() -> None:
    reasons = literals(r'(?:_Refused\(|_?[Ff]law\(|return \(?)"(\w+)", ', "transforms/rebatch")
    assert {"bad_time", "unusable_event", "over_size"} <= reasons
    assert first_column(section("delivery.md", "Dead letters and replay")) == reasons


def test_every_counter_of_rebatch_has_its_line_or_its_word() -> None:
    text = section("rebatch.md", "Counted places")
    named = set(re.findall(r"^\| (\w+) \|", text, re.MULTILINE)) - {"counter"} | set(re.findall(r"`(\w+)`", text))
    assert set(NAMES) <= named


def test_the_options_of_rebatch_are_those_of_its_page() -> None:
    parser = ArgumentParser(add_help=False)
    RebatchOptions._add_argparse_args(parser)
    told = first_column(section("rebatch.md", "Options"))
    assert told | {"--events", "--output"} == set(parser._option_string_actions)


def test_the_example_of_a_delivery_is_an_engine_yaml_with_the_defaults_that_it_names() -> None:
    (example,) = re.findall(r"```yaml\n(channels:.*?)```", section("delivery.md", "Pacing"), re.DOTALL)
    delivery, default = Engine.model_validate(yaml.safe_load(example)).delivery, Delivery()
    assert delivery == Delivery(vendor="braze")
    assert (default.vendor, default.on_unknown, default.lease) == ("outbox", "hold", timedelta(seconds=30))
    assert f"most `resends` times ({default.resends})" in (ROOT / "docs/delivery.md").read_text()
