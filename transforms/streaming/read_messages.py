"""ReadMessages: a splittable source over any transport, which acknowledges only what the engine has committed."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.io.iobase import RestrictionTracker
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.utils.timestamp import Duration, Timestamp

from schemas.transport import Poll, Reader
from transforms.streaming.counters import Counters, Limit
from transforms.streaming.elements import Envelopes, body_bytes
from transforms.streaming.engine_traits import EngineTraits

POLL = 5_000  # messages in one element
BUNDLE = 10_000  # messages in one bundle
FULL_S = 0.02  # how long to wait when too much is in flight
_IDLE_S = (0.05, 1.0)  # the first and the longest pause while nothing comes
NOTHING = Limit(0, 0)
MakeReader = Callable[[int], Reader]


class Round(NamedTuple):
    """One of several runs over the same source in this process: in each a reader reads about `limit` (the last poll may
    go beyond it), from where the run before stopped."""

    number: int
    limit: Limit


class Endless(RestrictionProvider):
    """Counts polls, without an end; there is nothing to split."""

    def initial_restriction(self, element: Any) -> OffsetRange:
        return OffsetRange(0, sys.maxsize)

    def create_tracker(self, restriction: OffsetRange) -> RestrictionTracker:
        return Polls(restriction)

    def restriction_size(self, element: Any, restriction: OffsetRange) -> int:
        return 1

    def truncate(self, element: Any, restriction: OffsetRange) -> None:
        return None


class Polls(OffsetRestrictionTracker):
    """A tracker that splits at 0 alone, which is how an engine defers the rest; it refuses any other split."""

    def try_split(self, fraction_of_remainder: float) -> Any:
        return super().try_split(0) if fraction_of_remainder == 0 else None


class Watermark(beam.transforms.core.WatermarkEstimatorProvider):
    """A watermark that is set by hand."""

    def initial_estimator_state(self, element: int, restriction: OffsetRange) -> Timestamp | None:
        return None

    def create_watermark_estimator(self, state: Timestamp | None) -> ManualWatermarkEstimator:
        return ManualWatermarkEstimator(state)


_POLLS, _WATERMARK = Endless(), Watermark()


def later(watermark: Any, seconds: float) -> Timestamp:
    """The time (epoch seconds) or the current watermark, whichever is later: a watermark never goes back."""
    return max(Timestamp(seconds), watermark.current_watermark() or Timestamp(0))


@dataclass
class _OpenReader:
    """An open reader and where it stands. `position` counts polls; `idle` those in a row that brought nothing.
    `bundles` counts the bundles that have begun, `polled` has the handles of those that were not committed, `waiting`
    the handles that wait for the commit of a bundle that began after so many. `number` and `read` are of the round,
    `done` is of the source."""

    reader: Reader
    position: int
    idle: int = 0
    bundles: int = 0
    polled: dict[int, list[Any]] = field(default_factory=dict)
    waiting: list[tuple[int, list[Any]]] = field(default_factory=list)
    number: int = 0
    read: Limit = NOTHING
    done: bool = False

    def poll(self) -> Poll:
        """The next poll, counted."""
        poll = self.reader.poll(POLL)
        self.read = Limit(self.read.messages + len(poll.envelopes), self.read.bytes + body_bytes(poll.envelopes))
        self.done = self.done or poll.done
        return poll

    def reached(self, limit: Limit) -> bool:
        """Whether this round's share is read."""
        return self.read.messages >= limit.messages or self.read.bytes >= limit.bytes

    def acknowledge(self, bundle: int, handles: list[Any], early_finalization: bool) -> None:
        """Acknowledges a committed bundle. With `early_finalization` the engine may finalize before the checkpoint
        that holds the bundle, so acknowledgements wait for a bundle that began after this call."""
        due = handles
        with _LOCK:
            self.polled.pop(bundle, None)
            if early_finalization:
                due = [handle for begun, waiting in self.waiting if begun < bundle for handle in waiting]
                self.waiting = [(begun, waiting) for begun, waiting in self.waiting if begun >= bundle]
                self.waiting.append((self.bundles, handles))
        for handle in due:
            self.reader.commit(handle)

    def close(self) -> None:
        """Commits what was polled and not committed, and closes the reader."""
        with _LOCK:
            polled, self.polled = self.polled, {}
        for handle in [handle for handles in polled.values() for handle in handles]:
            self.reader.commit(handle)
        self.reader.close()


_OPENED: dict[tuple[str, int], _OpenReader] = {}
_LOCK = Lock()


