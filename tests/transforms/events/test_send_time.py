from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.campaigns.checks.values import find_time_zone, time_zones
from transforms.events.send_time import SendTime, customer_zones, send_time, send_times

NEW_YORK, BERLIN, LORD_HOWE, KATHMANDU = "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"
ZONES = [NEW_YORK, BERLIN, LORD_HOWE, KATHMANDU, "UTC", "Pacific/Apia", "America/Phoenix"]
NIGHT = (time(21), time(8))

CHANGE_DAYS = st.sampled_from(
    [datetime(2026, month, day) for month, day in [(3, 8), (11, 1), (3, 29), (10, 25), (4, 5), (10, 4), (6, 1)]]
)
STARTS = st.builds(lambda day, minutes: day + timedelta(minutes=minutes), CHANGE_DAYS, st.integers(-1_500, 3_000))
CLOCKS = st.integers(0, 287).map(lambda fives: time(fives // 12, fives % 12 * 5))
QUIET = st.none() | st.tuples(CLOCKS, CLOCKS).filter(lambda pair: pair[0] != pair[1])
EXPIRES = st.none() | st.timedeltas(timedelta(minutes=1), timedelta(days=40)) | STARTS


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def wall(milliseconds: int, zone: str) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)).astimezone(ZoneInfo(zone))


def is_quiet(now: time, quiet: tuple[time, time]) -> bool:
    begin, end = quiet
    return begin <= now < end if begin < end else not end <= now < begin


@pytest.mark.parametrize(
    ("start", "zone", "expected"),
    [
        ("2026-04-01T09:00", NEW_YORK, "2026-04-01T13:00"),
        ("2026-04-01T09:00", KATHMANDU, "2026-04-01T03:15"),
        ("2026-01-15T09:00", LORD_HOWE, "2026-01-14T22:00"),
        # Does not exist: forward by the gap.
        ("2026-03-08T02:30", NEW_YORK, "2026-03-08T07:30"),
        ("2026-03-29T02:00", BERLIN, "2026-03-29T01:00"),
        ("2026-10-04T02:10", LORD_HOWE, "2026-10-03T15:40"),
        # Occurs twice: the first.
        ("2026-11-01T01:30", NEW_YORK, "2026-11-01T05:30"),
        ("2026-10-25T02:30", BERLIN, "2026-10-25T00:30"),
        ("2026-04-05T01:45", LORD_HOWE, "2026-04-04T14:45"),
    ],
)
def test_a_local_start_is_wall_time_of_the_customer(start: str, zone: str, expected: str) -> None:
    assert send_time(datetime.fromisoformat(start), True, None, None, zone) == SendTime(utc(expected), None, False)


def test_a_start_without_a_zone_is_utc_unless_it_is_local() -> None:
    start = datetime(2026, 4, 1, 9)
    assert send_time(start, False, None, None, NEW_YORK).deliver_after == utc("2026-04-01T09:00")


@pytest.mark.parametrize("local", [True, False])
def test_a_start_with_a_zone_is_one_instant_for_all(local: bool) -> None:
    start = datetime(2026, 4, 1, 9, tzinfo=ZoneInfo(BERLIN))
    assert send_time(start, local, None, None, KATHMANDU).deliver_after == utc("2026-04-01T07:00")


def test_the_second_of_two_starts_is_told_by_no_fold() -> None:
    start = datetime(2026, 11, 1, 1, 30, fold=1)
    assert send_time(start, True, None, None, NEW_YORK).deliver_after == utc("2026-11-01T05:30")


