"""Watch: the alarms of event types, when too many events go into quarantine, or far more or fewer come than before."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, NamedTuple

_COMPARED = 12  # windows before that a window is compared with, and at least a quarter of them


class Limits(NamedTuple):
    """When an alarm is raised: within `window_s`, more than `quarantined` of at least `least` events of a type are in
    quarantine; or a window has fewer than 1/`volume` or more than `volume` times the events of the mean of those before
    it (0: never)."""

    window_s: float = 60.0
    quarantined: float = 0.05
    least: int = 100
    volume: float = 0.0


class Alarm(NamedTuple):
    """What is wrong with a type since a time (epoch s); no reason: it is well again."""

    type: str
    since: float
    reason: str


@dataclass
class _TypeWindow:
    """The events of a type since `began`, those in quarantine among them, the events of the windows before, and
    whether this window has had an alarm."""

    began: float
    events: int = 0
    quarantined: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    before: deque[int] = field(default_factory=lambda: deque(maxlen=_COMPARED))
    alarmed: bool = False


class Watch:
    """Counts the events of each type that this process sees, in windows. `act` is called with each alarm: it marks the
    type, so that what is made of its events counts as stale (the fuse)."""

    def __init__(self, limits: Limits, act: Callable[[Alarm], None]) -> None:
        self._limits, self._act = limits, act
        self._types: dict[str, _TypeWindow] = {}
        self._lock = Lock()

    def note(self, decoded: Any, now: float) -> None:
        """Counts decoded events that arrived at a time (epoch s)."""
        events = Counter(event.type for event in decoded.events)
        quarantined = Counter(one.type for one in decoded.quarantined)
        with self._lock:
            alarms = list(self._over(now))
            for name in sorted({*events, *quarantined}):
                window = self._types.setdefault(name, _TypeWindow(now))
                window.rules.update(one.letter.reason for one in decoded.quarantined if one.type == name)
                window.events += events[name] + quarantined[name]
                window.quarantined += quarantined[name]
                alarms += self._check(name, window)
        for alarm in alarms:
            self._act(alarm)

    def tick(self, now: float) -> None:
        """Ends the windows that are over, also of types of which nothing comes."""
        with self._lock:
            alarms = list(self._over(now))
        for alarm in alarms:
            self._act(alarm)

    def _check(self, name: str, window: _TypeWindow) -> Iterator[Alarm]:
        share = window.quarantined / max(1, window.events)
        if not window.alarmed and window.events >= self._limits.least and share > self._limits.quarantined:
            window.alarmed = True
            ((rule, count),) = window.rules.most_common(1)
            kept = f"{share:.0%} of {window.events:,} events are in quarantine, {count:,} by {rule}"
            yield Alarm(name, window.began, kept)

    def _over(self, now: float) -> Iterator[Alarm]:
        for name, window in self._types.items():
            if now - window.began >= self._limits.window_s:
                yield from self._end(name, window, now)

    def _end(self, name: str, window: _TypeWindow, now: float) -> Iterator[Alarm]:
        """Ends a window and begins the next. A window without an alarm after one with an alarm clears it."""
        windows = max(1.0, (now - window.began) / self._limits.window_s)
        count, before, volume = window.events / windows, window.before, self._limits.volume
        if volume and len(before) * 4 >= _COMPARED:
            mean = sum(before) / len(before)
            if mean >= self._limits.least and not mean / volume <= count <= mean * volume:
                window.alarmed = True
                span = f"{self._limits.window_s:.0f} s"
                yield Alarm(name, window.began, f"{count:,.0f} events in {span}, where {mean:,.0f} came before")
        if window.events and not window.alarmed:
            yield Alarm(name, now, "")
        before.append(round(count))
        window.began, window.events, window.quarantined, window.alarmed = now, 0, 0, False
        window.rules.clear()
