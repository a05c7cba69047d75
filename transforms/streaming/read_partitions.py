"""ReadPartitions: a splittable source over a log in partitions, whose offsets live in the engine's checkpoints."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration

from schemas.transport import Envelope, PartitionedReader
from transforms.streaming.elements import Envelopes
from transforms.streaming.engine_traits import Clock
from transforms.streaming.read_messages import BUNDLE, POLL, Endless, Watermark, later

_LOOK_S = 1.0  # between two looks for new partitions; the source itself looks less often
_IDLE_S = (0.05, 0.5)  # the first and the longest pause while nothing comes
_LAST = sys.maxsize - 1
Partition = tuple[int, int]  # (number, first offset)
MakeSink = Callable[[], Callable[[list[Envelope]], None]]


class _Offsets(Endless):
    """The offsets that are not read yet, from the first of the partition."""

    def initial_restriction(self, element: Partition) -> OffsetRange:
        return OffsetRange(element[1], sys.maxsize)


_OFFSETS, _NUMBERS, _WATERMARK = _Offsets(), Endless(), Watermark()
_OPENED: dict[str, PartitionedReader] = {}
_LOCK = Lock()


class _Source:
    """Opens the process's reader of a source, which outlives the DoFns: an engine makes several of these."""

    def __init__(self, make: Callable[[], PartitionedReader]) -> None:
        self._make, self._name = make, uuid.uuid4().hex

    def reader(self) -> PartitionedReader:
        with _LOCK:
            if self._name not in _OPENED:
                reader = self._make()
                reader.open()
                _OPENED[self._name] = reader
            return _OPENED[self._name]


class _Find(beam.DoFn):
    """Yields the partitions, also those that are added while the job runs."""

    def __init__(self, source: _Source, clock: Clock) -> None:
        self._source, self._clock = source, clock

    def process(
        self,
        element: Any,
        tracker: Any = beam.DoFn.RestrictionParam(_NUMBERS),
        watermark: Any = beam.DoFn.WatermarkEstimatorParam(_WATERMARK),
    ) -> Iterator[Partition]:
        reader = self._source.reader()
        seen = tracker.current_restriction().start
        starts = reader.starts(seen)
        if starts and not tracker.try_claim(seen + len(starts) - 1):
            return
        yield from enumerate(starts, seen)
        if reader.ended():
            tracker.try_claim(_LAST)
            return
        watermark.set_watermark(later(watermark, self._clock()))
        tracker.defer_remainder(Duration(_LOOK_S))


class _Read(beam.DoFn):
    def __init__(self, source: _Source, clock: Clock, linger_s: float, make_sink: MakeSink | None) -> None:
        self._source, self._clock, self._linger_s, self._make_sink = source, clock, linger_s, make_sink

    def setup(self) -> None:
        self._idle: dict[int, int] = {}
        self._sink = self._make_sink() if self._make_sink else None

    def process(
        self,
        element: Partition,
        finalizer: Any = beam.DoFn.BundleFinalizerParam,
        tracker: Any = beam.DoFn.RestrictionParam(_OFFSETS),
        watermark: Any = beam.DoFn.WatermarkEstimatorParam(_WATERMARK),
    ) -> Iterator[TimestampedValue]:
        reader, partition, read, done = self._source.reader(), element[0], 0, False
        offset = tracker.current_restriction().start
        finalizer.register(lambda: None)
        until = self._clock() + self._linger_s
        while read < BUNDLE and not done:
            poll = reader.poll(partition, offset, POLL)
            done = poll.done
            if poll.envelopes:
                if not tracker.try_claim(poll.handle - 1):
                    return
                offset, read = poll.handle, read + len(poll.envelopes)
                if self._sink:
                    self._sink(poll.envelopes)
                else:
                    yield TimestampedValue(Envelopes(poll.envelopes), reader.oldest(partition))
            if len(poll.envelopes) < POLL and self._clock() >= until:
                break
        if read:
            finalizer.register(lambda: reader.commit(partition, offset))
        if done:
            tracker.try_claim(_LAST)
            return
        idle = self._idle[partition] = 0 if read else self._idle.get(partition, 0) + 1
        watermark.set_watermark(later(watermark, reader.oldest(partition)))
        tracker.defer_remainder(Duration(0 if self._linger_s else min(_IDLE_S[1], _IDLE_S[0] * idle)))


class ReadPartitions(beam.PTransform):
    """Envelopes, an element a poll of one partition, at the oldest time in it. `make` makes the reader of a process.

    With `make_sink`, a worker's sink takes each poll at once and nothing is yielded: an engine that does not fuse steps
    hands an element on when its bundle has ended. A bundle polls a partition for `linger_s` seconds, though little
    comes: the other partitions of the bundle wait. Steps: Source, Partitions, Spread, Read.
    """

    def __init__(
        self,
        make: Callable[[], PartitionedReader],
        clock: Clock,
        linger_s: float = 0.0,
        make_sink: MakeSink | None = None,
    ) -> None:
        super().__init__()
        self._make, self._clock, self._linger_s, self._make_sink = make, clock, linger_s, make_sink

    def expand(self, begin: Any) -> beam.PCollection[Envelopes]:
        source = _Source(self._make)
        read = _Read(source, self._clock, self._linger_s, self._make_sink)
        return (
            begin
            | "Source" >> beam.Impulse()
            | "Partitions" >> beam.ParDo(_Find(source, self._clock)).with_output_types(Partition)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(read).with_output_types(Envelopes)
        )
