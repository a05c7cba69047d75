"""Event types: what comes with the engine loads, versions read each other, mistakes are all found at once."""

from __future__ import annotations

import copy
import io
import json
import pickle
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import fastavro
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_events import TYPES, any_event

from schemas.contracts import parsed, read_record
from schemas.events.event_types import incompatibilities, load_event_types
from schemas.problems import InputError

GOLDEN = Path(__file__).parents[2] / "golden" / "events"
VERSIONS = [(name, number) for name, one in TYPES.items() for number in one.versions]
PAIRS = [(name, writer, reader) for name, writer in VERSIONS for reader in TYPES[name].versions]
ENVELOPE = [
    {"name": "event_id", "type": "string"},
    {"name": "type", "type": "string"},
    {"name": "version", "type": "long"},
    {"name": "occurred_at", "type": "long"},
    {"name": "published_at", "type": "long"},
    {"name": "producer", "type": "string"},
]
YAML = "key: [shop]\nowner: team\nretention: 30d\n"


def a_schema(*fields: dict[str, Any], name: str = "Visit") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [*ENVELOPE, {"name": "shop", "type": "string"}, *fields]}


def a_type(folder: Path, *schemas: Any, text: str = YAML, name: str = "visit") -> Path:
    """The folder of one type."""
    (folder / name).mkdir(parents=True)
    for number, schema in enumerate(schemas, 1):
        (folder / name / f"{number}.avsc").write_text(schema if isinstance(schema, str) else json.dumps(schema))
    (folder / name / "type.yaml").write_text(text)
    return folder


def mistakes(folder: Path) -> list[tuple[str, str]]:
    """(file, field) of each mistake in a folder."""
    with pytest.raises(InputError) as caught:
        load_event_types(folder)
    return [(problem.file, problem.field) for problem in caught.value.problems]


