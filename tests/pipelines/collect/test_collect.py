"""Collect on the built-in engine: raw events of files into the embedded store, each once."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import fastavro
import pyarrow as pa
import pytest
from support.collecting import PAST, Collection, any_rows, write_rows
from support.logs import any_log, stored_when_published
from support.raw_events import TYPES

from bench.deliveries import ROOT
from connectors.files.sink import FileSink
from connectors.log.scan import Bounds, bounds
from runners.cli.main import main
from stores.events.fuse import read_fuse

pytestmark = pytest.mark.usefixtures("built_in")


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path)


def test_events_of_several_types_are_stored_once_each_by_entity_and_a_second_run_adds_only_what_is_new(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, scans = any_rows("order_line", 400), any_rows("item_scan", 100)
    write_rows(collection.raw, "a", lines)
    write_rows(collection.raw, "b", scans)
    write_rows(collection.raw, "c", lines[:50])
    assert collection.run("--drain", "--partitions=4") == 0
    assert collection.stored("order_line") == Counter(row["event_id"] for row in lines)
    assert collection.stored("item_scan") == Counter(row["event_id"] for row in scans)
    out = capsys.readouterr().out
    counts = {line.rsplit(None, 1)[0].strip(): line.rsplit(None, 1)[1] for line in out.splitlines()}
    assert (counts["read"], counts["appended"], counts["repeats"]) == ("550", "500", "50")
    assert (counts["quarantined"], counts["dropped"], counts["warned"]) == ("0", "0", "0")
    write_rows(collection.raw, "d", any_rows("order_line", 30, start=390))
    assert collection.run("--drain", "--partitions=4") == 0
    assert collection.stored("order_line") == Counter(f"order_line-{number}" for number in range(420))
    places: dict[bytes, set[str]] = {}
    for event in collection.events("order_line"):
        key = event.body.split(b"k-")[1][:2]
        places.setdefault(key, set()).add(event.message_id.partition(":")[0])
    assert all(len(partitions) == 1 for partitions in places.values()), "an entity has one partition"
    assert {event.published_at for event in collection.events("order_line")} == {PAST + 10}
    assert collection.quarantined() == {}


def _types(folder: Path, **changes: str) -> Path:
    """The event types of the engine in a folder, with other text in order_line's type.yaml."""
    if not folder.exists():
        shutil.copytree(ROOT / "schemas/avro/events", folder)
    path = folder / "order_line/type.yaml"
    text = (ROOT / "schemas/avro/events/order_line/type.yaml").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return folder


