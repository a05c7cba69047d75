"""The watch over event types: when a fuse blows, and when it is cleared."""

from __future__ import annotations

from collections import Counter

from schemas.events.raw_event import RawEvent
from schemas.transport import Envelope
from transforms.collect.decode_events import Decoded, quarantined
from transforms.collect.watch import Alarm, Limits, Watch

LIMITS = Limits(window_s=60.0, quarantined=0.1, least=100, volume=3.0)


def poll(good: int = 0, bad: int = 0, name: str = "t", rule: str = "range") -> Decoded:
    """So many events that are let in, and so many that are not."""
    event = RawEvent(name, 1, "e", "id", 0, b"")
    return Decoded([event] * good, [quarantined(name, 1, rule, "", Envelope("0:0", {}, b"", 0))] * bad, Counter())


def watched(*steps: tuple[float, Decoded | None], limits: Limits = LIMITS) -> list[Alarm]:
    """The alarms of polls at their times; None is a tick."""
    alarms: list[Alarm] = []
    watch = Watch(limits, alarms.append)
    for now, step in steps:
        watch.tick(now) if step is None else watch.note(step, now)
    return alarms


def test_the_fuse_blows_within_the_window_once_and_names_the_rule() -> None:
    alarms = watched((0, poll(80, 10)), (1, poll(10, 3, rule="late")), (2, poll(0, 50)))
    assert alarms == [Alarm("t", 0, "13% of 103 events are in quarantine, 10 by range")]


def test_few_events_and_a_share_at_the_limit_blow_nothing() -> None:
    assert watched((0, poll(0, 99))) == []
    assert watched((0, poll(90, 10))) == []


def test_types_are_watched_apart() -> None:
    alarms = watched((0, poll(1_000)), (0, poll(0, 100, "u")))
    assert [alarm.type for alarm in alarms] == ["u"]


def test_a_window_without_an_alarm_clears_the_fuse_and_an_empty_one_does_not() -> None:
    steps = [(0.0, poll(0, 100)), (60.0, None), (120.0, None), (130.0, poll(100)), (179.0, None), (180.0, None)]
    assert [(alarm.since, bool(alarm.reason)) for alarm in watched(*steps)] == [(0, True), (180, False)]


def test_a_volume_far_from_that_of_the_windows_before_blows_the_fuse_also_when_nothing_comes() -> None:
    steady = [(60.0 * minute, poll(200)) for minute in range(5)]
    for volume, alarmed in ((0, True), (60, True), (80, False), (500, False), (700, True)):
        last = [(300.0, poll(volume)), (360.0, None)] if volume else [(300.0, None), (360.0, None)]
        reasons = [alarm.reason for alarm in watched(*steady, *last) if alarm.reason]
        assert reasons == ([f"{volume} events in 60 s, where 200 came before"] if alarmed else [])
    assert not [one for one in watched(*steady, (360.0, None), limits=LIMITS._replace(volume=0)) if one.reason]


def test_two_windows_that_end_at_once_are_compared_by_their_rate() -> None:
    steady = [(60.0 * minute, poll(200)) for minute in range(5)]
    assert not [one for one in watched(*steady, (299.0, None), (359.0, poll(400)), (420.0, None)) if one.reason]