def golden(name: str, version: int) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a released version, and what they say."""
    place = GOLDEN / f"{name}_{version}"
    assert place.with_suffix(".hex").exists(), f"no golden bytes: python -m support.golden_events {name} {version}"
    return bytes.fromhex(place.with_suffix(".hex").read_text()), json.loads(place.with_suffix(".json").read_text())


@pytest.mark.parametrize(("name", "writer", "reader"), PAIRS)
def test_what_a_version_wrote_is_read_with_every_other_one(name: str, writer: int, reader: int) -> None:
    event_type = TYPES[name]
    body, record = golden(name, writer)
    read = read_record(event_type.versions[writer], event_type.versions[reader], body, name)
    defaults = {one: column.default[0] for one, column in event_type.fields.items() if column.default}
    columns = [field["name"] for field in event_type.versions[reader]["fields"]]
    assert read == {column: record.get(column, defaults.get(column)) for column in columns}


@pytest.mark.parametrize(("name", "version"), VERSIONS)
def test_golden_records_are_written_again_byte_for_byte(name: str, version: int) -> None:
    body, record = golden(name, version)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, TYPES[name].versions[version], record)
    assert out.getvalue() == body
    assert record["version"] == version


@pytest.mark.parametrize(("name", "writer", "reader"), PAIRS)
def test_all_versions_are_compatible_both_ways(name: str, writer: int, reader: int) -> None:
    versions = TYPES[name].versions
    assert writer == reader or incompatibilities(versions[writer], versions[reader]) == []


def test_the_engine_comes_with_these_types() -> None:
    assert set(TYPES) == {
        "order_line", "campaign_sent", "coupon_redeemed", "item_scan", "session_event", "card_attempt",
        "delivery_receipt",
    }  # fmt: skip
    assert any(one.newest > 1 for one in TYPES.values())
    again = pickle.loads(pickle.dumps(TYPES["order_line"]))
    assert again.columns == TYPES["order_line"].columns
    assert TYPES["item_scan"].key == ("store_id", "product_id")
    assert TYPES["order_line"].retention_ms == 400 * 86_400_000


OLD = a_schema({"name": "amount", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": None})
SAME = OLD["fields"][7:]
CHANGES = {
    "a new field without default": (a_schema(*SAME, {"name": "extra", "type": "string"}), "extra"),
    "a field without default is gone": (a_schema(SAME[1]), "amount"),
    "long to double": (a_schema({"name": "amount", "type": "double"}, SAME[1]), "amount"),
    "long to string": (a_schema({"name": "amount", "type": "string"}, SAME[1]), "amount"),
    "now nullable": (a_schema({"name": "amount", "type": ["null", "long"]}, SAME[1]), "amount"),
    "no longer nullable": (a_schema(SAME[0], {"name": "note", "type": "string", "default": ""}), "note"),
    "another name": (a_schema(*SAME, name="Call"), "name"),
    "the same again": (OLD, "fields"),
}


@pytest.mark.parametrize(("new", "field"), CHANGES.values(), ids=CHANGES)
def test_a_version_that_is_not_fully_compatible_is_refused(new: Any, field: str, tmp_path: Path) -> None:
    for one, other in ((OLD, new), (new, OLD)):
        assert [found for found, _, _ in incompatibilities(parsed(one), parsed(other))] == [field]
    assert mistakes(a_type(tmp_path, OLD, new)) == [("visit/2.avsc", field)]


def test_a_version_is_held_against_every_earlier_one(tmp_path: Path) -> None:
    """2 drops a field that has a default, 3 brings it back as something else."""
    first = a_schema({"name": "note", "type": "string", "default": ""})
    third = a_schema({"name": "note", "type": "long", "default": 0})
    assert mistakes(a_type(tmp_path, first, a_schema(), third)) == [("visit/3.avsc", "note")]


def test_fields_with_defaults_come_and_go(tmp_path: Path) -> None:
    newer = a_schema({"name": "amount", "type": "long", "default": 3})
    types = load_event_types(
        a_type(tmp_path, a_schema(), newer, a_schema({"name": "late", "type": "boolean", "default": False}))
    )
    assert types["visit"].newest == 3
    assert types["visit"].columns["late"] == "boolean"


FLAWS = {
    "a list": (a_schema({"name": "tags", "type": {"type": "array", "items": "string"}}), "tags"),
    "a union of two": (a_schema({"name": "amount", "type": ["long", "string"]}), "amount"),
    "an int": (a_schema({"name": "amount", "type": "int"}), "amount"),
    "a default that does not fit": (a_schema({"name": "amount", "type": "long", "default": True}), "amount"),
    "a name with a blank": (a_schema({"name": "a b", "type": "long"}), "fields.7.name"),
    "a name that is a number": (a_schema({"name": 5, "type": "long"}), "fields.7.name"),
    "without producer": ({**a_schema(), "fields": a_schema()["fields"][:5]}, "producer"),
    "the envelope in another order": ({**a_schema(), "fields": a_schema()["fields"][::-1]}, "fields"),
    "no JSON": ("{", ""),
    "no record": ('"string"', "type"),
    "no schema": ('{"type": "record"}', ""),
}


@pytest.mark.parametrize(("schema", "field"), FLAWS.values(), ids=FLAWS)
def test_a_schema_that_is_none_of_a_flat_event_is_refused(schema: Any, field: str, tmp_path: Path) -> None:
    assert mistakes(a_type(tmp_path, schema)) == [("visit/1.avsc", field)]


RULES = {
    "{name: a, rule: range, column: shop, least: 1}": "rules.0.column",
    "{name: a, rule: range, column: amount}": "rules.0.least",
    "{name: a, rule: range, column: amount, least: 3, most: 2}": "rules.0.least",
    "{name: a, rule: range, column: missing, least: 1}": "rules.0.column",
    "{name: a, rule: set, column: shop, values: [1]}": "rules.0.values",
    "{name: a, rule: set, column: amount, values: [9223372036854775808]}": "rules.0.values",
    "{name: a, rule: set, column: amount, values: [a]}": "rules.0.values",
    "{name: a, rule: set, column: shop, values: []}": "rules.0.values",
    '{name: a, rule: regex, column: shop, pattern: "("}': "rules.0.pattern",
    "{name: a, rule: reference, column: shop, file: none.txt}": "rules.0.file",
    "{name: a, rule: reference, column: shop, file: ../x}": "rules.0.file",
    "{name: a, rule: lateness, most: soon}": "rules.0.most",
    "{name: a, rule: compare, column: amount, comparison: <, other: shop}": "rules.0.other",
    "{name: a, rule: compare, column: amount, comparison: <, other: missing}": "rules.0.other",
    "{name: a, rule: not_null, column: shop, severity: ignore}": "rules.0.severity",
    "{name: A, rule: not_null, column: shop}": "rules.0.name",
    "{name: a, rule: none, column: shop}": "rules.0",
    "{name: a, rule: not_null, column: shop, most: 1}": "rules.0.most",
}


@pytest.mark.parametrize(("rule", "field"), RULES.items())
def test_a_rule_that_does_not_fit_is_refused_with_its_place(rule: str, field: str, tmp_path: Path) -> None:
    schema = a_schema({"name": "amount", "type": "long"})
    assert mistakes(a_type(tmp_path, schema, text=f"{YAML}rules:\n  - {rule}\n")) == [("visit/type.yaml", field)]


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    text = "key: [nobody]\nretention: long\nrules:\n  - {name: a, rule: not_null, column: x}\n"
    a_type(tmp_path, a_schema(), "{", text=text)
    a_type(tmp_path, a_schema({"name": "amount", "type": "int"}), text=YAML + "time: shop\n", name="walk")
    a_type(tmp_path, a_schema(name="Run"), text=f"{YAML}time: shop\nkey2: 1\n", name="run")
    rules = "".join(f"  - {{name: a, rule: not_null, column: {column}}}\n" for column in ("shop", "x"))
    a_type(tmp_path, a_schema(name="Swim"), text=f"{YAML}rules:\n{rules}", name="swim")
    assert set(mistakes(tmp_path)) == {
        ("visit/2.avsc", ""), ("visit/type.yaml", "owner"), ("visit/type.yaml", "retention"),
        ("walk/1.avsc", "amount"), ("run/type.yaml", "key2"),
        ("swim/type.yaml", "rules.1.name"), ("swim/type.yaml", "rules.1.column"),
    }  # fmt: skip


def test_two_types_with_one_schema_are_refused(tmp_path: Path) -> None:
    a_type(tmp_path, a_schema())
    assert mistakes(a_type(tmp_path, a_schema(), name="walk")) == [("walk/1.avsc", "")]


@pytest.mark.parametrize("names", [["2.avsc"], ["1.avsc", "3.avsc"], ["1.avsc", "01.avsc"], ["1.avsc", "new.avsc"], []])
def test_versions_are_numbered_without_a_gap(names: list[str], tmp_path: Path) -> None:
    a_type(tmp_path)
    for place, name in enumerate(names):
        more = [{"name": f"f{number}", "type": "long", "default": 0} for number in range(place)]
        (tmp_path / "visit" / name).write_text(json.dumps(a_schema(*more)))
    assert len(mistakes(tmp_path)) == 1


@pytest.mark.parametrize("data", [b"", b" \n\n", b"\xff"])
def test_a_list_that_cannot_be_used_is_refused(data: bytes, tmp_path: Path) -> None:
    text = f"{YAML}rules:\n  - {{name: a, rule: reference, column: shop, file: shops.txt}}\n"
    a_type(tmp_path, a_schema(), text=text)
    (tmp_path / "visit" / "shops.txt").write_bytes(data)
    assert mistakes(tmp_path) == [("visit/type.yaml", "rules.0.file")]


def test_a_folder_without_types_is_refused(tmp_path: Path) -> None:
    assert mistakes(tmp_path) == [(str(tmp_path), "")]
    assert mistakes(tmp_path / "missing") == [(str(tmp_path / "missing"), "")]


ODD: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]) | st.just({})
)
ODD_YAML = ODD | st.lists(ODD, max_size=2) | st.dictionaries(st.text(max_size=5), ODD, max_size=2)
GOOD_RULES = [yaml.safe_load(rule) for rule in RULES]


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_whatever_stands_in_the_files_there_is_a_list_of_mistakes_or_a_type(data: st.DataObject) -> None:
    rules = [{**one} for one in data.draw(st.lists(st.sampled_from(GOOD_RULES), max_size=2))]
    written = {"key": ["shop"], "owner": "team", "retention": "30d", "rules": rules}
    schema = copy.deepcopy(a_schema({"name": "amount", "type": "long"}))
    for target in (written, *rules, schema, *schema["fields"]):
        if data.draw(st.integers(0, 3)) == 0:
            target[data.draw(st.sampled_from([*target, "name", "default"]))] = data.draw(ODD_YAML)
    with tempfile.TemporaryDirectory() as name:
        a_type(Path(name), schema, text=yaml.safe_dump(written))
        with suppress(InputError):
            assert load_event_types(name)["visit"].columns


def test_every_built_in_sample_says_its_version() -> None:
    assert all(any_event(name, number)["version"] == number for name, number in VERSIONS)
