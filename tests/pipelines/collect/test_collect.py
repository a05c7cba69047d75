"""Collect on the built-in engine: raw events of files into the embedded store, each once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from support.collecting import PAST, Collection, any_rows, write_rows

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
