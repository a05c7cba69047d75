"""The log after kill -9, a torn tail, a damaged file and a full disk: whole batches only, and none lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.disks import fill, small_disk
from support.logs import any_log, event_id, log_reader, poll_all, scanned

from connectors.log.segments import list_segments
from schemas.problems import JobError

KILLS = 5
WRITE = """
import sys
from pathlib import Path
from connectors.log.writer import LogWriter

with LogWriter(Path(sys.argv[1]), segment_bytes=400_000) as writer:
    for number in range(int(sys.argv[2]), 1 << 30):
        many = 1 + number % 7 * 40
        body = number.to_bytes(4, "big") * (1 + number % 300)
        ids = b"".join((number * 1000 + one).to_bytes(16, "big") for one in range(many))
        writer.append(0, [body] * many, [number] * many, {"number": str(number)}, ids)
        print(number, flush=True)
"""


def _batches(folder: Path) -> list[tuple[int, int]]:
    """(number, events) of every batch; each is whole."""
    counts: dict[int, int] = {}
    for envelope in poll_all(log_reader(folder), 0):
        number = envelope.published_at
        assert envelope.body == number.to_bytes(4, "big") * (1 + number % 300)
        counts[number] = counts.get(number, 0) + 1
    return list(counts.items())


def test_a_writer_that_is_killed_again_and_again_loses_nothing_and_leaves_no_part_of_a_batch(tmp_path: Path) -> None:
    any_log(tmp_path, 1).close()
    chance, next_number = random.Random(7), 0
    for _ in range(KILLS):
        command = [sys.executable, "-c", WRITE, str(tmp_path), str(next_number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            done = -1
            for _ in range(chance.randrange(1, 120)):
                done = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            done = max([done, *map(int, process.stdout.read().split("\n")[:-1])])
        batches = _batches(tmp_path)
        assert batches == [(number, 1 + number % 7 * 40) for number in range(len(batches))]
        assert len(batches) >= done + 1, "what was acknowledged is there"
        next_number = max(0, done - 3)  # the next one sends again what may have been lost
    positions = [int(one.message_id.partition(":")[2]) for one in poll_all(log_reader(tmp_path), 0)]
    assert positions == list(range(len(positions)))
    assert len(list_segments(tmp_path, 0)) > 3


def test_two_writers_at_once_leave_every_event_once(tmp_path: Path) -> None:
    any_log(tmp_path, 1).close()
    commands = [[sys.executable, "-c", WRITE, str(tmp_path), "0"]] * 2
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 60:
            pass
    for process in processes:
        process.kill()
        process.communicate()
    batches = _batches(tmp_path)
    assert len(batches) > 60
    assert batches == [(number, 1 + number % 7 * 40) for number in range(len(batches))]


def test_a_last_batch_that_is_cut_at_any_byte_is_not_seen_and_the_next_writer_goes_on_in_its_place(
    tmp_path: Path,
) -> None:
    with any_log(tmp_path, 1) as writer:
        writer.append(0, [b"a", b"bb"], [1, 2])
        (segment,) = list_segments(tmp_path, 0)
        before = segment.path.stat().st_size
        writer.append(0, [b"ccc", b"dddd"], [3, 4], {"schema": "s"}, event_id(1) + event_id(2))
    whole = segment.path.read_bytes()
    for size in range(before, len(whole)):
        segment.path.write_bytes(whole[:size])
        reader = log_reader(tmp_path)
        assert [one.body for one in poll_all(reader, 0)] == [b"a", b"bb"]
        assert [body for _, body, _ in scanned(tmp_path, 0)] == [b"a", b"bb"]
        with any_log(tmp_path, 1) as writer:
            assert writer.append(0, [b"e"], [5], {}, event_id(1)).first == 2
        assert [one.body for one in poll_all(reader, 0, 2)] == [b"e"], "the same reader sees it"
        assert [one.body for one in poll_all(log_reader(tmp_path), 0)] == [b"a", b"bb", b"e"]


@pytest.mark.parametrize("place", [0, 5, 8, 20, 60])
def test_a_damaged_batch_before_whole_ones_is_an_error_and_nothing_is_cut(tmp_path: Path, place: int) -> None:
    with any_log(tmp_path, 1) as writer:
        for number in range(3):
            writer.append(0, [b"%d" % number], [number])
    (segment,) = list_segments(tmp_path, 0)
    data = bytearray(segment.path.read_bytes())
    data[len(data) // 3 + place] ^= 255
    segment.path.write_bytes(bytes(data))
    reader = log_reader(tmp_path)
    assert reader.poll(0, 0, 10).handle == 1
    for _ in range(2):
        with pytest.raises(JobError, match=f"is damaged at byte {len(data) // 3}"):
            reader.poll(0, 1, 10)
    for _ in range(2):
        with pytest.raises(JobError, match="is damaged"), any_log(tmp_path, 1) as writer:
            writer.append(0, [b""], [0])
    assert segment.path.read_bytes() == bytes(data)


def test_a_full_disk_is_an_error_that_leaves_whole_batches_and_goes_away(tmp_path: Path) -> None:
    with small_disk(tmp_path, 4), any_log(tmp_path / "t", 1) as writer:
        writer.append(0, [b"first"], [0], {}, event_id(1))
        filling = fill(tmp_path, 100_000)
        with pytest.raises(JobError, match=r"could not be written.*No space left.*Free some space"):
            writer.append(0, [bytes(400_000)], [1], {}, event_id(2))
        assert [one.body for one in poll_all(log_reader(tmp_path / "t"), 0)] == [b"first"]
        writer.append(0, [b"small"], [1], {}, event_id(3))
        os.truncate(filling, 0)
        assert writer.append(0, [bytes(400_000)], [1], {}, event_id(2)).events == 1
        writer.sync()
        bodies = [one.body for one in poll_all(log_reader(tmp_path / "t"), 0)]
        assert bodies == [b"first", b"small", bytes(400_000)]
