"""The log: what is appended is read, in order and whole, from any position, by readers and by scans."""

from __future__ import annotations

import os
from functools import partial
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given
from hypothesis import strategies as st
from support.logs import any_log, event_id, log_reader, poll_all, scanned, stored_when_published

from connectors.kafka.client import KafkaClient
from connectors.kafka.consumer import Start
from connectors.log.batch import encode_batch, read_batch
from connectors.log.scan import Bounds, bounds, expire, position_at
from connectors.log.segments import LogSettings, create_log, list_segments, read_settings
from connectors.log.writer import Appended, LogWriter
from connectors.open import has_partitions, open_log_writer, open_partitions, read_between
from connectors.uri import UriError, source_uri, store_uri
from schemas.problems import InputError, JobError
from schemas.transport import POLL_BYTES
from transforms.streaming.elements import Envelopes
from transforms.streaming.read_partitions import ReadPartitions

TIMES = st.integers(0, 1 << 60)
EVENTS = st.lists(st.tuples(st.binary(max_size=40), TIMES), min_size=1, max_size=9)
ATTRIBUTES = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)


@given(EVENTS, ATTRIBUTES, st.integers(0, 1 << 60), st.booleans())
def test_a_batch_is_read_as_it_was_written_and_not_at_all_when_a_bit_is_another(
    events: list[tuple[bytes, int]], attributes: dict[str, str], first: int, with_ids: bool
) -> None:
    bodies, times = [body for body, _ in events], [at for _, at in events]
    ids = b"".join(map(event_id, range(len(events)))) if with_ids else b""
    data = encode_batch(first, bodies, times, attributes, ids)
    batch = read_batch(memoryview(data))
    assert batch is not None
    assert (batch.first, batch.bodies(), batch.published.tolist()) == (first, bodies, times)
    assert (batch.attributes, batch.ids) == (attributes, ids)
    assert (batch.header.oldest, batch.header.newest) == (min(times), max(times))
    for place in range(len(data)):
        torn = bytearray(data)
        torn[place] ^= 1
        assert read_batch(memoryview(bytes(torn))) is None


