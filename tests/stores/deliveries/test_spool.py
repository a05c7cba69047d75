"""The spool: messages of a broker stay there until they are settled, also after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.problems import JobError
from schemas.transport import Envelope, Poll
from stores.deliveries.spool import Spool, SpooledReader, SpoolReader

ROOT = Path(__file__).parents[3]
ENVELOPES = st.builds(
    Envelope, st.text(max_size=5), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    st.binary(max_size=20), st.integers(0, 1 << 60),
)  # fmt: skip


def any_envelopes(*names: str) -> list[Envelope]:
    return [Envelope(name, {"event_id": name}, b"\0\xff" + name.encode(), 7) for name in names]


class Polls:
    """A reader whose polls are given."""

    def __init__(self, *polls: Poll) -> None:
        self.polls, self.committed = list(polls), list[Any]()

    def open(self) -> None:
        self.opened = True

    def close(self) -> None:
        self.opened = False

    def poll(self, most: int) -> Poll:
        return self.polls.pop(0)

    def commit(self, handle: Any) -> None:
        self.committed.append(handle)

    def oldest(self) -> float:
        return 12.5


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENVELOPES, max_size=4))
def test_a_written_poll_is_read_back(tmp_path: Path, envelopes: list[Envelope]) -> None:
    spool = Spool(tmp_path)
    assert spool.read(spool.write(envelopes)) == envelopes


def test_a_poll_is_on_disk_before_it_is_returned(tmp_path: Path) -> None:
    poll = Poll(any_envelopes("a", "b"), "handle")
    inner, spool = Polls(poll, Poll([], done=True)), Spool(tmp_path / "new")
    reader = SpooledReader(inner, spool)
    reader.open()
    assert reader.poll(10) == poll._replace(source_resumes=True)
    assert [spool.read(path) for path in spool.files()] == [poll.envelopes]
    assert reader.poll(10).done
    assert len(spool.files()) == 1
    reader.commit("handle")
    assert inner.committed == ["handle"]
    assert reader.oldest() == 12.5


def test_files_of_an_earlier_run_are_read_oldest_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for names in ("ab", "c", "def"):
        spool.write(any_envelopes(*names))
    reader = SpoolReader(spool, spool.files())
    spool.write(any_envelopes("later"))
    reader.open()
    polls = [reader.poll(2), reader.poll(2)]
    assert ["".join(envelope.message_id for envelope in poll.envelopes) for poll in polls] == ["ab", "cdef"]
    assert [poll.done for poll in polls] == [False, True]
    reader.open()
    assert len(reader.poll(100).envelopes) == 6


def test_a_file_swept_in_between_is_skipped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    paths = [spool.write(any_envelopes(name)) for name in "ab"]
    reader = SpoolReader(spool, paths)
    reader.open()
    paths[0].unlink()
    assert reader.poll(10) == Poll(any_envelopes("b"), done=True)


def test_an_empty_spool_is_done_at_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "not there")
    reader = SpoolReader(spool, spool.files())
    reader.open()
    assert reader.poll(10) == Poll([], done=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
        lambda data: b"SPOOL2" + data[6:],
        lambda data: data[:7] + b"\0\0\0" + data[10:],
    ],
    ids=["empty", "head", "cut", "longer", "a bit", "another version", "checksum"],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any) -> None:
    spool = Spool(tmp_path)
    path = spool.write(any_envelopes("a", "b"))
    path.write_bytes(damage(path.read_bytes()))
    for read in (lambda: spool.read(path), lambda: spool.sweep(lambda some: True, time.time() + 1)):
        with pytest.raises(JobError, match=rf"{path.name} is damaged\. Restore it, or move it away"):
            read()
    assert path.exists()


def test_only_files_that_are_old_and_settled_are_swept(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    kept, gone = spool.write(any_envelopes("open", "settled")), spool.write(any_envelopes("settled"))
    young = spool.write(any_envelopes("settled"))
    until = (int(gone.name[:20]) + int(young.name[:20])) / 2 / 1e9
    settled = lambda some: all(one.message_id == "settled" for one in some)  # noqa: E731
    assert spool.sweep(settled, until) == 1
    assert spool.files() == [kept, young]
    assert not gone.exists()
    assert spool.sweep(settled, time.time() + 1) == 1
    assert spool.files() == [kept]


def test_a_kill_in_the_middle_of_writing_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from schemas.transport import Envelope\n"
        "from stores.deliveries.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]))\n"
        "spool.write([Envelope('whole', {}, b'x', 0)])\n"
        "def stop(handle):\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "os.fsync = stop\n"
        "spool.write([Envelope('half', {}, b'y' * 100_000, 0)])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    spool = Spool(tmp_path)
    assert len(os.listdir(tmp_path)) == 2  # the half one is there, under a name that nobody reads
    assert [[one.message_id for one in spool.read(path)] for path in spool.files()] == [["whole"]]


def test_a_poll_of_the_spool_ends_by_its_bytes(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for name in "abcdef":
        spool.write([Envelope(name, {}, bytes(1_500_000), 0)])
    reader = SpoolReader(spool, spool.files())
    reader.open()
    assert [len(reader.poll(5_000).envelopes) for _ in range(2)] == [3, 3]
