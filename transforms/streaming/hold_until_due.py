"""HoldUntilDue: messages whose time has not come wait; all others pass."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from schemas.delivery import Message
from transforms.streaming.counters import Counter, Limit, exceeds
from transforms.streaming.elements import END, KEYED, Keyed, Messages, StructCoder, body_bytes
from transforms.streaming.state_on_disk import MakeBuffer, OnDisk

_DUE, _EARLY = "due", "early"
_AGAIN_S = 0.1  # until more is released
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

    def process(self, element: Keyed) -> Iterator[Any]:
        key, messages = element
        due, early = split_due(messages.items, int(self._clock() * 1000))
        if due:
            yield key, messages if not early else Messages(due)
        for second, waiting in early.items():
            yield beam.pvalue.TaggedOutput(_EARLY, ((key[0], second), Messages(waiting)))


class _Hold(beam.DoFn):
    """Keyed by (retailer or group, second): the state dies when its timer fires, or when the input ends. What is due
    in a hundred years or later has no timer: no engine could be sure to hold it. What is due is released as long as no
    more than `most_ahead` is on its way to the delivery; the rest a moment later."""

    WAITING = BagStateSpec("waiting", StructCoder(Messages))
    DUE = TimerSpec("due", TimeDomain.REAL_TIME)
    OVER = TimerSpec("over", TimeDomain.WATERMARK)

    def __init__(
        self, clock: Callable[[], float], wall_clock_timers: bool, buffer: MakeBuffer | None, most_ahead: Limit | None
    ) -> None:
        self._clock, self._real_time, self._make_buffer, self._most_ahead = clock, wall_clock_timers, buffer, most_ahead
        self._held, self._released = Counter("held"), Counter("released")
        self._left = Counter("left_waiting")

    def setup(self) -> None:
        self._on_disk = OnDisk(Messages, self._make_buffer)

    def process(
        self,
        element: Keyed,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        due: Any = beam.DoFn.TimerParam(DUE),
        over: Any = beam.DoFn.TimerParam(OVER),
    ) -> Iterator[Keyed]:
        (_, second), messages = element
        self._held.inc(messages.total, body_bytes(messages.items))
        if not self._real_time:  # nothing would release them: they stay where they came from, for the next run
            self._left.inc(messages.total)
            return
        waiting.add(self._on_disk.put(messages))
        if second - self._clock() < _FARTHEST_S:
            due.set(Timestamp(second))
        over.set(END)
        yield from ()

    @on_timer(DUE)
    def release(
        self,
        key: Any = beam.DoFn.KeyParam,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        due: Any = beam.DoFn.TimerParam(DUE),
        over: Any = beam.DoFn.TimerParam(OVER),
    ) -> Iterator[Keyed]:
        """The messages of a second, in lists that carry the shard 0 again."""
        lists = deque(waiting.read())
        waiting.clear()
        while lists and not exceeds(self._most_ahead):
            yield self._release(key, lists.popleft())
        for messages in lists:
            waiting.add(messages)
        if lists:
            due.set(Timestamp(self._clock() + _AGAIN_S))
        else:
            over.clear()

    @on_timer(OVER)
    def leave(
        self,
        key: Any = beam.DoFn.KeyParam,
        waiting: Any = beam.DoFn.StateParam(WAITING),
        due: Any = beam.DoFn.TimerParam(DUE),
    ) -> Iterator[Keyed]:
        """The input has ended: what is not due stays where it came from, for the next run."""
        lists = list(waiting.read())
        waiting.clear()
        due.clear()
        for messages in lists:
            if key[1] <= self._clock():
                yield self._release(key, messages)
            else:
                self._left.inc(messages.total)
                self._on_disk.free(messages)

    def _release(self, key: tuple[str, int], messages: Messages) -> Keyed:
        whole = self._on_disk.read(messages)
        self._on_disk.free(messages)
        self._released.inc(whole.total, body_bytes(whole.items))
        return (key[0], 0), whole


class HoldUntilDue(beam.PTransform):
    """(lists that were due when they came, lists that were held until they were due): two, since to make one of
    them costs most engines a hop, and most messages are due. `wall_clock_timers`: whether the engine's timers follow
    the clock; on one where they do not, and when the input ends, messages that are not due are left out and counted as
    left_waiting. `buffer` makes what keeps the held ones where the engine's state is in memory; `most_ahead`: what is
    due is released while no more than that is on its way to the delivery."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        wall_clock_timers: bool = True,
        buffer: MakeBuffer | None = None,
        most_ahead: Limit | None = None,
    ) -> None:
        super().__init__()
        self._clock, self._hold = clock, _Hold(clock, wall_clock_timers, buffer, most_ahead)

    def expand(self, lists: beam.PCollection[Keyed]) -> tuple[beam.PCollection[Keyed], beam.PCollection[Keyed]]:
        split = lists | "Split" >> beam.ParDo(_Split(self._clock)).with_outputs(_EARLY, main=_DUE)
        split[_DUE].element_type = split[_EARLY].element_type = KEYED
        released = split[_EARLY] | "Hold" >> beam.ParDo(self._hold).with_output_types(KEYED)
        return split[_DUE], released
