"""HoldUntilDue: messages whose time has not come wait; all others pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from schemas.delivery import Message
from transforms.rebatch.counters import Counter
from transforms.rebatch.elements import END, KEYED, Keyed, Messages, StructCoder, body_bytes

_DUE, _EARLY = "due", "early"
_FARTHEST_S = 100 * 366 * 86_400  # no run lasts so long; engines' clocks and Beam's own end somewhere behind it


def split_due(messages: list[Message], now: int) -> tuple[list[Message], dict[int, list[Message]]]:
    """The messages that may go at `now` (epoch ms), and the others by the second in which they become due.

    A message that expires before it is due goes on at once: the delivery counts it as expired.
    """
    due: list[Message] = []
    early: dict[int, list[Message]] = defaultdict(list)
    for message in messages:
        hopeless = 0 < message.expires_at <= max(now, message.deliver_after)
        if message.deliver_after <= now or hopeless:
            due.append(message)
        else:
            early[-(-message.deliver_after // 1000)].append(message)
    return due, early


class _Split(beam.DoFn):
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held = Counter("held")

    def process(self, element: Keyed) -> Iterator[Any]:
        key, messages = element
        due, early = split_due(messages.items, int(self._clock() * 1000))
        if due:
            yield key, messages if not early else Messages(due)
        for second, waiting in early.items():
            self._held.inc(len(waiting), body_bytes(waiting))
            yield beam.pvalue.TaggedOutput(_EARLY, ((key[0], second), Messages(waiting)))


class _Hold(beam.DoFn):
    """Keyed by (retailer or group, second): the state dies when its timer fires, or when the input ends. What is due
    in a hundred years or later has no timer: no engine could be sure to hold it."""

    WAITING = BagStateSpec("waiting", StructCoder(Messages))
    DUE = TimerSpec("due", TimeDomain.REAL_TIME)
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def __init__(self, clock: Callable[[], float], real_time: bool) -> None:
        self._clock, self._real_time = clock, real_time
        self._released = Counter("released")
        self._left = Counter("left_waiting")

    def process(
        self,
        element: Keyed,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        due: Any = beam.DoFn.TimerParam(DUE),
        over: Any = beam.DoFn.TimerParam(OVER),
    ) -> Iterator[Keyed]:
        (_, second), messages = element
        if not self._real_time:  # nothing would release them: they stay where they came from, for the next run
            self._left.inc(len(messages.items))
            return
        waiting.add(messages)
        if second - self._clock() < _FARTHEST_S:
            due.set(Timestamp(second))
        over.set(END)
        yield from ()

    @on_timer(DUE)
    def release(
        self,
        key: Any = beam.DoFn.KeyParam,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        over: Any = beam.DoFn.TimerParam(OVER),
    ) -> Iterator[Keyed]:
        """The messages of a second, in lists that carry the shard 0 again."""
        lists = list(waiting.read())
        waiting.clear()
        over.clear()
        for messages in lists:
            self._released.inc(len(messages.items), body_bytes(messages.items))
            yield (key[0], 0), messages

    @on_timer(OVER)
    def leave(
        self,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Keyed]:
        """The input has ended before they were due: they stay where they came from, for the next run."""
        self._left.inc(sum(len(messages.items) for messages in waiting.read()))
        waiting.clear()
        due.clear()
        yield from ()


class HoldUntilDue(beam.PTransform):
    """(lists that were due when they came, lists that were held until they were due): two, since to make one of
    them costs most engines a hop, and most messages are due. `real_time`: whether the engine's timers follow the clock;
    on one where they do not, and when the input ends, messages that are not due are left out and counted as
    left_waiting."""

    def __init__(self, clock: Callable[[], float], *, real_time: bool = True) -> None:
        super().__init__()
        self._clock, self._real_time = clock, real_time

    def expand(self, lists: beam.PCollection[Keyed]) -> tuple[beam.PCollection[Keyed], beam.PCollection[Keyed]]:
        split = lists | "Split" >> beam.ParDo(_Split(self._clock)).with_outputs(_EARLY, main=_DUE)
        split[_DUE].element_type = split[_EARLY].element_type = KEYED
        released = split[_EARLY] | "Hold" >> beam.ParDo(_Hold(self._clock, self._real_time)).with_output_types(KEYED)
        return split[_DUE], released
