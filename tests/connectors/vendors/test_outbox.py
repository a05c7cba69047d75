"""The outbox: files that are there completely, the same on every repeat."""

from __future__ import annotations

from pathlib import Path

import fastavro
import pytest
from support.vendor_calls import any_account, any_call, any_event, kind

from connectors.vendors.outbox import Outbox


@pytest.mark.parametrize("prefix", ["", "file:"])
def test_a_call_is_a_file_of_the_events_as_they_are(tmp_path: Path, prefix: str) -> None:
    call = any_call(any_event(1), any_event(2, experiment=None, expires_at=7, properties={"a": 2.0, "b": True}))
    answer = Outbox().send(any_account(f"{prefix}{tmp_path}/store-1", key=""), call)
    assert kind(answer) == ("sent", None, False)
    assert answer.vendor_id == f"{call.batch_id}.avro"
    with (tmp_path / "store-1" / answer.vendor_id).open("rb") as file:
        read = list(fastavro.reader(file, return_record_name=False))
    for record, event in zip(read, call.events, strict=True):
        assert [record[name] for name in ("event_id", "customer_id", "properties", "experiment")] == [
            event[name] for name in ("event_id", "customer_id", "properties", "experiment")
        ]
        assert record.keys() == event.keys()


def test_the_same_call_again_leaves_the_same_file(tmp_path: Path) -> None:
    account = any_account(str(tmp_path))
    Outbox().send(account, any_call())
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    assert Outbox().send(account, any_call()).kind == "sent"
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [before]


def test_a_folder_that_cannot_be_written_is_a_failure_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    answer = Outbox().send(any_account(f"{tmp_path}/taken/in"), any_call())
    assert kind(answer) == ("failed", "not_written", False)
    assert str(tmp_path) in answer.detail
