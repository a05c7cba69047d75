"""ReadMessages: a splittable source over any transport, which acknowledges only what the engine has committed."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

import apache_beam as beam
from apache_beam.io.iobase import RestrictionTracker
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.utils.timestamp import Duration, Timestamp

from schemas.transport import Reader
from transforms.rebatch.counters import on_the_way
from transforms.rebatch.elements import Envelopes

POLL = 5_000  # messages in one element
BUNDLE = 10_000  # messages in one bundle
_STUCK_S = 15.0  # without a change: what is still on the way will not arrive
FULL_S = 0.02  # how long to wait when too much is on the way
_IDLE_S = (0.05, 1.0)  # the first and the longest pause while nothing comes


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
    """An open reader, the position it is at, how often in a row nothing came, and since when as many messages are on
    the way; how many bundles have begun, and the handles that wait for one that begins after so many."""

    reader: Reader
    position: int
    idle: int = 0
    left: int = -1
    since: float = 0.0
    bundles: int = 0
    waiting: list[tuple[int, list[Any]]] = field(default_factory=list)

    def committed(self, bundle: int, handles: list[Any], early: bool) -> None:
        """The engine has committed a bundle. One that says so `early` says it with the first checkpoint that completes
        after the bundle's end, which may have begun before it, and be without it. So the handles wait for the
        next checkpoint: the first that commits a bundle which has begun after this was said."""
        due = handles
        if early:
            with _LOCK:
                due = [one for since, some in self.waiting if since < bundle for one in some]
                self.waiting = [(since, some) for since, some in self.waiting if since >= bundle]
                self.waiting.append((self.bundles, handles))
        for handle in due:
            self.reader.commit(handle)


_OPENED: dict[tuple[str, int], _Open] = {}
_LOCK = Lock()


class _Read(beam.DoFn):
    def __init__(self, make: Callable[[int], Reader], most_ahead: int | None, early: bool) -> None:
        self._make, self._most_ahead, self._early = make, most_ahead, early
        self._source = uuid.uuid4().hex

    def _reader(self, index: int, position: int) -> _Open:
        """The process's reader of an index: it outlives this object, of which an engine makes several. An engine that
        went back to a checkpoint is at another position than the reader, and gets a new one, from the beginning."""
        with _LOCK:
            found = _OPENED.get((self._source, index))
            if found is None or found.position != position:
                if found is not None:
                    found.reader.close()
                reader = self._make(index)
                reader.open()
                found = _OPENED[self._source, index] = _Open(reader, position)
            return found

    def _may_end(self, source: _Open) -> bool:
        """Whether the input may end: on an engine in this process only when all that was read has reached the
        delivery, or nothing more does: then the waits end by the clock, and none together with the input."""
        if self._most_ahead is None:
            return True
        left, now = on_the_way(), time.monotonic()
        if left != source.left:
            source.left, source.since = left, now
        return left <= 0 or now - source.since > _STUCK_S

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
        finalizer.register(partial(source.committed, source.bundles, handles, self._early))
        if self._most_ahead is not None and on_the_way() > self._most_ahead:
            tracker.try_claim(position)
            source.position = position + 1
            tracker.defer_remainder(Duration(FULL_S))
            return
        while read < BUNDLE:
            if not tracker.try_claim(position):
                return
            position = source.position = position + 1
            poll = reader.poll(POLL)
            if poll.envelopes:
                read += len(poll.envelopes)
                handles.append(poll.handle)
                yield Envelopes(poll.envelopes, poll.fresh)
            if poll.done:
                tracker.try_claim(sys.maxsize - 1)
                return
            if len(poll.envelopes) < POLL:
                break
        source.idle = 0 if read else source.idle + 1
        watermark.set_watermark(max(Timestamp(reader.oldest()), watermark.current_watermark() or Timestamp(0)))
        pause = 0.0 if read else min(_IDLE_S[1], _IDLE_S[0] * source.idle)
        tracker.defer_remainder(Duration(pause))


class ReadMessages(beam.PTransform):
    """Envelopes, a list a poll. `make` makes the reader of an index below `readers`. `most_ahead` is for an engine
    that runs in this one process and holds nothing back: no more is read while so many messages are on the way.
    `early` is for one that says a bundle is committed before its checkpoint holds it (docs/decisions/012)."""

    def __init__(
        self, make: Callable[[int], Reader], readers: int = 1, *, most_ahead: int | None = None, early: bool = False
    ) -> None:
        super().__init__()
        if readers < 1:
            raise ValueError(f"readers {readers} must be positive")
        self._readers, self._read = readers, _Read(make, most_ahead, early)

    def expand(self, begin: Any) -> beam.PCollection[Envelopes]:
        return (
            begin
            | "Readers" >> beam.Create(range(self._readers), reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(self._read).with_output_types(Envelopes)
        )
