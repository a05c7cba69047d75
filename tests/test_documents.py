"""Compare the documents with the code: tables, examples, links, and the names in the glossary and the tour."""

from __future__ import annotations

import ast
import re
from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import get_args

import yaml
from support.pages import ROOT, first_column, section

from connectors.kafka.options import add_kafka_options
from pipelines.collect.options import CollectOptions
from pipelines.command_line.exit_codes import EXIT_CODES
from pipelines.engines import choose
from pipelines.engines.presets import BUILT_IN, DATAFLOW, FLINK, PRESETS, PRISM
from pipelines.rebatch.options import RebatchOptions
from schemas.campaigns.campaign import Campaign
from schemas.campaigns.engine import EngineConfig
from schemas.campaigns.workspaces import Delivery
from schemas.events.event_types import load_event_types
from schemas.events.rules import Rule
from schemas.outcomes import OUTCOMES
from transforms.collect.counters import COUNTERS as COLLECT
from transforms.customers import validate_customers as intake
from transforms.delivery.counters import COUNTERS
from transforms.features.quality import checks_of
from transforms.streaming.engine_traits import EngineTraits
from transforms.warnings import find

LAYERS = ("schemas", "connectors", "stores", "transforms", "pipelines", "runners")
SOURCES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "examples/journey/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def literals(pattern: str, *folders: str) -> set[str]:
    """The texts that a pattern captures in the Python files of these folders."""
    files = [path for folder in folders for path in (ROOT / folder).glob("*.py")]
    return {name for path in files for name in re.findall(pattern, path.read_text())}


def test_the_order_of_decisions_names_every_outcome_and_reason_in_order() -> None:
    rows = re.findall(
        r"^\|[^|]*\| ([\w -]+) \| (.*) \|$", section("launch.md", "In which order is a customer decided?"), re.MULTILINE
    )
    documented = [
        (re.sub(r"[ -]", "_", outcome), reason)
        for outcome, reasons in rows
        for reason in re.findall(r"`(\w+)`", reasons)
        if reason not in ("suppress", "suppress_all_variants")
    ]
    assert documented == [(outcome.outcome, outcome.reason) for outcome in OUTCOMES if outcome.reason]


def test_the_warnings_of_a_launch_are_those_of_its_page() -> None:
    kinds = literals(r'(?:(?:LaunchWarning|warning)\(|yield )\s*"(\w+)"', "transforms/warnings") | find._TEXTS.keys()
    assert len(kinds) == 27
    assert first_column(section("launch.md", "What do the warnings mean?")) == kinds


def test_the_reasons_of_broken_rows_are_those_of_their_page() -> None:
    reasons = literals(r'"(broken_\w+|wrong_\w+)"', "connectors/tables") | intake._DETAIL.keys()
    assert first_column(section("customers.md", "What happens to a bad row?")) == reasons


def test_the_reasons_of_decode_are_those_of_their_page() -> None:
    reasons = literals(r'(?:_Refused|Flaw)\("(\w+)", ', "transforms/delivery")
    assert {"bad_time", "unusable_event", "over_size"} <= reasons
    assert first_column(section("delivery.md", "What do I do with a dead letter?")) == reasons


def test_every_counter_of_rebatch_is_on_its_page() -> None:
    text = section("rebatch.md", "What do the counters mean?")
    named = set(re.findall(r"^\| (\w+) \|", text, re.MULTILINE)) - {"counter"} | set(re.findall(r"`(\w+)`", text))
    assert set(COUNTERS.names) <= named


def test_the_options_of_rebatch_are_those_of_its_page() -> None:
    parser = ArgumentParser(add_help=False)
    RebatchOptions._add_argparse_args(parser)
    documented = first_column(section("rebatch.md", "Which options are there?"))
    assert documented | {"--events", "--output"} == set(parser._option_string_actions)


def test_the_counters_and_options_of_collect_are_those_of_its_page() -> None:
    assert first_column(section("collect.md", "Which counts are there?")) == set(COLLECT.names)
    parser = ArgumentParser(add_help=False)
    CollectOptions._add_argparse_args(parser)
    add_kafka_options(parser)
    text = section("collect.md", "Which options are there?")
    assert set(re.findall(r"--\w+", text)) == set(parser._option_string_actions)


def test_the_options_of_each_preset_are_those_of_its_page() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| `(.*?)` \|", section("engines.md", "Which options does a preset set?"), re.MULTILINE
    )
    assert rows == [(name, flag.option) for name, preset in PRESETS.items() for flag in preset.flags + preset.streaming]