def test_what_breaks_a_rule_is_kept_with_its_bytes_and_comes_in_after_the_rule_is_corrected(
    collection: Collection, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    types = _types(collection.root / "types", **{"most: 100000}": "most: 6}"})
    write_rows(
        collection.raw, "a", any_rows("order_line", 60, quantity=7) + any_rows("order_line", 60, start=60, quantity=1)
    )
    write_rows(collection.raw, "b", any_rows("item_scan", 5))
    assert collection.run("--drain", f"--types={types}", "--most_quarantined=0.3") == 0
    assert collection.stored("order_line") == Counter(f"order_line-{number}" for number in range(60, 120))
    assert collection.quarantined() == {"order_line": 60}
    letters = collection.letters("order_line")
    assert {(letter.step, letter.reason) for letter in letters} == {("Collect", "quantity_range")}
    assert all(b"order_line-" in letter.data for letter in letters)
    fuse = read_fuse(collection.store, "order_line")
    assert fuse is not None
    assert fuse.reason == "50% of 120 events are in quarantine, 60 by quantity_range"
    assert "order_line is suspect, its features count as stale from now on: 50% of 120" in caplog.text
    assert read_fuse(collection.store, "item_scan") is None
    assert "quarantined/order line/2/quantity range" in capsys.readouterr().out

    store = f"file:{collection.store}"
    assert main(["quarantine", "show", store, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(one["type"], one["version"], one["rule"], one["events"]) for one in shown["kept"]] == [
        ("order_line", 2, "quantity_range", 60)
    ]
    assert list(shown["fuses"]) == ["order_line"]

    assert main(["quarantine", "replay", store, f"--types={types}"]) == 0
    assert collection.quarantined() == {"order_line": 60}, "nothing was corrected"
    assert main(["quarantine", "replay", store, "--rule=late"]) == 2
    _types(types)
    before = {path: path.read_bytes() for path in collection.store.glob("*/quarantine/*")}
    assert main(["quarantine", "replay", store, f"--types={types}", "--rule=quantity_range"]) == 0
    assert "60 events appended, 0 were in the store already" in capsys.readouterr().out
    assert collection.quarantined() == {"order_line": 0}
    for path, data in before.items():  # as if the command had been killed before it took the letters away
        path.write_bytes(data)
    assert main(["quarantine", "replay", store, f"--types={types}"]) == 0
    assert "0 events appended, 60 were in the store already" in capsys.readouterr().out
    assert collection.stored("order_line") == Counter(f"order_line-{number}" for number in range(120))


def test_broken_bytes_a_foreign_schema_and_ten_megabytes_are_kept_and_hold_up_nothing(collection: Collection) -> None:
    rows = any_rows("order_line", 20)
    write_rows(collection.raw, "a", rows)
    foreign = fastavro.parse_schema({"type": "record", "name": "Other", "fields": [{"name": "x", "type": "string"}]})
    with (collection.raw / "b.avro").open("wb") as file:
        fastavro.writer(file, foreign, [{"x": "y"}] * 3)
    write_rows(
        collection.raw,
        "c",
        any_rows("session_event", 1) + any_rows("session_event", 1, start=1, producer="x" * 10_000_000),
    )
    broken = pa.array([b"\xff" * 40, b""], pa.large_binary())
    FileSink(str(collection.raw)).write("d", TYPES["order_line"].versions[2], broken)
    write_rows(collection.raw, "e", any_rows("order_line", 5, start=20, version=1, occurred_at=1 << 60))
    write_rows(collection.raw, "f", any_rows("order_line", 5, start=20))
    assert collection.run("--drain") == 0
    assert collection.stored("order_line") == Counter(f"order_line-{number}" for number in range(25))
    assert collection.count("session_event") == 1
    reasons = {name: Counter(letter.reason for letter in collection.letters(name)) for name in collection.quarantined()}
    assert reasons["_unknown"] == {"unknown_version": 3}
    assert reasons["session_event"] == {"over_size": 1}
    assert set(reasons["order_line"]) == {"broken_bytes", "time"}
    (large,) = collection.letters("session_event")
    assert len(large.data) > 10_000_000
    assert (
        b"".join(letter.data for letter in collection.letters("order_line") if letter.reason == "broken_bytes")
        == b"\xff" * 40
    )


def test_the_events_of_a_type_are_shown_from_a_time_on(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        *any_rows("order_line", 3),
        *any_rows("order_line", 3, start=3, published_at=PAST + 60_000, department=None),
    ]
    write_rows(collection.raw, "a", rows)
    assert collection.run("--drain") == 0
    capsys.readouterr()
    tail = ["events", "tail", f"file:{collection.store}", "order_line", "--idle=0"]
    assert main([*tail, "--from=2023-11-14T22:13:30Z"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(event["event_id"] for event in shown) == ["order_line-3", "order_line-4", "order_line-5"]
    assert {event["published_at"] for event in shown} == {"2023-11-14T22:14:20.000+00:00"}
    assert {event["department"] for event in shown} == {None}
    assert all(":" in event["position"] and event["quantity"] == 7 for event in shown)
    assert main(tail) == 0
    assert capsys.readouterr().out == "", "nothing comes from now on"
    assert main(["events", "tail", f"file:{collection.root}", "order_lime", "--from=yesterday"]) == 2
    assert main(["events", "tail", f"file:{collection.root}", "order_lime"]) == 2
    assert main(["events", "tail", f"file:{collection.root}", "order_line"]) == 2
    err = capsys.readouterr().err
    assert "write a time with its zone" in err
    assert "did you mean order_line?" in err
    assert "has no log of this type" in err


def test_mistakes_are_told_all_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--store=kafka:localhost:1/events", "--source=file:", "--idle=-1", "--partitions=0"]) == 2
    err = capsys.readouterr().err
    for text in ("names no folder", "--output", "--idle", "--partitions", "4 mistakes"):
        assert text in err
    (tmp_path / "types/t").mkdir(parents=True)
    assert (
        main(["collect", f"--store=file:{tmp_path}", f"--source=file:{tmp_path}", f"--types={tmp_path / 'types'}"]) == 2
    )
    err = capsys.readouterr().err
    assert "is the store as well" in err
    assert "t/type.yaml" in err
    assert main(["collect", f"--store=file:{tmp_path}", f"--source=file:{tmp_path / 'raw'}", "--campaigns=x"]) == 2
    assert "is an option of `campaigns" in capsys.readouterr().err
    assert main(["quarantine", "show", f"file:{tmp_path / 'none'}"]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_a_folder_of_folders_with_events_is_refused_and_the_folders_are_named(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(collection.raw / "order_line", "part", any_rows("order_line", 2))
    assert collection.run("--drain", "--on=direct") == 2
    assert f"--source file:{collection.raw}/order_line" in capsys.readouterr().err
    assert collection.run(f"--source=file:{collection.raw}/order_line", "--drain", "--on=direct") == 0
    assert len(collection.events("order_line")) == 2


def test_a_store_keeps_its_partitions_and_refuses_another_number(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(collection.raw, "a", any_rows("order_line", 20))
    assert collection.run("--drain", "--partitions=3") == 0
    write_rows(collection.raw, "b", any_rows("order_line", 20, start=20))
    assert collection.run("--drain", "--partitions=4") == 2
    assert "the log has 3 partitions" in capsys.readouterr().err
    assert collection.run("--drain") == 0
    assert collection.count("order_line") == 40


def test_what_is_older_than_its_retention_is_deleted_at_the_start(collection: Collection) -> None:
    with any_log(collection.store / "order_line", 8, retention_ms=1, segment_bytes=1) as writer:
        for number in range(3):
            writer.append(0, [b"old"], [number])
    stored_when_published(collection.store / "order_line", 0)
    write_rows(collection.raw, "a", any_rows("item_scan", 1))
    assert collection.run("--drain") == 0
    assert bounds(collection.store / "order_line", 0) == Bounds(2, 3)