@pytest.mark.parametrize(
    ("start", "quiet", "zone", "expected"),
    [
        ("2026-06-01T20:59", NIGHT, BERLIN, "2026-06-01T18:59"),
        ("2026-06-01T21:00", NIGHT, BERLIN, "2026-06-02T06:00"),
        ("2026-06-01T00:00", NIGHT, BERLIN, "2026-06-01T06:00"),
        ("2026-06-01T08:00", NIGHT, BERLIN, "2026-06-01T06:00"),
        ("2026-06-01T13:00", (time(12), time(14)), BERLIN, "2026-06-01T12:00"),
        ("2026-06-01T14:00", (time(12), time(14)), BERLIN, "2026-06-01T12:00"),
        # The night of a change is an hour shorter or longer, or half an hour; its end is at eight all the same.
        ("2026-03-07T22:00", NIGHT, NEW_YORK, "2026-03-08T12:00"),
        ("2026-10-31T22:00", NIGHT, NEW_YORK, "2026-11-01T13:00"),
        ("2026-10-03T22:00", NIGHT, LORD_HOWE, "2026-10-03T21:00"),
        ("2026-04-04T22:00", NIGHT, LORD_HOWE, "2026-04-04T21:30"),
        # An end that does not exist is moved by the gap, of one that occurs twice the first counts.
        ("2026-03-07T22:00", (time(21), time(2, 30)), NEW_YORK, "2026-03-08T07:30"),
        ("2026-10-31T22:00", (time(21), time(1, 30)), NEW_YORK, "2026-11-01T05:30"),
        ("2026-10-24T22:00", (time(21), time(2)), BERLIN, "2026-10-25T00:00"),
        # Moved by the gap into the quiet hours of a day with half an hour to send: the next day.
        ("2026-03-07T22:00", (time(3), time(2, 30)), NEW_YORK, "2026-03-09T06:30"),
    ],
)
def test_a_delivery_in_quiet_hours_moves_to_their_end(
    start: str, quiet: tuple[time, time], zone: str, expected: str
) -> None:
    moved = send_time(datetime.fromisoformat(start), True, quiet, None, zone)
    assert moved.deliver_after == utc(expected)


def test_in_the_second_pass_of_an_hour_quiet_hours_end_in_that_pass() -> None:
    start = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    assert wall(utc("2026-11-01T06:10"), NEW_YORK).time() == time(1, 10)
    moved = send_time(start, False, (time(21), time(1, 30)), None, NEW_YORK)
    assert moved.deliver_after == utc("2026-11-01T06:30")


def test_quiet_hours_are_the_customers_also_for_a_start_in_utc() -> None:
    start = datetime(2026, 6, 1, 3)
    assert send_time(start, False, NIGHT, None, KATHMANDU).deliver_after == utc("2026-06-01T03:00")
    assert send_time(start, False, NIGHT, None, NEW_YORK).deliver_after == utc("2026-06-01T12:00")


def test_quiet_hours_from_a_time_to_the_same_are_none() -> None:
    start = datetime(2026, 6, 1, 8)
    assert send_time(start, False, (time(8), time(8)), None, "UTC").deliver_after == utc("2026-06-01T08:00")


def test_a_relative_expiry_counts_from_the_delivery_in_elapsed_time() -> None:
    times = send_time(datetime(2026, 3, 7, 22), True, NIGHT, timedelta(days=3), NEW_YORK)
    assert times == SendTime(utc("2026-03-08T12:00"), utc("2026-03-11T12:00"), False)


@pytest.mark.parametrize(
    ("expires", "closed"),
    [("2026-06-02T07:59", True), ("2026-06-02T08:00", True), ("2026-06-02T08:01", False)],
)
def test_quiet_hours_up_to_the_expiry_close_the_window(expires: str, closed: bool) -> None:
    times = send_time(datetime(2026, 6, 1, 22), True, NIGHT, datetime.fromisoformat(expires), BERLIN)
    assert times.window_closed is closed
    assert times.expires_at == utc(expires) - 2 * 3_600_000


def test_an_expiry_without_a_zone_is_utc_unless_it_is_local() -> None:
    expires = datetime(2026, 6, 3)
    times = [send_time(datetime(2026, 6, 1), local, None, expires, NEW_YORK).expires_at for local in (False, True)]
    assert times == [utc("2026-06-03T00:00"), utc("2026-06-03T04:00")]