def all_read(source: str) -> bool:
    """Whether every reader of a source in this process is done."""
    with _LOCK:
        return all(opened.done for (name, _), opened in _OPENED.items() if name == source)


def close_readers(source: str) -> None:
    """Closes the readers of a source in this process, after its last run. What was polled is kept elsewhere (in its
    file, or in the spool), so all of it is committed first: an engine that ends need not commit its last bundles."""
    with _LOCK:
        opened = [_OPENED.pop(key) for key in [key for key in _OPENED if key[0] == source]]
    for reader in opened:
        reader.close()


class _Read(beam.DoFn):
    def __init__(
        self,
        make: MakeReader,
        engine: EngineTraits,
        counters: Counters,
        most_in_flight: Limit | None,
        source: str | None,
        round_: Round | None,
    ) -> None:
        self._make, self._counters, self._round = make, counters, round_
        self._early_finalization = engine.early_finalization
        self._most_in_flight = most_in_flight if engine.single_process else None
        self._source, self._named = source or uuid.uuid4().hex, source is not None

    def _reader(self, index: int, position: int) -> _OpenReader:
        """The process's reader of an index: it outlives this object, of which an engine makes several. An engine that
        went back to a checkpoint is at another position than the reader, and gets a new one, from the beginning."""
        with _LOCK:
            opened = _OPENED.get((self._source, index))
            if opened is not None and self._round is not None and opened.number != self._round.number:
                opened.number, opened.read, opened.position = self._round.number, NOTHING, position
            if opened is None or opened.position != position:
                if opened is not None:
                    opened.reader.close()
                reader = self._make(index)
                reader.open()
                opened = _OPENED[self._source, index] = _OpenReader(reader, position)
                opened.number = self._round.number if self._round else 0
            return opened

    def process(
        self,
        element: int,
        finalizer: Any = beam.DoFn.BundleFinalizerParam,
        tracker: Any = beam.DoFn.RestrictionParam(_POLLS),
        watermark: Any = beam.DoFn.WatermarkEstimatorParam(_WATERMARK),
    ) -> Iterator[Envelopes]:
        position = tracker.current_restriction().start
        source, read, handles = self._reader(element, position), 0, list[Any]()
        source.bundles += 1
        if self._named:
            source.polled[source.bundles] = handles
        finalizer.register(partial(source.acknowledge, source.bundles, handles, self._early_finalization))
        if self._counters.exceeds(self._most_in_flight):
            tracker.try_claim(position)
            source.position = position + 1
            tracker.defer_remainder(Duration(FULL_S))
            return
        while read < BUNDLE:
            if self._round and (source.done or source.reached(self._round.limit)):
                tracker.try_claim(sys.maxsize - 1)
                return
            if not tracker.try_claim(position):
                return
            position = source.position = position + 1
            poll = source.poll()
            if poll.envelopes:
                read += len(poll.envelopes)
                handles.append(poll.handle)
                yield Envelopes(poll.envelopes, poll.source_resumes)
            waits = self._round and source.read.messages and not poll.envelopes  # what was read need not wait for more
            if poll.done or waits:
                tracker.try_claim(sys.maxsize - 1)
                return
            if len(poll.envelopes) < POLL:
                break
        source.idle = 0 if read else source.idle + 1
        watermark.set_watermark(later(watermark, source.reader.oldest()))
        pause = 0.0 if read else min(_IDLE_S[1], _IDLE_S[0] * source.idle)
        tracker.defer_remainder(Duration(pause))


class ReadMessages(beam.PTransform):
    """Envelopes, an element a poll. `make` makes the reader of an index below `readers`. In a single process no more is
    read while `most_in_flight` is exceeded: such an engine holds nothing back. `source` names the readers in this
    process, for `all_read` and `close_readers`: what they poll must be kept elsewhere. `round_` ends this run when its
    part is read; the next run with that source goes on. Steps: Readers, Spread, Read."""

    def __init__(
        self,
        make: MakeReader,
        engine: EngineTraits,
        counters: Counters,
        readers: int = 1,
        *,
        most_in_flight: Limit | None = None,
        source: str | None = None,
        round_: Round | None = None,
    ) -> None:
        super().__init__()
        if readers < 1:
            raise ValueError(f"readers {readers} must be positive")
        if round_ is not None and source is None:
            raise ValueError("a round needs the name of its source")
        self._readers, self._read = readers, _Read(make, engine, counters, most_in_flight, source, round_)

    def expand(self, begin: Any) -> beam.PCollection[Envelopes]:
        return (
            begin
            | "Readers" >> beam.Create(range(self._readers), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(self._read).with_output_types(Envelopes)
        )
