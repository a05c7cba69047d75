"""Reading a launch's files: as the messages that it would have published, or a clear word about what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from support.containers import block, write_container
from support.wire_events import ARRIVED, MARK, body_of

from connectors.files import reader as file_reader
from connectors.files.reader import FileReader, list_files
from connectors.files.sink import FileSink
from schemas.codec.varints import zigzag
from schemas.contracts import DeadLetter, released, schema
from schemas.delivery import Message
from schemas.problems import JobError
from schemas.transport import Envelope, Poll
from transforms.delivery.decode_events import read_envelope


def put(folder: Path, part: str, *numbers: int, **event: Any) -> Path:
    """A launch's file with these events."""
    bodies = pa.array([body_of(number, **event) for number in numbers], pa.large_binary())
    return Path(FileSink(str(folder)).write(part, schema("campaign_event"), bodies))


def foreign(path: Path, fields: dict[str, str], record: dict[str, Any]) -> None:
    """An Avro file of somebody else."""
    avro = {"type": "record", "name": "R", "fields": [{"name": n, "type": t} for n, t in fields.items()]}
    with path.open("wb") as file:
        fastavro.writer(file, avro, [record])


def opened(folder: Path | str, **options: Any) -> FileReader:
    reader = FileReader(str(folder), **options)
    reader.open()
    return reader


def read(reader: FileReader, most: int = 100) -> list[Envelope]:
    """All that comes until the reader is done."""
    got: list[Envelope] = []
    while True:
        poll = reader.poll(most)
        assert len(poll.envelopes) <= most
        got += poll.envelopes
        if poll.done:
            return got


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_launchs_events_come_as_it_would_publish_them(tmp_path: Path, codec: str) -> None:
    bodies = [body_of(number, emitted_at=77) for number in (1, 2)]
    write_container(tmp_path / "launch-1-part-0.avro", [block(*bodies, codec=codec)], codec=codec)
    one, two = read(opened(f"{tmp_path}/"))
    ids = {"event_id": f"{1:032x}", "retailer_id": "store-1", "campaign_id": "welcome", "launch_id": "launch-1"}
    assert one == Envelope("launch-1-part-0.avro:0", {"schema": MARK, **ids}, body_of(1, emitted_at=77), 77)
    assert two.message_id == "launch-1-part-0.avro:1"
    assert all(isinstance(read_envelope(envelope, ARRIVED), Message) for envelope in (one, two))


def test_polls_go_over_the_ends_of_files_and_lose_nothing(tmp_path: Path) -> None:
    for part in range(5):
        put(tmp_path, f"part-{part}", *range(part * 3, part * 3 + 3))
    put(tmp_path, "part-2-empty")
    for most in (1, 2, 7, 15, 100):
        assert [int(one.attributes["event_id"], 16) for one in read(opened(tmp_path), most)] == list(range(15))


def test_files_of_a_released_version_keep_its_bytes_and_its_mark(tmp_path: Path) -> None:
    records = list(fastavro.reader(put(tmp_path, "now", 1).open("rb")))
    for version, avro in enumerate(released(), 1):
        folder = tmp_path / str(version)
        folder.mkdir()
        with (folder / "old.avro").open("wb") as file:
            fastavro.writer(file, avro, records, codec="deflate")
        (one,) = read(opened(folder))
        made = read_envelope(one, ARRIVED)
        assert isinstance(made, Message)
        assert made.event_id == f"{1:032x}"


def test_several_readers_share_the_files(tmp_path: Path) -> None:
    for part in range(12):
        put(tmp_path, f"part-{part:02}", part)
    shares = [read(opened(tmp_path, index=index, readers=3)) for index in range(3)]
    assert all(shares)
    assert sorted(one.message_id for share in shares for one in share) == [f"part-{n:02}.avro:0" for n in range(12)]


def test_a_followed_folder_gives_new_files_and_is_never_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "_LOOK_EVERY_S", 0.0)
    stopped: list[bool] = []
    folder = tmp_path / "not there yet"
    reader = opened(folder, follow=True, stop=lambda: bool(stopped))
    assert reader.poll(10) == Poll([])
    for number in range(3):
        put(folder, f"part-{number}", number)
        poll = reader.poll(10)
        assert [one.attributes["event_id"] for one in poll.envelopes] == [f"{number:032x}"]
        assert not poll.done
    assert reader.poll(10).envelopes == []
    stopped.append(True)
    put(folder, "part-9", 9)
    assert reader.poll(10) == Poll([], done=True)


