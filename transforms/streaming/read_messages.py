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

from schemas.transport import Envelope, Poll, Reader
from transforms.streaming.counters import Limit, exceeds
from transforms.streaming.elements import Envelopes

POLL = 5_000  # messages in one element
BUNDLE = 10_000  # messages in one bundle
FULL_S = 0.02  # how long to wait when too much is on the way
_IDLE_S = (0.05, 1.0)  # the first and the longest pause while nothing comes


NOTHING = Limit(0, 0)


class Round(NamedTuple):
    """One of several runs over the same source in this process: in each a reader reads about `limit` (the last poll may
    go beyond it), from where the run before stopped."""

    number: int
    limit: Limit


class Endless(RestrictionProvider):
    """A restriction counts on without an end, here polls: there is nothing in it to split."""

    def initial_restriction(self, element: Any) -> OffsetRange:
        return OffsetRange(0, sys.maxsize)

    def create_tracker(self, restriction: OffsetRange) -> RestrictionTracker:
        return Polls(restriction)

    def restriction_size(self, element: Any, restriction: OffsetRange) -> int:
        return 1

    def truncate(self, element: Any, restriction: OffsetRange) -> None:
        return None


class Polls(OffsetRestrictionTracker):
    """An engine may ask for the rest to be done later, which is a split at 0; any other split is refused."""

    def try_split(self, fraction_of_remainder: float) -> Any:
        return super().try_split(0) if fraction_of_remainder == 0 else None


class Watermark(beam.transforms.core.WatermarkEstimatorProvider):
    """A watermark that is set by hand."""

    def initial_estimator_state(self, element: int, restriction: OffsetRange) -> Timestamp | None:
        return None

    def create_watermark_estimator(self, state: Timestamp | None) -> ManualWatermarkEstimator:
        return ManualWatermarkEstimator(state)


_PROVIDER, _WATERMARK = Endless(), Watermark()


@dataclass
class _Open:
    """An open reader, the position it is at, and how often in a row nothing came; how many bundles have begun, the
    handles of those that were not committed, and the handles that wait for a bundle that begins after so many.
    `number` and `read` are of the round, `done` is of the source."""

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
        self.read = Limit(self.read.messages + len(poll.envelopes), self.read.bytes + _bytes(poll.envelopes))
        self.done = self.done or poll.done
        return poll

    def ends(self, limit: Limit) -> bool:
        """Whether this round's share is read."""
        return self.read.messages >= limit.messages or self.read.bytes >= limit.bytes

    def committed(self, bundle: int, handles: list[Any], early: bool) -> None:
        """The engine has committed a bundle. One that says so `early` says it with the first checkpoint that completes
        after the bundle's end, which may have begun before it, and be without it. So the handles wait for the
        next checkpoint: the first that commits a bundle which has begun after this was said."""
        due = handles
        with _LOCK:
            self.polled.pop(bundle, None)
            if early:
                due = [one for since, some in self.waiting if since < bundle for one in some]
                self.waiting = [(since, some) for since, some in self.waiting if since >= bundle]
                self.waiting.append((self.bundles, handles))
        for handle in due:
            self.reader.commit(handle)

    def close(self) -> None:
        """Commits what was polled and not committed, and closes the reader."""
        with _LOCK:
            left, self.polled = self.polled, {}
        for handle in [handle for handles in left.values() for handle in handles]:
            self.reader.commit(handle)
        self.reader.close()


_OPENED: dict[tuple[str, int], _Open] = {}
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
    for one in opened:
        one.close()


class _Read(beam.DoFn):
    def __init__(
        self,
        make: Callable[[int], Reader],
        ahead: Limit | None,
        early: bool,
        source: str | None = None,
        round_: Round | None = None,
    ) -> None:
        self._make, self._ahead, self._early, self._round = make, ahead, early, round_
        self._source, self._named = source or uuid.uuid4().hex, source is not None

    def _reader(self, index: int, position: int) -> _Open:
        """The process's reader of an index: it outlives this object, of which an engine makes several. An engine that
        went back to a checkpoint is at another position than the reader, and gets a new one, from the beginning."""
        with _LOCK:
            found = _OPENED.get((self._source, index))
            if found is not None and self._round is not None and found.number != self._round.number:
                found.number, found.read, found.position = self._round.number, NOTHING, position
            if found is None or found.position != position:
                if found is not None:
                    found.reader.close()
                reader = self._make(index)
                reader.open()
                found = _OPENED[self._source, index] = _Open(reader, position)
                found.number = self._round.number if self._round else 0
            return found

    def process(
        self,
        element: int,
        finalizer: Any = beam.DoFn.BundleFinalizerParam,
        tracker: Any = beam.DoFn.RestrictionParam(_PROVIDER),
        watermark: Any = beam.DoFn.WatermarkEstimatorParam(_WATERMARK),
    ) -> Iterator[Envelopes]:
        position = tracker.current_restriction().start
        source, read = self._reader(element, position), 0
        reader, handles = source.reader, list[Any]()
        source.bundles += 1
        if self._named:
            source.polled[source.bundles] = handles
        finalizer.register(partial(source.committed, source.bundles, handles, self._early))
        if exceeds(self._ahead):
            tracker.try_claim(position)
            source.position = position + 1
            tracker.defer_remainder(Duration(FULL_S))
            return
        while read < BUNDLE:
            if self._round and (source.done or source.ends(self._round.limit)):
                tracker.try_claim(sys.maxsize - 1)
                return
            if not tracker.try_claim(position):
                return
            position = source.position = position + 1
            poll = source.poll()
            if poll.envelopes:
                read += len(poll.envelopes)
                handles.append(poll.handle)
                yield Envelopes(poll.envelopes, poll.fresh)
            waits = self._round and source.read.messages and not poll.envelopes  # what was read need not wait for more
            if poll.done or waits:
                tracker.try_claim(sys.maxsize - 1)
                return
            if len(poll.envelopes) < POLL:
                break
        source.idle = 0 if read else source.idle + 1
        watermark.set_watermark(max(Timestamp(reader.oldest()), watermark.current_watermark() or Timestamp(0)))
        pause = 0.0 if read else min(_IDLE_S[1], _IDLE_S[0] * source.idle)
        tracker.defer_remainder(Duration(pause))


def _bytes(envelopes: list[Envelope]) -> int:
    return sum([len(envelope.body) for envelope in envelopes])


class ReadMessages(beam.PTransform):
    """Envelopes, a list a poll. `make` makes the reader of an index below `readers`. `most_ahead` is for an engine
    that runs in this one process and holds nothing back: no more is read while so many messages, or bytes, are on the
    way. `early` is for one that says a bundle is committed before its checkpoint holds it (docs/decisions/012).
    `source` names the readers in this process, for `all_read` and `close_readers`: what they poll must be kept
    elsewhere. `round_` ends this run when its part is read; the next run with that source goes on."""

    def __init__(
        self,
        make: Callable[[int], Reader],
        readers: int = 1,
        *,
        most_ahead: Limit | None = None,
        early: bool = False,
        source: str | None = None,
        round_: Round | None = None,
    ) -> None:
        super().__init__()
        if readers < 1:
            raise ValueError(f"readers {readers} must be positive")
        if round_ is not None and source is None:
            raise ValueError("a round needs the name of its source")
        self._readers, self._read = readers, _Read(make, most_ahead, early, source, round_)

    def expand(self, begin: Any) -> beam.PCollection[Envelopes]:
        return (
            begin
            | "Readers" >> beam.Create(range(self._readers), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(self._read).with_output_types(Envelopes)
        )
