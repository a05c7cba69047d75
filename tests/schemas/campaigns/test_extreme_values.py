"""Every field of every configuration file, with values at and beyond every limit: sound, or refused by name."""

import copy
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.batches import stepped
from support.factories import any_campaign, any_customers, any_engine, any_folder

from schemas.campaigns.audience import NamedAudience
from schemas.campaigns.campaign import Campaign
from schemas.campaigns.configuration import load_configuration, read_model
from schemas.campaigns.engine import EngineConfig
from schemas.campaigns.yaml_files import Document, read_yaml
from schemas.problems import Problem
from transforms.events.send_time import send_time
from transforms.experiments.assignment import scheme_ranges
from transforms.launch_plan import make_plan

Path_ = tuple[str | int, ...]
LONG = "1" * 5_000
RAW = [
    LONG, f"-{LONG}", f"1.{LONG}", f"{LONG}.5", "1e999", "-1e999", "1e-999", "9223372036854775807",
    "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1e18", "0", "-1", "-0.0", "1e308", "007", "089",
    "~", "true", "[]", "{}", "[[]]", "[0, 0]", "nan", ".nan", ".inf", "infinity", "''", "' '", "'*'", "0x1F", "1_000",
    "P100000000D", "P999999999D", "P1000000000D", "-P1D", "PT0S", "PT0.0000001S", f"P{LONG}D", "P1W", "P100Y", "P101Y",
    "9999-12-31T23:59:59.999999", "9999-12-31", "0001-01-01T00:00", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00",
    "1969-12-31", "2199-12-31T23:59:59", "2200-01-01", "10000-01-01", f"{LONG}-01-01T00:00", "2026-02-30T00:00",
    "2026-04-01T09:00+99:99", "21:00Z", "24:00", "23:59:60", "'21:00'", "'21:00Z'", "America/Chicago", "localtime", "Factory",
    "../../etc/localtime", '"\\ud800"', '"\\0"', '"a\\nb"', '"\\U0001F600"', "x" * 10_001, "é" * 64, "!!int x", "? [a]\n: b",
    "1 000:00:00", "99999999999 00:00:00", "'1e999999999'", "0.00001", "99999999999999999.9999", "253402300800",
]  # fmt: skip


def written(document: dict[str, Any], path: Path_, raw: str) -> str:
    """The YAML of a document in which one value is a text as it stands."""
    text = yaml.safe_dump(changed(document, path, "REPLACED"), default_flow_style=True, width=10**9)
    return text.replace("REPLACED", raw)


def changed(document: dict[str, Any], path: Path_, value: Any) -> dict[str, Any]:
    """A copy of a document with another value at one place."""
    found = copy.deepcopy(document)
    place: Any = found
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return found


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The places of all fields, of lists and mappings too."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from leaves(child, (*path, key))