def test_part_of_a_millisecond_is_never_before_the_start() -> None:
    start = datetime(2026, 6, 1, microsecond=1)
    assert send_time(start, False, None, None, "UTC").deliver_after == utc("2026-06-01T00:00") + 1


@pytest.mark.parametrize("zone", ["America/Nowhere", "", "../UTC", "/etc/localtime", "america/new_york"])
def test_an_unknown_zone_is_refused_with_what_to_write(zone: str) -> None:
    with pytest.raises(ValueError, match="is no IANA time zone; write one such as America/Chicago"):
        send_time(datetime(2026, 6, 1), True, None, None, zone)


@given(STARTS, st.booleans(), QUIET, st.sampled_from(ZONES))
@example(datetime(2026, 11, 1, 6, 10), False, (time(21), time(1, 30)), NEW_YORK)
def test_a_delivery_is_never_in_quiet_hours_and_never_early(
    start: datetime, local: bool, quiet: tuple[time, time] | None, zone: str
) -> None:
    plain = send_time(start, local, None, None, zone).deliver_after
    moved = send_time(start, local, quiet, None, zone).deliver_after
    assert moved >= plain
    if quiet is None or not is_quiet(wall(plain, zone).time(), quiet):
        assert moved == plain
    else:
        assert not is_quiet(wall(moved, zone).time(), quiet)
        assert moved - plain <= 49 * 3_600_000


@given(STARTS, st.booleans(), QUIET, EXPIRES, st.lists(st.sampled_from(ZONES), max_size=30))
def test_a_column_has_the_times_of_its_zones(
    start: datetime,
    local: bool,
    quiet: tuple[time, time] | None,
    expires: timedelta | datetime | None,
    zones: list[str],
) -> None:
    times = send_times(start, local, quiet, expires, pa.array(zones, pa.string()))
    expected = [send_time(start, local, quiet, expires, zone) for zone in zones]
    assert times.deliver_after.tolist() == [one.deliver_after for one in expected]
    assert times.window_closed.tolist() == [one.window_closed for one in expected]
    if expires is None:
        assert times.expires_at is None
    else:
        assert times.expires_at is not None
        assert times.expires_at.tolist() == [one.expires_at for one in expected]


def test_a_column_may_be_a_dictionary_or_a_slice() -> None:
    zones = pa.array(["x", NEW_YORK, "UTC", NEW_YORK]).dictionary_encode().slice(1)
    times = send_times(datetime(2026, 6, 1, 9), True, None, None, zones)
    assert times.deliver_after.tolist() == [utc(f"2026-06-01T{hour}:00") for hour in ("13", "09", "13")]
    assert times.deliver_after.dtype == np.int64


def test_an_unknown_zone_of_a_column_is_refused() -> None:
    with pytest.raises(ValueError, match="'Mars/Base' is no IANA time zone"):
        send_times(datetime(2026, 6, 1), True, None, None, pa.array(["UTC", "Mars/Base"]))


@pytest.mark.parametrize(
    ("written", "zone", "unknown"),
    [
        ("Asia/Tokyo", "Asia/Tokyo", False),
        (" asia/TOKYO\t", "Asia/Tokyo", False),
        ("utc", "UTC", False),
        (None, BERLIN, False),
        ("", BERLIN, False),
        ("  ", BERLIN, False),
        ("Tokyo", BERLIN, True),
        ("localtime", BERLIN, True),
        ("Factory", BERLIN, True),
        ("../Asia/Tokyo", BERLIN, True),
        ("\0", BERLIN, True),
    ],
)
def test_a_customer_without_a_zone_has_the_retailers(written: str | None, zone: str, unknown: bool) -> None:
    found = customer_zones(pa.array([NEW_YORK, written]), pa.array([KATHMANDU, BERLIN]))
    assert found[0].to_pylist() == [NEW_YORK, zone]
    assert found[1].tolist() == [False, unknown]


def test_no_two_zones_differ_in_case_alone() -> None:
    assert len({name.casefold() for name in time_zones()}) == len(time_zones()) > 400
    assert all(find_time_zone(name.upper()) == name for name in time_zones())
