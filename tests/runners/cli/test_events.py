"""`campaigns events`: the types, what one holds, and whether files keep its rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.raw_events import TYPES, any_event, body_of

from connectors.files.sink import FileSink
from runners.cli.main import main

PAST = {"occurred_at": 1_600_000_000_000, "published_at": 1_600_000_000_050}


def asked(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    """What a command answers with --json."""
    assert main(["events", *argv, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command that must be refused says."""
    assert main(["events", *argv]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def write(folder: Path, *rows: dict[str, Any], part: str = "events") -> Path:
    """A file of events of one type and version."""
    event_type = TYPES[rows[0]["type"]]
    bodies = pa.array([body_of(event_type, row) for row in rows], pa.large_binary())
    return Path(FileSink(str(folder)).write(part, event_type.versions[rows[0]["version"]], bodies))


def test_the_types_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "list")
    assert [one["name"] for one in found] == sorted(TYPES)
    assert next(one for one in found if one["name"] == "order_line")["version"] == 2
    assert main(["events", "list"]) == 0
    assert "item_scan         1        availability  store_id, product_id" in capsys.readouterr().out


def test_a_type_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "describe", "order_line")
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["household_id"] == {
        "name": "household_id",
        "kind": "string",
        "nullable": False,
        "since": 1,
        "default": None,
    }
    assert columns["coupon_cents"] == {
        "name": "coupon_cents",
        "kind": "long",
        "nullable": False,
        "since": 2,
        "default": 0,
    }
    assert found["fingerprints"] == list(TYPES["order_line"].fingerprints)
    rules = [(rule["name"], rule["severity"]) for rule in found["rules"]]
    assert {("event_id", "quarantine"), ("key", "quarantine"), ("known_department", "warn")} <= set(rules)
    assert main(["events", "describe", "order_line"]) == 0
    assert "quantity_range       quarantine  quantity must be 0 to 100000" in capsys.readouterr().out


def test_files_are_held_against_their_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "a", *[any_event("order_line", 1, **PAST)] * 3)
    bad = write(
        tmp_path / "b", any_event("session_event", **PAST), *[any_event("session_event", **PAST, action="\x1b[31m")] * 5
    )
    found = asked(capsys, "validate", str(tmp_path / "a"), str(bad), code=1)
    assert found[0] == {
        "file": str(good), "type": "order_line", "events": 3, "accepted": 3, "versions": {"1": 3}, "rejected": {},
        "warned": {}, "samples": {},
    }  # fmt: skip
    assert (found[1]["events"], found[1]["accepted"], found[1]["rejected"]) == (6, 1, {"known_action": 5})
    assert len(found[1]["samples"]["known_action"]) == 3
    assert main(["events", "validate", str(good)]) == 0
    assert "ok     " in capsys.readouterr().out
    assert main(["events", "validate", str(bad)]) == 1
    text = capsys.readouterr().out
    assert "WRONG  " in text
    assert "5  known_action" in text
    assert "\x1b" not in text


def test_all_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.avro").write_text("no Avro")
    (tmp_path / "empty").mkdir()
    schema = {"type": "record", "name": "Other", "fields": []}
    FileSink(str(tmp_path)).write("other", schema, pa.array([b""], pa.large_binary()))
    paths = [str(tmp_path / name) for name in ("no.avro", "empty", "other.avro", "missing.avro")]
    told = refused(capsys, "validate", *paths)
    assert told.startswith("4 mistakes in the input")
    assert all(path in told for path in paths)
    assert "is no version of the event types" in told


def test_names_that_do_not_fit_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean order_line?" in refused(capsys, "describe", "order_lime")
    assert "takes the name of one type" in refused(capsys, "describe")
    assert "takes the name of one type" in refused(capsys, "describe", "item_scan", "order_line")
    assert "takes no name" in refused(capsys, "list", "item_scan")
    assert "takes the files" in refused(capsys, "validate")


def test_a_folder_of_other_types_is_read_and_its_mistakes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "visit").mkdir()
    (tmp_path / "visit" / "1.avsc").write_text("{")
    told = refused(capsys, "list", "--types", str(tmp_path))
    assert "visit/1.avsc" in told
    assert "visit/type.yaml" in told