CAMPAIGN = any_campaign(
    description="d",
    retailers=["*"],
    priority=5,
    audience={"all": ["spend >= 0", {"audience": "named"}, {"not": {"list": "lists/ids.csv", "column": "customer_id"}}]},
    experiment={
        "key": "e", "seed": "s", "hash": "eppo", "unit": "customer_id", "coverage": 0.9, "holdout": 0.1, "outside": "include",
        "namespace": {"key": "n", "ranges": [[0.0, 0.5]], "seed": "t", "unit": "household"},
        "sticky": True, "bucket_version": 2, "min_bucket_version": 1, "force": {"c-1": "a"},
        "variants": [{"key": "a", "weight": 0.5, "template": "x", "offers": ["five"]}, {"key": "b", "weight": 0.5}],
    },
    offers=[
        {"id": "five", "kind": "unique_code", "value": "5.00", "currency": "USD", "valid_for": "P14D", "budget": 60,
         "when": "spend > 1", "on_exhausted": "fallback", "fallback": "one"},
        {"id": "one", "kind": "fixed", "code": "ONE"},
    ],
    content={"template": "plain", "properties": {"name": "first_name"}, "offers": ["one"]},
    schedule={"start": "2026-04-01T09:00", "expires": "P3D", "local_time": True, "quiet_hours": ["21:00", "08:00"]},
    vendor={"campaign": "v"},
)  # fmt: skip
WARM_UP = {
    "ladder": [100, 200],
    "started": "2026-01-01",
    "stop": {"bounce": 0.1, "spam": 0.1},
    "signals": "lists/ids.csv",
}
WORKSPACE = {
    "url": "https://a.example/{retailer}", "key_env": "KEY", "paused": False, "quiet_hours": ["21:00", "08:00"], "shared_account": "x",
    "templates": {"x": "lists/ids.csv"},
    "pace": {"per_second": 5, "burst": 5, "calls_per_hour": 100, "warm_up": WARM_UP},
}  # fmt: skip
ENGINE = any_engine(
    columns={"customer": "customer_id", "retailer": "retailer_id", "time_zone": "zone"},
    retailers={"*": {"time_zone": "America/New_York", "opted_out": False}},
    holdouts={"global": {"share": 0.1, "seed": "g", "unit": "customer_id"}, "retailers": {"store-1": 0.1}},
    caps=[{"channel": "email", "at_most": 2, "within": "P7D"}],
    suppression_lists=[{"file": "lists/ids.csv", "column": "customer_id", "channel": "email"}],
    shared_address={"column": "spend", "keep": "highest"},
    code_secret="CAMPAIGNS_CODE_SECRET",
    delivery={"vendor": "braze", "on_unknown": "resend", "resends": 2, "resend_within": "PT1H", "timeout": "PT3S",
              "lease": "PT30S", "wait": "PT2S", "remember": "P7D"},
    workspaces={"*": WORKSPACE},
)  # fmt: skip
AUDIENCE = {"audience": {"any": ["spend > 1", {"not": "spend > 2"}]}, "description": "d"}
FILES = {"welcome.yaml": CAMPAIGN, "engine.yaml": ENGINE, "audiences/named.yaml": AUDIENCE}
MODELS: dict[str, Any] = {"welcome.yaml": Campaign, "engine.yaml": EngineConfig, "audiences/named.yaml": NamedAudience}
TEXTS = {"description"}
"""Fields that take any value of a YAML file that is text."""
CUSTOMERS = any_customers(3, zone=["Europe/Berlin", None, "Pacific/Kiritimati"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, audiences = tmp_path_factory.mktemp("extreme"), {"named": AUDIENCE["audience"]}
    return any_folder(root, CAMPAIGN, engine=ENGINE, lists={"ids.csv": "id\nc-9\n"}, audiences=audiences)


def compute(campaign: Campaign) -> None:
    """A campaign's times and ranges."""
    when, split = campaign.schedule, campaign.experiment
    for zone in ("Pacific/Kiritimati", "America/Adak"):
        start = when.start or datetime(2026, 4, 1, 9)
        times = send_time(start, when.local_time, when.quiet_hours, when.expires, zone)
        assert 0 <= times.deliver_after + 86_400_000 < 2**43
    if split:
        assert scheme_ranges(split.hash, len(split.variants), split.coverage, split.weights)


def launch(folder: Path) -> list[Problem]:
    """The problems of a folder; without any, three customers go through the steps up to the offers."""
    config, problems = load_configuration(folder)
    if problems:
        return problems
    assert config is not None
    plan, mistakes = make_plan(config, CUSTOMERS.schema, "launch-1", 1_775_000_000_000)
    if not mistakes:
        stepped(
            plan,
            CUSTOMERS,
            offer_capacity={("welcome", "five"): 60},
            allocations={("welcome", "five"): np.zeros(0, "S32")},
        )
    return mistakes


def test_the_folder_is_sound_as_it_stands(folder: Path) -> None:
    assert launch(folder) == []


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the files' reader makes of the texts; those that are no YAML are refused there."""
    path = tmp_path_factory.mktemp("values") / "value.yaml"
    found = []
    for raw in RAW:
        path.write_text(f"value: {raw}")
        document = read_yaml(path, path.name)
        if isinstance(document, Document):
            found.append(document.data["value"])
    assert len(found) >= len(RAW) - 5
    return found


@pytest.mark.parametrize("file", FILES)
def test_a_field_takes_every_value_or_refuses_it_by_name(values: list[Any], file: str) -> None:
    sound, model = FILES[file], MODELS[file]
    refused: set[Path_] = set()
    for path in leaves(sound):
        for value in values:
            problems: list[Problem] = []
            found = read_model(Document(file, changed(sound, path, value), None), model, problems)
            assert (found is None) is bool(problems)
            assert all(problem.fix and len(str(problem)) < 500 for problem in problems), problems
            if isinstance(found, Campaign):
                compute(found)
            refused |= {path} if problems else set()
    assert refused >= {path for path in leaves(sound) if path[-1] not in TEXTS}


LIMITS = [
    ("schedule.start", "9999-12-31T23:00", "1970-01-01 to before 2200-01-01"),
    ("schedule.start", "0001-01-01T00:00", "1970-01-01 to before 2200-01-01"),
    ("schedule.expires", "9999-12-31T23:00", "1970-01-01 to before 2200-01-01"),
    ("schedule.expires", "P100000000D", "36,525 days"),
    ("offers.0.valid_for", "P100000000D", "36,525 days"),
    ("offers.0.budget", LONG, "1000000000000"),
    ("offers.0.value", LONG, "18 digits"),
    ("priority", LONG, "1000000"),
    ("priority", f"-{LONG}", "-1000000"),
    ("experiment.bucket_version", LONG, "1000000000"),
    ("experiment.holdout", LONG, "less than or equal to 1"),
    ("experiment.variants.0.weight", LONG, "less than or equal to 1"),
    ("experiment.variants.0.weight", "nan", "finite"),
    ("experiment.variants.0.weight", "1e999", "finite"),
    ("schedule.quiet_hours.0", "'21:00Z'", "without a zone"),
    ("schedule.expires", LONG, "has no unit"),
    ("schedule.expires", "3", "has no unit"),
    ("offers.0.valid_for", "14", "has no unit"),
    ("schedule.start", "20260401", "is a number, not a time"),
    ("schedule.start", "'1775044800'", "is a number, not a time"),
    ("offers.0.budget", "true", "true and false are no numbers"),
    ("experiment.holdout", "true", "true and false are no numbers"),
    ("experiment.coverage", "true", "true and false are no numbers"),
]


@pytest.mark.parametrize(("field", "raw", "expected"), LIMITS)
def test_the_message_names_file_field_and_limit(folder: Path, field: str, raw: str, expected: str) -> None:
    path = tuple(int(part) if part.isdigit() else part for part in field.split("."))
    (folder / "welcome.yaml").write_text(written(CAMPAIGN, path, raw))
    try:
        (problem,) = load_configuration(folder)[1]
    finally:
        (folder / "welcome.yaml").write_text(yaml.safe_dump(CAMPAIGN))
    assert (problem.file, problem.field, problem.line) == ("welcome.yaml", field, 1)
    assert expected in problem.fix
    assert len(str(problem)) < 400


ENGINE_LIMITS = [
    ("caps.0.at_most", LONG, "1000000000000"),
    ("caps.0.within", "P100000000D", "36,525 days"),
    ("workspaces.*.pace.per_second", LONG, "1000000000000"),
    ("workspaces.*.pace.per_second", "1e999", "finite"),
    ("workspaces.*.pace.burst", LONG, "1000000000000"),
    ("workspaces.*.pace.warm_up.started", "9999-12-31", "1970-01-01 to before 2200-01-01"),
    ("delivery.remember", "P100000000D", "36,525 days"),
    ("delivery.lease", "P100000000D", "36,525 days"),
    ("delivery.resend_within", "P100000000D", "7 days"),
    ("retailers.*.time_zone", "localtime", "no IANA time zone"),
]


@pytest.mark.parametrize(("field", "raw", "expected"), ENGINE_LIMITS)
def test_engine_yaml_names_field_and_limit(folder: Path, field: str, raw: str, expected: str) -> None:
    path = tuple(int(part) if part.isdigit() else part for part in field.split("."))
    (folder / "engine.yaml").write_text(written(ENGINE, path, raw))
    try:
        (problem,) = load_configuration(folder)[1]
    finally:
        (folder / "engine.yaml").write_text(yaml.safe_dump(ENGINE))
    assert (problem.file, problem.field) == ("engine.yaml", field)
    assert expected in problem.fix


@pytest.mark.parametrize("levels", [20, 100, 200, 400, 3_000])
@pytest.mark.parametrize("kind", ["not", "all"])
def test_an_audience_nested_deeply_is_sound_or_refused(folder: Path, levels: int, kind: str) -> None:
    opening, closing = ("{not: ", "}") if kind == "not" else ("{all: [", "]}")
    node = opening * levels + '"spend > 1"' + closing * levels
    try:
        (folder / "welcome.yaml").write_text(written(CAMPAIGN, ("audience",), node))
        problems = launch(folder)
    finally:
        (folder / "welcome.yaml").write_text(yaml.safe_dump(CAMPAIGN))
    assert len(problems) <= (levels > 20)
    assert problems or levels < 400


def test_whole_numbers_are_decimal_whatever_zeros_lead_them(folder: Path) -> None:
    try:
        (folder / "welcome.yaml").write_text(written(CAMPAIGN, ("offers", 0, "budget"), "010"))
        config, problems = load_configuration(folder)
    finally:
        (folder / "welcome.yaml").write_text(yaml.safe_dump(CAMPAIGN))
    assert problems == []
    assert config is not None
    assert config.campaigns[0].offers[0].budget == 10
