"""ReadPartitions on the engine that is built in: every offset once, told when it is kept, and no split."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.restriction_trackers import OffsetRange
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from support.wire_events import any_envelope

from schemas.transport import Poll
from transforms.streaming.elements import Envelopes
from transforms.streaming.read_messages import BUNDLE, POLL
from transforms.streaming.read_partitions import _OFFSETS, ReadPartitions

ONE = any_envelope(1)


@dataclass
class Log:
    """Partitions in memory, from an offset to another; `later` ones are there at the second look. Some polls bring
    nothing. `gap`: every other offset is missing, as in a compacted topic."""

    sizes: list[tuple[int, int]]
    later: list[tuple[int, int]] = field(default_factory=list)
    gap: bool = False
    looks: int = 0
    polls: int = 0
    kept: dict[int, list[int]] = field(default_factory=dict)
    lock: Any = field(default_factory=Lock)

    def open(self) -> None:
        assert not hasattr(self, "opened")
        self.opened = True

    def close(self) -> None:
        """Nothing is open."""

    @property
    def everyone(self) -> list[tuple[int, int]]:
        return self.sizes + (self.later if self.looks > 1 else [])

    def starts(self, seen: int) -> list[int]:
        self.looks += 1
        return [start for start, _ in self.everyone[seen:]]

    def ended(self) -> bool:
        return len(self.everyone) == len(self.sizes) + len(self.later)

    def poll(self, partition: int, offset: int, most: int) -> Poll:
        with self.lock:
            self.polls += 1
            end = self.everyone[partition][1]
            if offset < end and self.polls % 3 == 0:
                return Poll([], offset)
            offsets = [one for one in range(offset, min(end, offset + most)) if not (self.gap and one % 2)]
            some = [ONE._replace(message_id=f"{partition}:{one}") for one in offsets]
            return Poll(some, offsets[-1] + 1 if some else offset, done=not some)

    def commit(self, partition: int, offset: int) -> None:
        with self.lock:
            self.kept.setdefault(partition, []).append(offset)

    def oldest(self, partition: int) -> float:
        return 1.0


LOGS: list[Log] = []
SEEN: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    LOGS.clear()
    SEEN.clear()


def make() -> Log:
    return LOGS[0]


def note(polled: Envelopes) -> None:
    SEEN.extend(one.message_id for one in polled.items)


def run(log: Log) -> list[str]:
    """The names of the messages that came out."""
    LOGS.append(log)
    with beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | ReadPartitions(make, lambda: 5.0) | "Note" >> beam.Map(note)
    return sorted(SEEN)


def test_every_offset_of_every_partition_comes_once_also_of_those_that_are_added() -> None:
    log = Log([(0, 3), (7, 7), (40, 2 * BUNDLE + 5)], later=[(0, 2)])
    expected = [
        f"{partition}:{one}"
        for partition, (start, end) in enumerate([*log.sizes, *log.later])
        for one in range(start, end)
    ]
    assert run(log) == sorted(expected)
    assert {partition: offsets[-1] for partition, offsets in log.kept.items()} == {0: 3, 2: 2 * BUNDLE + 5, 3: 2}
    assert all(offsets == sorted(offsets) for offsets in log.kept.values())


def test_offsets_that_are_missing_are_passed_over() -> None:
    log = Log([(0, POLL + 10)], gap=True)
    assert len(run(log)) == POLL // 2 + 5
    assert log.kept[0][-1] == POLL + 9


def test_a_bundle_that_fails_keeps_no_offset() -> None:
    log = Log([(0, 3)])
    LOGS.append(log)

    def fail(polled: Envelopes) -> None:
        raise RuntimeError("the step behind it")

    with pytest.raises(Exception, match="the step behind it"), beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | ReadPartitions(make, lambda: 5.0) | "Fail" >> beam.Map(fail)
    assert log.kept == {}


def test_a_partition_is_not_split_but_the_rest_is_done_later_from_the_next_offset() -> None:
    restriction = _OFFSETS.initial_restriction((3, 100))
    assert restriction == OffsetRange(100, sys.maxsize)
    tracker = _OFFSETS.create_tracker(restriction)
    assert tracker.try_claim(149)
    assert tracker.try_split(0.5) is None
    primary, residual = tracker.try_split(0)
    assert (primary, residual) == (OffsetRange(100, 150), OffsetRange(150, sys.maxsize))
    assert not tracker.try_claim(150)
    tracker.check_done()