def test_the_promises_of_each_engine_are_those_of_its_page() -> None:
    rows = re.findall(
        r"^\| `(\w+)`: .*? \| (yes|no) \| (yes|no) \| (yes|no) \| (yes|no) \|$",
        section("engines.md", "Which engine do I need?"),
        re.MULTILINE,
    )
    engines = [choose._TRAITS[runner] for runner in (BUILT_IN, PRISM, FLINK[0], DATAFLOW)]
    promises = zip(EngineTraits._fields, zip(*engines, strict=True), strict=True)
    assert rows == [(name, *("yes" if kept else "no" for kept in by_engine)) for name, by_engine in promises]


def test_the_example_of_a_delivery_is_an_engine_yaml_with_the_defaults_that_it_names() -> None:
    (example,) = re.findall(
        r"```yaml\n(channels:.*?)```", section("delivery.md", "How do I limit a retailer's pace?"), re.DOTALL
    )
    delivery, default = EngineConfig.model_validate(yaml.safe_load(example)).delivery, Delivery()
    assert delivery == Delivery(vendor="braze")
    assert (default.vendor, default.on_unknown, default.lease) == ("outbox", "hold", timedelta(seconds=30))
    assert f"most `resends` times ({default.resends})" in (ROOT / "docs/delivery.md").read_text()


def test_the_campaign_of_the_readme_and_the_smallest_engine_yaml_are_valid() -> None:
    (campaign,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert Campaign.model_validate(yaml.safe_load(campaign)).id == "spring-produce"
    engine = (ROOT / "docs/delivery.md").read_text().partition("```\n")[2].partition("```")[0]
    assert EngineConfig.model_validate(yaml.safe_load(engine)).workspaces["kroger"].key_env == "BRAZE_KEY_KROGER"


def test_every_exit_code_has_its_line() -> None:
    rows = re.findall(
        r"^\| (\d) \| ([a-z ]+) \|", section("operations.md", "What does the exit code mean?"), re.MULTILINE
    )
    assert [(int(code), name) for code, name in rows] == [(code, str(kind)) for kind, code in EXIT_CODES.items()]


def definitions(path: Path) -> set[str]:
    """The names of the classes and functions of a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_glossary_has_at_most_60_terms_in_order_each_in_one_sentence() -> None:
    text = (ROOT / "docs/glossary.md").read_text().replace("\n  ", " ")
    terms = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", text, re.MULTILINE)
    names = [name.casefold() for name, _ in terms]
    assert names == sorted(set(names))
    assert 40 <= len(names) <= 60
    assert [sentence for _, sentence in terms if sentence.count(".") != 1 or not sentence.endswith(".")] == []


def test_the_names_of_the_glossary_are_classes_and_functions() -> None:
    named = set(re.findall(r"`(\w+)`", (ROOT / "docs/glossary.md").read_text())) - {"code"}
    assert named - set().union(*map(definitions, SOURCES)) == set()


def test_each_step_of_the_tour_names_classes_and_functions_of_the_files_that_it_links_to() -> None:
    text = (ROOT / "docs/tour.md").read_text()
    steps = re.findall(r"\]\(\.\./([\w/]+\.py)\)\s+`(\w+)`", text)
    assert len(steps) == text.count("](../") >= 30
    assert [(path, name) for path, name in steps if name not in definitions(ROOT / path)] == []


def test_links_to_a_heading_lead_to_one() -> None:
    for page in PAGES:
        for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            assert anchor in anchors(page.parent / link if link else page), (page.name, link, anchor)


def test_the_files_and_folders_that_a_page_names_exist() -> None:
    for page in PAGES:
        for path in re.findall(rf"(?<![\w/.])((?:{'|'.join(LAYERS)}|tests|bench|docs)/[\w/.*-]+)", page.read_text()):
            assert list(ROOT.glob(path.rstrip("./"))), (page.name, path)


def test_a_decision_is_at_most_40_lines_and_its_heading_begins_with_its_number() -> None:
    for path in sorted((ROOT / "docs/decisions").glob("*.md")):
        lines = path.read_text().splitlines()
        assert len(lines) <= 40, path.name
        assert lines[0].startswith(f"# {path.name[:3]} "), path.name


def test_the_page_of_events_names_every_rule() -> None:
    tables = section("events.md", "Which rules are there?").split("\nEvery type also has these")
    declared = {get_args(one.model_fields["rule"].annotation)[0] for one in get_args(get_args(Rule)[0])}
    assert first_column(tables[0]) == declared | {"rule"}
    event_type = load_event_types()["card_attempt"]
    always = {check.rule for check in checks_of(event_type)} - {rule.name for rule in event_type.rules}
    rejected = literals(r'Rejected\([^,]+, "(\w+)"', "transforms/features")
    assert first_column(tables[1]) == always | rejected
