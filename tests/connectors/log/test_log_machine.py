"""The log under any order of appends by two processes, torn tails, retention and reads, against a plain list."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.logs import any_log, event_id, log_reader, poll_all, scanned, stored_when_published

from connectors.log.batch import encode_batch
from connectors.log.scan import bounds, expire
from connectors.log.segments import list_segments
from connectors.log.writer import LogWriter

RETENTION_MS = 50


class LogMachine(RuleBasedStateMachine):
    """`events` are (position, body, published at) of all that was ever appended; `first` is the first that is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.place = TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.writers = [self._writer(), self._writer()]
        self.reader, self.offset, self.read = log_reader(self.folder), 0, list[int]()
        self.events: list[tuple[int, bytes, int]] = []
        self.ids: dict[int, int] = {}
        self.first = self.now = 0

    def _writer(self) -> LogWriter:
        return any_log(self.folder, 1, retention_ms=RETENTION_MS, segment_bytes=600)

    def teardown(self) -> None:
        for writer in self.writers:
            writer.close()
        self.reader.close()
        self.place.cleanup()

    @rule(who=st.integers(0, 1), choices=st.lists(st.integers(-9, 4), min_size=1, max_size=6), later=st.integers(0, 20))
    def append(self, who: int, choices: list[int], later: int) -> None:
        """Appends new events, and by a negative choice one that is there: the id of an event is its position."""
        self.now += later
        end, kept = len(self.events), len(self.events) - self.first
        names = [end + choice if -kept <= choice else end for choice in choices]
        ids = b"".join(event_id(self.named(name)) for name in names)
        appended = self.writers[who].append(0, [b"%d" % name for name in names], [self.now] * len(names), {}, ids)
        fresh = [name for name in dict.fromkeys(names) if name >= end]
        assert appended == (end, len(fresh))
        self.ids |= {end + place: self.named(name) for place, name in enumerate(fresh)}
        self.events += [(end + place, b"%d" % name, self.now) for place, name in enumerate(fresh)]

    def named(self, position: int) -> int:
        """The number of the id of an event that is there, or a new one."""
        return self.ids[position] if position in self.ids else position + 1_000 * (1 + len(self.events))

    @rule(part=st.floats(0.01, 0.99))
    def a_third_process_is_killed_while_it_appends(self, part: float) -> None:
        if segments := list_segments(self.folder, 0):
            data = encode_batch(len(self.events), [b"torn"] * 3, [self.now] * 3, {}, event_id(1) * 3)
            with segments[-1].path.open("ab") as file:
                file.write(data[: int(len(data) * part)])
            self.writers[0].next_position(0)  # the next process that looks cuts it

    @rule(who=st.integers(0, 1))
    def a_writer_is_killed(self, who: int) -> None:
        self.writers[who].close()
        self.writers[who] = self._writer()

    @rule()
    def delete_what_is_old(self) -> None:
        stored_when_published(self.folder, 0)
        expire(self.folder, self.now)
        if self.events:
            self.first = bounds(self.folder, 0).first
            gone = [at for position, _, at in self.events if position < self.first]
            assert all(at < self.now - RETENTION_MS for at in gone)

    @rule(most=st.integers(1, 5))
    def poll(self, most: int) -> None:
        poll = self.reader.poll(0, self.offset, most)
        self.read += [int(one.message_id.partition(":")[2]) for one in poll.envelopes]
        self.offset = poll.handle

    @invariant()
    def everything_that_is_kept_is_read(self) -> None:
        kept = self.events[self.first :]
        assert scanned(self.folder, 0) == kept
        assert [one.body for one in poll_all(log_reader(self.folder), 0, self.first)] == [body for _, body, _ in kept]
        assert self.read == sorted(set(self.read))
        if self.events:
            assert bounds(self.folder, 0) == (self.first, len(self.events))


LogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLog = LogMachine.TestCase