@given(st.lists(st.tuples(st.integers(0, 1), EVENTS), max_size=12), st.integers(1, 400), st.integers(1, 7), st.data())
def test_everything_is_read_from_any_position_in_polls_of_any_size_over_any_segments(
    appends: list[tuple[int, list[tuple[bytes, int]]]], segment_bytes: int, most: int, data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder, expected = Path(name), [list[tuple[bytes, int]](), list[tuple[bytes, int]]()]
        with any_log(folder, segment_bytes=segment_bytes) as writer:
            for partition, events in appends:
                appended = writer.append(partition, [body for body, _ in events], [at for _, at in events])
                assert appended == Appended(len(expected[partition]), len(events))
                expected[partition] += events
        reader = log_reader(folder)
        for partition, events in enumerate(expected):
            start = data.draw(st.integers(0, len(events)))
            stop = data.draw(st.integers(start, len(events)))
            envelopes = poll_all(reader, partition, start, most)
            assert [(one.body, one.published_at) for one in envelopes] == events[start:]
            assert [one.message_id for one in envelopes] == [f"{partition}:{one}" for one in range(start, len(events))]
            assert scanned(folder, partition, start, stop) == [
                (position, *events[position]) for position in range(start, stop)
            ]
            assert bounds(folder, partition) == Bounds(0, len(events))
        reader.close()


def test_a_reader_follows_a_writer_over_its_segments(tmp_path: Path) -> None:
    with any_log(tmp_path, segment_bytes=200) as writer:
        reader, offset = log_reader(tmp_path, idle_s=None, wait_s=5.0), 0
        for number in range(50):
            writer.append(1, [b"%d" % number], [number], {"schema": "s"})
            poll = reader.poll(1, offset, 10)
            assert [(one.body, one.attributes) for one in poll.envelopes] == [(b"%d" % number, {"schema": "s"})]
            assert (poll.handle, poll.done, reader.oldest(1)) == (offset + 1, False, number / 1000)
            offset = poll.handle
        assert len(list_segments(tmp_path, 1)) > 10


def test_an_engine_goes_back_to_an_offset_and_reads_it_again(tmp_path: Path) -> None:
    with any_log(tmp_path) as writer:
        writer.append(0, [b"a", b"b", b"c"], [1, 2, 3])
    reader = log_reader(tmp_path)
    assert [one.body for one in reader.poll(0, 0, 2).envelopes] == [b"a", b"b"]
    assert [one.body for one in reader.poll(0, 1, 2).envelopes] == [b"b", b"c"]
    assert reader.starts(0) == [0, 0]
    assert reader.starts(2) == []


def test_a_poll_has_no_more_bytes_than_it_may_unless_one_event_is_larger(tmp_path: Path) -> None:
    sizes = [POLL_BYTES - 10, 10, 1, 3 * POLL_BYTES, 5]
    with any_log(tmp_path) as writer:
        writer.append(0, [bytes(size) for size in sizes], [1] * len(sizes))
    reader, offset, polls = log_reader(tmp_path), 0, []
    while not (poll := reader.poll(0, offset, 100)).done:
        polls.append([len(one.body) for one in poll.envelopes])
        offset = poll.handle
    assert polls == [sizes[:2], sizes[2:3], sizes[3:4], sizes[4:]]


def test_an_event_that_comes_again_is_left_out_whichever_writer_appended_it(tmp_path: Path) -> None:
    with any_log(tmp_path, segment_bytes=150) as writer, any_log(tmp_path, segment_bytes=150) as zombie:
        for start in range(0, 40, 4):
            numbers = range(start, start + 8)  # half of them come again with the next
            ids = b"".join(map(event_id, numbers))
            bodies, times = [b"%d" % number for number in numbers], [0] * 8
            appended = [one.append(0, bodies, times, {}, ids).events for one in (writer, zombie)]
            assert appended == [8 if start == 0 else 4, 0]
        twice = b"".join(map(event_id, (100, 100, 101)))
        assert writer.append(0, [b"x", b"x", b"y"], [0] * 3, {}, twice).events == 2
    assert [body for _, body, _ in scanned(tmp_path, 0)] == [b"%d" % number for number in range(44)] + [b"x", b"y"]


def test_only_so_many_of_the_last_ids_are_remembered(tmp_path: Path) -> None:
    with any_log(tmp_path, segment_bytes=300, remember=10) as writer:
        for number in range(50):
            writer.append(0, [b""], [0], {}, event_id(number))
        assert writer.append(0, [b""] * 2, [0] * 2, {}, event_id(45) + event_id(5)).events == 1
    with any_log(tmp_path, remember=10) as other:
        assert other.append(0, [b""] * 2, [0] * 2, {}, event_id(45) + event_id(6)).events == 1


def test_retention_deletes_whole_segments_and_a_reader_of_what_is_gone_goes_on_behind_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with any_log(tmp_path, retention_ms=800) as writer:
        for at in range(0, 2_000, 50):
            writer.append(0, [b"%d" % at], [at])
        assert len(list_segments(tmp_path, 0)) > 5  # none spans more than an eighth of the retention
        reader = log_reader(tmp_path)
        assert len(reader.poll(0, 0, 2).envelopes) == 2
        assert expire(tmp_path, 2_000) == [], "they were stored just now"
        stored_when_published(tmp_path, 0)
        deleted = expire(tmp_path, 2_000)
        kept = [int(body) for _, body, _ in scanned(tmp_path, 0)]
        assert deleted
        assert not any(path.exists() for path in deleted)
        assert 1_000 < kept[0] <= 1_200
        assert kept == list(range(kept[0], 2_000, 50))
        first = bounds(tmp_path, 0).first
        assert log_reader(tmp_path).starts(0) == [first, 0]
        assert poll_all(log_reader(tmp_path), 0, 1)[0].message_id == f"0:{first}"
        assert f"positions 1 to {first - 1} are gone (retention); reading goes on at {first}" in caplog.text
        assert int(poll_all(reader, 0, 2)[-1].body) == 1_950
        assert expire(tmp_path, 1 << 60)
        assert len(list_segments(tmp_path, 0)) == 1, "the active segment stays"
        assert writer.append(0, [b"next"], [2_000]).first == 40


def test_a_time_is_found_and_a_range_of_time_is_read_again(tmp_path: Path) -> None:
    uri = source_uri(f"file:{tmp_path}")
    with any_log(tmp_path) as writer:
        for at in range(0, 100, 10):
            writer.append(at % 20 // 10, [b"%d" % (at + 1), b"%d" % at], [at + 1, at])
    assert [position_at(tmp_path, 0, at) for at in (0, 1, 2, 81, 82)] == [0, 0, 2, 8, 10]
    windows = list(read_between(uri, KafkaClient(), 21, 51))
    assert sorted(int(one.body) for window, _ in windows for one in window) == [21, 30, 31, 40, 41, 50]
    assert {one.message_id: one.body for window, _ in windows for one in window}["0:2"] == b"21"


def test_the_places_to_begin_at_are_those_of_a_kafka_group(tmp_path: Path) -> None:
    uri = source_uri(f"file:{tmp_path}/t")
    assert not has_partitions(uri)
    with open_log_writer(store_uri(f"file:{tmp_path}").of_type("t"), 2) as writer:
        for at in range(10):
            writer.append(1, [b""], [at])
    assert has_partitions(uri)
    starts = {}
    for start in (None, Start("latest"), Start(at=4), Start(offsets=((1, 7),))):
        reader = open_partitions(uri, KafkaClient(), "", start=start)
        reader.open()
        starts[start] = reader.starts(0)
    assert list(starts.values()) == [[0, 0], [0, 10], [0, 4], [0, 7]]


def test_what_is_no_log_is_said_and_another_number_of_partitions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no log of events"):
        LogWriter(tmp_path).open()
    create_log(tmp_path / "t", LogSettings(4))
    create_log(tmp_path / "t", LogSettings(4, 10))
    assert read_settings(tmp_path / "t") == LogSettings(4, 10)
    with pytest.raises(InputError, match="the log has 4 partitions"):
        create_log(tmp_path / "t", LogSettings(8))
    with pytest.raises(ValueError, match="has no partition 4"):
        LogWriter(tmp_path / "t").append(4, [b""], [0])
    for wrong in ("file:gs://bucket/store", "pubsub:projects/project-1/topics/topic"):
        with pytest.raises(UriError, match="is no event store"):
            store_uri(wrong)


def test_columns_of_different_lengths_are_no_batch(tmp_path: Path) -> None:
    with any_log(tmp_path) as writer:
        with pytest.raises(ValueError, match="are no batch"):
            writer.append(0, [b"", b""], [0])
        with pytest.raises(ValueError, match="have 1 ids"):
            writer.append(0, [b"", b""], [0, 0], {}, event_id(1))
        assert writer.append(0, [], []) == Appended(0, 0)
        assert writer.next_position(0) == 0


def test_a_position_behind_the_end_is_an_error_for_the_log_is_another(tmp_path: Path) -> None:
    with any_log(tmp_path) as writer:
        writer.append(0, [b"", b""], [0, 0])
    for partition, offset in ((0, 3), (1, 1)):
        with pytest.raises(JobError, match=f"reading should go on at {offset}"):
            log_reader(tmp_path).poll(partition, offset, 1)


def test_a_log_that_became_shorter_under_a_writer_is_an_error(tmp_path: Path) -> None:
    with any_log(tmp_path) as writer:
        writer.append(0, [b"", b""], [0, 0])
        (segment,) = list_segments(tmp_path, 0)
        os.truncate(segment.path, 0)
        with pytest.raises(JobError, match="there were events up to 2"):
            writer.append(0, [b""], [0])


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_the_bodies_of_a_batch_are_cut_at_their_lengths(sizes: list[int]) -> None:
    batch = read_batch(memoryview(encode_batch(5, [bytes([size]) * size for size in sizes], [0] * len(sizes), {})))
    assert batch is not None
    for start, stop in zip(range(len(sizes)), accumulate([1] * len(sizes)), strict=True):
        assert batch.cut(5 + start, 5 + stop).bodies() == [bytes([sizes[start]]) * sizes[start]]
    with pytest.raises(ValueError, match="no event from"):
        batch.cut(0, 5)


_READ: list[str] = []


def _note(polled: Envelopes) -> None:
    _READ.extend(one.message_id for one in polled.items)


def test_a_pipeline_reads_every_position_once(tmp_path: Path) -> None:
    with any_log(tmp_path, 3, segment_bytes=10_000) as writer:
        for number in range(300):
            writer.append(number % 3, [b"x" * 20] * 50, [number] * 50)
    _READ.clear()
    make = partial(open_partitions, source_uri(f"file:{tmp_path}"), KafkaClient(), "", idle_s=0.0)
    with beam.Pipeline(runner=FnApiRunner()) as p:
        _ = p | ReadPartitions(make, lambda: 5.0) | "Note" >> beam.Map(_note)
    assert sorted(_READ) == sorted(f"{partition}:{position}" for partition in range(3) for position in range(5_000))
