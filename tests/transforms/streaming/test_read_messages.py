"""ReadMessages on the engine that is built in: everything once, acknowledged when it is kept, and an end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from support.streams import CLUSTER, LOCAL
from support.wire_events import any_envelope

from schemas.transport import Envelope, Poll
from transforms.streaming.counters import Counters, Limit
from transforms.streaming.elements import Envelopes
from transforms.streaming.read_messages import BUNDLE, POLL, ReadMessages, Round, _Read, all_read, close_readers

ONE = any_envelope(1)
COUNTERS = Counters("read-test")


@dataclass
class Source:
    """Polls in memory. The handle of one is its place; `log` tells what happened to each, in order."""

    sizes: list[int]
    ends: bool = True
    log: list[tuple[str, int]] = field(default_factory=list)
    lock: Any = field(default_factory=Lock)

    def open(self) -> None:
        self.opened = getattr(self, "opened", 0) + 1
        self.at = self.number = 0

    def close(self) -> None:
        self.log.append(("close", self.at))

    def poll(self, most: int) -> Poll:
        with self.lock:
            assert most == POLL
            if self.at == len(self.sizes):
                self.log.append(("done", self.at))
                return Poll([], done=True)
            size, place = self.sizes[self.at], self.at
            self.at += 1
            self.log.append(("poll", place))
            names = range(self.number, self.number + size)
            self.number += size
            return Poll([ONE._replace(message_id=f"{id(self)}/{name}") for name in names], place)

    def commit(self, handle: Any) -> None:
        with self.lock:
            self.log.append(("commit", handle))

    def oldest(self) -> float:
        return 1.0

    def places(self, verb: str) -> list[int]:
        return [place for said, place in self.log if said == verb]


SOURCES: list[Source] = []
SEEN: list[Envelope] = []


def make(index: int) -> Source:
    return SOURCES[index]


def note(polled: Envelopes) -> None:
    SEEN.extend(polled.items)


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    SOURCES.clear()
    SEEN.clear()
    yield
    SOURCES.clear()


def run_once(readers: int, **options: Any) -> None:
    """One run of the source, which notes what comes out."""
    with beam.Pipeline(runner=FnApiRunner()) as p:
        polled = p | ReadMessages(make, LOCAL, COUNTERS, readers, **options)
        _ = polled | "Note" >> beam.Map(note)


def run(*sources: Source, most_in_flight: Limit | None = None) -> list[str]:
    """The names of the messages that came out, in order."""
    SOURCES.extend(sources)
    run_once(len(sources), most_in_flight=most_in_flight)
    return [one.message_id for one in SEEN]


def names(source: Source) -> list[str]:
    return [f"{id(source)}/{name}" for name in range(sum(source.sizes))]


def test_all_of_every_reader_comes_out_once() -> None:
    some = [Source([3, 0, 2]), Source([]), Source([1])]
    assert sorted(run(*some)) == sorted(name for one in some for name in names(one))
    assert [one.opened for one in some] == [1, 1, 1]


def test_only_what_was_polled_is_committed_each_poll_once_and_not_before_it_was_kept() -> None:
    source = Source([2, 0, 3, 1])
    run(source)
    assert sorted(source.places("commit")) == [0, 2, 3]
    for place in (0, 2, 3):
        assert source.log.index(("poll", place)) < source.log.index(("commit", place))
    assert source.log[-1] != ("poll", 3)


def test_a_bundle_that_fails_commits_nothing() -> None:
    source = Source([2])
    SOURCES.append(source)

    def fail(polled: Envelopes) -> None:
        raise RuntimeError("the step behind it")

    with pytest.raises(Exception, match="the step behind it"), beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | ReadMessages(make, LOCAL, COUNTERS) | "Fail" >> beam.Map(fail)
    assert source.places("commit") == []


def test_an_engine_that_goes_back_to_a_checkpoint_gets_a_new_reader() -> None:
    source = Source([1, 1, 1])
    SOURCES.append(source)
    read = _Read(make, LOCAL, COUNTERS, None, None, None)
    first = read._reader(0, 0)
    first.position = 3
    assert read._reader(0, 3) is first
    assert read._reader(0, 1) is not first
    assert (source.opened, source.places("close")) == (2, [0])


def test_where_commits_come_early_the_next_checkpoint_is_waited_for() -> None:
    SOURCES.append(Source([1]))
    opened = _Read(make, CLUSTER._replace(early_finalization=True), COUNTERS, None, None, None)._reader(0, 0)
    acknowledge = partial(opened.acknowledge, early_finalization=True)

    opened.bundles = 2
    acknowledge(1, [0])
    opened.bundles = 3  # begins while the first checkpoint's end is told
    acknowledge(2, [1])
    assert SOURCES[0].places("commit") == []  # that checkpoint may hold neither

    opened.bundles = 5
    acknowledge(3, [2, 3])
    assert SOURCES[0].places("commit") == [0]
    acknowledge(4, [])
    assert SOURCES[0].places("commit") == [0, 1]
    acknowledge(5, [])
    assert SOURCES[0].places("commit") == [0, 1]

    opened.bundles = 7
    acknowledge(7, [5])  # in whatever order
    acknowledge(6, [4])
    assert SOURCES[0].places("commit") == [0, 1, 2, 3]


def test_a_source_that_says_it_is_done_is_not_asked_again() -> None:
    source = Source([1, 1])
    run(source)
    assert source.places("done") == [2]


def test_full_polls_follow_each_other_in_one_bundle_and_then_another_begins() -> None:
    source = Source([POLL] * 3 + [7])
    assert len(run(source)) == 3 * POLL + 7
    assert BUNDLE == 2 * POLL
    first_commit = source.log.index(("commit", 0))
    assert source.log[:first_commit] == [("poll", 0), ("poll", 1)]
    assert sorted(source.places("commit")) == [0, 1, 2, 3]


def test_nothing_is_read_while_too_much_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    source, asked = Source([1, 1]), list[int]()

    def in_flight(counters: Counters) -> int:
        asked.append(len(source.places("poll")))
        return 11 if len(asked) <= 3 else 10

    monkeypatch.setattr(Counters, "in_flight", in_flight)
    assert len(run(source, most_in_flight=Limit(10, 1 << 40))) == 2
    assert asked[:4] == [0, 0, 0, 0]
    assert source.places("poll") == [0, 1]


def test_nothing_is_read_while_too_many_bytes_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    source, asked = Source([1, 1]), list[int]()

    def bytes_in_flight(counters: Counters) -> int:
        asked.append(len(source.places("poll")))
        return 11 if len(asked) <= 3 else 10

    monkeypatch.setattr(Counters, "bytes_in_flight", bytes_in_flight)
    assert len(run(source, most_in_flight=Limit(1 << 40, 10))) == 2
    assert asked[:4] == [0, 0, 0, 0]


def rounds(readers: int, limit: Limit) -> list[list[str]]:
    """The names that come out of each round, until all is read."""
    found: list[list[str]] = []
    while not found or not all_read("rounds"):
        SEEN.clear()
        run_once(readers, source="rounds", round_=Round(len(found) + 1, limit))
        found.append([one.message_id for one in SEEN])
    close_readers("rounds")
    return found


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [(Limit(4, 1 << 40), [4, 4, 1]), (Limit(1 << 40, 3 * len(ONE.body)), [4, 4, 1]), (Limit(100, 1 << 40), [9])],
    ids=["messages", "bytes", "all at once"],
)
def test_a_round_reads_its_part_and_the_next_one_goes_on(limit: Limit, sizes: list[int]) -> None:
    source = Source([2, 2, 2, 2, 1])
    SOURCES.append(source)
    found = rounds(1, limit)
    assert [len(some) for some in found if some] == sizes
    assert [name for some in found for name in some] == names(source)
    assert (source.opened, source.places("close")) == (1, [5])
    assert sorted(source.places("commit")) == [0, 1, 2, 3, 4]


def test_a_round_does_not_wait_for_more_when_it_has_read_something() -> None:
    source = Source([2, 0, 3])
    SOURCES.append(source)
    assert [len(some) for some in rounds(1, Limit(100, 1 << 40))] == [2, 3]


def test_rounds_go_on_until_every_reader_is_done() -> None:
    some = [Source([1] * 5), Source([])]
    SOURCES.extend(some)
    assert sorted(name for one in rounds(2, Limit(2, 1 << 40)) for name in one) == sorted(names(some[0]))


def test_what_the_engine_did_not_commit_is_committed_when_a_named_source_is_closed() -> None:
    source = Source([1, 1])
    SOURCES.append(source)
    opened = _Read(make, LOCAL, COUNTERS, None, "named", None)._reader(0, 0)
    opened.polled = {1: [0], 2: [1]}
    opened.acknowledge(1, [0], early_finalization=False)
    close_readers("named")
    assert source.log == [("commit", 0), ("commit", 1), ("close", 0)]


def test_a_round_needs_the_name_of_its_source() -> None:
    with pytest.raises(ValueError, match="a round needs the name"):
        ReadMessages(make, LOCAL, COUNTERS, round_=Round(1, Limit(1, 1)))


def test_at_least_one_reader_is_needed() -> None:
    with pytest.raises(ValueError, match="readers 0 must be positive"):
        ReadMessages(make, LOCAL, COUNTERS, readers=0)