def test_a_folder_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    def look(folder: str) -> list[str]:
        looks.append(folder)
        return []

    monkeypatch.setattr(file_reader, "list_files", look)
    reader = opened(tmp_path, follow=True)
    for _ in range(5):
        reader.poll(10)
    assert len(looks) == 1


def test_only_finished_files_count(tmp_path: Path) -> None:
    put(tmp_path, "part-0", 1)
    (tmp_path / ".part-1.avro").write_bytes(b"half")
    (tmp_path / ".part-1.avro.0123.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("notes")
    assert list_files(str(tmp_path)) == [str(tmp_path / "part-0.avro")]
    assert len(read(opened(tmp_path))) == 1
    assert read(opened(tmp_path / "nowhere")) == []


def test_files_stay_and_come_again_after_a_restart(tmp_path: Path) -> None:
    put(tmp_path, "part-0", 1, 2)
    reader = opened(tmp_path)
    before = reader.poll(1)
    reader.commit(before.handle)
    assert len(read(opened(tmp_path))) == 2


@pytest.mark.parametrize("cut", [1, 8, 200, -5, -20], ids=str)
def test_a_file_that_breaks_off_is_named_and_nothing_goes_on_behind_it(tmp_path: Path, cut: int) -> None:
    broken = put(tmp_path, "part-0", *range(10))
    put(tmp_path, "part-1", 10)
    broken.write_bytes(broken.read_bytes()[:cut])
    reader = opened(tmp_path)
    for _ in range(2):
        with pytest.raises(JobError, match=r"part-0\.avro cannot be read .*\. Take the file away, or write it"):
            reader.poll(100)


def test_what_stands_before_the_break_may_come_first(tmp_path: Path) -> None:
    path = put(tmp_path, "part-0", *range(30), trace="x" * 100_000)  # two blocks
    path.write_bytes(path.read_bytes()[:-100])
    reader = opened(tmp_path)
    assert len(reader.poll(5).envelopes) == 5
    with pytest.raises(JobError, match=r"part-0\.avro cannot be read"):
        read(reader)


@pytest.mark.parametrize("data", [b"", b"event_id,retailer_id\n1,2\n", b"Obj\x01" + b"\xff" * 50])
def test_a_file_that_is_no_container_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "part-0.avro").write_bytes(data)
    with pytest.raises(JobError, match=r"part-0\.avro cannot be read .*Take the file away"):
        opened(tmp_path).poll(10)


@pytest.mark.parametrize(
    ("fields", "record", "reason"),
    [
        ({"a": "string"}, {"a": "b"}, "missing_attributes"),
        ({"event_id": "string", "retailer_id": "string"}, {"event_id": "1", "retailer_id": "2"}, "unknown_schema"),
        ({"event_id": "long", "emitted_at": "string"}, {"event_id": 1, "emitted_at": "x"}, "missing_attributes"),
    ],
)
def test_records_of_somebody_else_become_dead_letters_that_show_them(
    tmp_path: Path, fields: dict[str, str], record: dict[str, Any], reason: str
) -> None:
    foreign(tmp_path / "foreign.avro", fields, record)
    put(tmp_path, "own", 1)
    one, own = read(opened(tmp_path))
    made = read_envelope(one, ARRIVED)
    assert isinstance(made, DeadLetter)
    own_bytes = b"".join(
        zigzag(len(one)) + one.encode() if isinstance(one, str) else zigzag(one) for one in record.values()
    )
    assert (made.reason, made.data) == (reason, own_bytes)
    assert '"name": "R"' in made.detail
    assert isinstance(read_envelope(own, ARRIVED), Message)


def test_a_poll_of_large_events_ends_by_its_bytes(tmp_path: Path) -> None:
    put(tmp_path, "part-0", *range(20), properties={"text": "x" * 500_000})
    reader = FileReader(str(tmp_path))
    reader.open()
    sizes = []
    while not (poll := reader.poll(5_000)).done:
        sizes.append(len(poll.envelopes))
    assert sizes == [9, 9]
    assert len(poll.envelopes) == 2
