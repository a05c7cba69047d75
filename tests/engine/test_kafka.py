"""Kafka as a transport, on a real broker: what a launch publishes, and what is read again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from support.delivering import any_events
from support.factories import SECRET
from support.launching import any_place
from support.registry_server import running_registry

from connectors.kafka.client import KafkaClient, create_topic, read_properties
from connectors.kafka.consumer import PartitionConsumer, Start, begin_group
from connectors.kafka.partition_reader import KafkaPartitionReader
from connectors.kafka.reader import KafkaReader
from connectors.kafka.sink import KafkaEvents
from connectors.uri import KafkaUri
from runners.cli.main import main
from runners.local.emulators import free_port
from runners.local.kafka_broker import KafkaBroker, kafka_broker
from schemas.contracts import DeadLetter, decode
from schemas.elements import EventBatch
from schemas.problems import JobError
from schemas.transport import Envelope, Poll
from transforms.delivery.decode_events import read_envelope

pytestmark = pytest.mark.engine
CLIENT = KafkaClient()
Row = tuple[bytes, str | None, dict[str, str], int, int]  # body, key, headers, partition, published at


@pytest.fixture
def opened() -> Iterator[Callable[[Any], Any]]:
    """`opened(reader)`: the reader, open, and closed after the test."""
    with ExitStack() as stack:

        def another(reader: Any) -> Any:
            reader.open()
            stack.callback(reader.close)
            return reader

        yield another


def put(uri: KafkaUri, *names: str, partition: int = 0, at: int = 0, **headers: str) -> None:
    """A message a name, published at a time."""
    producer = Producer({"bootstrap.servers": uri.brokers[0]})
    for name in names:
        producer.produce(uri.topic, name.encode(), partition=partition, timestamp=at, headers=list(headers.items()))
    assert producer.flush(30) == 0


def rows(uri: KafkaUri, expected: int) -> list[Row]:
    """All messages of a topic as a plain client sees them."""
    consumer = Consumer({"bootstrap.servers": uri.brokers[0], "group.id": "plain", "enable.auto.commit": False})
    consumer.assign([TopicPartition(uri.topic, one, 0) for one in (0, 1)])
    got: list[Any] = []
    while len(got) < expected:
        got += [one for one in consumer.consume(1_000, 0.3) if one.error() is None]
    got += consumer.consume(1_000, 0.3)
    consumer.close()
    return [
        (one.value(), one.key() and one.key().decode(), {k: v.decode() for k, v in one.headers() or ()}, one.partition(), one.timestamp()[1])
        for one in got
    ]  # fmt: skip


def event_batch(events: dict[str, tuple[bytes, dict[str, str]]]) -> EventBatch:
    """Events as the launch hands them to a sink: constants, and a dictionary of retailers."""
    names, attributes = list(events), [one for _, one in events.values()]
    columns = {
        "event_id": pa.array(names),
        "retailer_id": pa.array([one["retailer_id"] for one in attributes]).dictionary_encode(),
        **{name: attributes[0][name] for name in ("launch_id", "schema")},
    }
    bodies = pa.array([body for body, _ in events.values()], pa.large_binary())
    return EventBatch(None, bodies, columns, None)  # type: ignore[arg-type]


def ids(polls: list[Poll]) -> list[str]:
    return [one.body.decode() for poll in polls for one in poll.envelopes]


def polls(reader: KafkaReader, expected: int, most: int = 1_000) -> list[Poll]:
    """The polls that brought so many messages; the test's timeout ends it if they do not come."""
    got: list[Poll] = []
    while len(ids(got)) < expected:
        poll = reader.poll(most)
        assert not poll.done
        if poll.envelopes:  # a poll may bring nothing, above all the first, while the broker is slow
            got.append(poll)
    return got


def reader(uri: KafkaUri, group: str = "g", **changes: Any) -> KafkaReader:
    return KafkaReader(uri, changes.pop("client", CLIENT), group, **changes)


def test_a_sink_publishes_events_with_key_and_headers_and_a_reader_gives_them_back(
    uri: KafkaUri, opened: Callable[[Any], Any]
) -> None:
    events = any_events(2_500, retailers=tuple(f"store-{number}" for number in range(7)))
    sink = opened(KafkaEvents(uri, CLIENT))
    sink.send(event_batch(events))
    assert sink.settle() == []
    seen = rows(uri, len(events))
    assert {headers["event_id"]: body for body, _, headers, _, _ in seen} == {
        name: wire[0] for name, wire in events.items()
    }
    assert all(key == headers["retailer_id"] and headers["launch_id"] == "launch-1" for _, key, headers, _, _ in seen)
    homes = {(key, partition) for _, key, _, partition, _ in seen}
    assert len(homes) == 7  # a retailer has one partition
    assert len({partition for _, partition in homes}) == 2
    got: list[Envelope] = []
    source = opened(reader(uri))
    while len(got) < len(events):
        poll = source.poll(700)
        assert len(poll.envelopes) <= 700
        got += poll.envelopes
    assert {one.attributes["event_id"]: one.body for one in got} == {name: wire[0] for name, wire in events.items()}
    assert len({one.message_id for one in got}) == len(events)
    assert abs(got[0].published_at / 1000 - time.time()) < 600


def test_a_launch_publishes_what_it_would_write_to_files(
    uri: KafkaUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)
    place, files = any_place(tmp_path / "kafka"), any_place(tmp_path / "files")
    assert files.launch() == 0
    config = tmp_path / "kafka.properties"
    config.write_text("compression.type=zstd\n")
    argv = [option for option in place.argv("--batch_rows=100") if not option.startswith("--events")]
    assert main(["launch", *argv, f"--events={uri}", f"--kafka_config={config}"]) == 0
    seen = rows(uri, len(files.events()))
    assert {headers["event_id"] for _, _, headers, _, _ in seen} == files.events().keys()
    for body, key, headers, _, _ in seen:
        event = decode(headers["schema"], body)
        assert (event["event_id"], event["retailer_id"]) == (headers["event_id"], key)
    assert main(["check", str(place.output)]) == 0


def test_what_is_too_large_for_the_client_or_for_the_topic_is_refused_and_the_rest_is_published(
    kafka_host: str, opened: Callable[[Any], Any]
) -> None:
    uri = KafkaUri((kafka_host,), f"t-{uuid.uuid4().hex}")
    topic = NewTopic(uri.topic, 2, 1, config={"max.message.bytes": "20000"})
    admin = AdminClient({"bootstrap.servers": kafka_host})
    admin.create_topics([topic])[uri.topic].result()
    events = any_events(40)
    names = list(events)
    for place, size in ((3, 30_000), (17, 2_000_000)):
        events[names[place]] = (b"x" * size, events[names[place]][1])
    sink = opened(KafkaEvents(uri, KafkaClient((("compression.type", "none"),))))
    for _ in range(2):
        sink.send(event_batch(events))
        refused = sink.settle()
        assert [(one.row, one.reason) for one in refused] == [(3, "over_size"), (17, "over_size")]
    assert "2,000,000 bytes" in refused[1].detail
    assert len(rows(uri, 76)) == 76


def test_a_group_begins_where_it_is_asked_to_and_then_goes_on_where_it_stopped(
    uri: KafkaUri, opened: Callable[[Any], Any]
) -> None:
    for at in (1_000_000, 2_000_000, 3_000_000):
        put(uri, f"a{at}", partition=0, at=at)
    put(uri, "b2500000", partition=1, at=2_500_000)
    every = ["a1000000", "a2000000", "a3000000", "b2500000"]
    for name, start, expected in (
        ("none", None, every),
        ("early", Start("earliest"), every),
        ("time", Start(at=2_000_000), every[1:]),
        ("between", Start(at=2_600_000), every[2:3]),
        ("given", Start(offsets=((0, 2),)), every[2:]),
        ("late", Start("latest"), []),
    ):
        begin_group(uri, CLIENT, name, start)
        assert sorted(ids(polls(opened(reader(uri, name)), len(expected)))) == expected, name
    log = opened(KafkaPartitionReader(uri, CLIENT, "log", start=Start(at=2_600_000)))
    assert log.starts(0) == [2, 1]
    put(uri, "new", partition=1)
    begin_group(uri, CLIENT, "late", Start("latest"))  # nothing was committed but where it began
    source = opened(reader(uri, "late"))
    (got,) = polls(source, 1)
    source.commit(got.handle)
    begin_group(uri, CLIENT, "late", Start("earliest"))
    put(uri, "newer", partition=1)
    assert ids(polls(opened(reader(uri, "late")), 1)) == ["newer"]


def test_an_older_commit_does_not_take_back_a_newer_one(uri: KafkaUri, opened: Callable[[Any], Any]) -> None:
    put(uri, "a", "b", "c")
    source = opened(reader(uri))
    first, second = polls(source, 2, most=1)
    source.commit(second.handle)
    source.commit(first.handle)
    assert ids(polls(opened(reader(uri)), 1)) == ["c"]


def test_partitions_are_shared_and_new_ones_are_found(uri: KafkaUri, opened: Callable[[Any], Any]) -> None:
    put(uri, "zero", partition=0)
    put(uri, "one", partition=1)
    even, odd = (opened(reader(uri, index=index, readers=2, look_every_s=0.2)) for index in (0, 1))
    assert ids(polls(even, 1)) == ["zero"]
    assert ids(polls(odd, 1)) == ["one"]
    admin = AdminClient({"bootstrap.servers": uri.brokers[0]})
    admin.create_partitions([NewPartitions(uri.topic, 4)])[uri.topic].result()
    put(uri, "two", partition=2)
    put(uri, "three", partition=3)
    assert ids(polls(even, 1)) == ["two"]
    assert ids(polls(odd, 1)) == ["three"]


def test_a_drained_reader_is_done_at_the_end_and_one_that_is_asked_to_stop_at_once(
    uri: KafkaUri, opened: Callable[[Any], Any]
) -> None:
    put(uri, *(f"{number}" for number in range(100)))
    source, stop, got = opened(reader(uri, idle_s=0.3)), [False], 0
    while not (poll := source.poll(30)).done:
        got += len(poll.envelopes)
    assert got == 100
    without = opened(reader(uri, index=2, readers=3, idle_s=0.1))  # there are two partitions
    while not (poll := without.poll(30)).done:
        assert poll.envelopes == []
    stopped = opened(reader(uri, stop=lambda: stop[0]))
    stop[0] = True
    assert stopped.poll(10).done


def test_the_watermark_is_that_of_the_messages_and_of_an_idle_topic_the_clocks(
    uri: KafkaUri, opened: Callable[[Any], Any]
) -> None:
    put(uri, "old", at=1_000_000)
    source = opened(reader(uri))
    polls(source, 1)
    assert source.oldest() == 1_000.0
    while source.oldest() < time.time() - 60:
        source.poll(10)
    log = opened(KafkaPartitionReader(uri, CLIENT, "g"))
    assert log.starts(0) == [0, 0]
    assert log.starts(2) == []
    while not log.poll(0, 0, 10).envelopes:
        pass
    assert log.oldest(0) == 1_000.0
    while log.oldest(1) < time.time() - 60:
        assert log.poll(1, 0, 10) == Poll([], 0)


def test_an_offset_that_is_asked_for_again_is_read_again(uri: KafkaUri, opened: Callable[[Any], Any]) -> None:
    put(uri, "a", "b", "c")
    log = opened(KafkaPartitionReader(uri, CLIENT, "g"))
    for offset, expected in ((0, "a"), (1, "b"), (1, "b"), (0, "a")):
        while not (poll := log.poll(0, offset, 1)).envelopes:
            pass
        assert (ids([poll]), poll.handle) == ([expected], offset + 1)


def test_what_was_to_be_read_and_is_gone_is_reported(uri: KafkaUri, opened: Callable[[Any], Any]) -> None:
    put(uri, "a")
    consumer = PartitionConsumer(uri, CLIENT, "g").open()
    consumer.commit({0: 77})
    consumer.close()
    source = opened(reader(uri))
    with pytest.raises(JobError, match=r"no longer there .* auto\.offset\.reset=earliest"):
        polls(source, 1)
    accepting = opened(reader(uri, client=KafkaClient((("auto.offset.reset", "earliest"),))))
    assert ids(polls(accepting, 1)) == ["a"]


def test_a_topic_is_made_by_the_command(kafka_host: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"kafka:{kafka_host}/t-{uuid.uuid4().hex}"
    for expected in ("made", "was there already"):
        assert main(["topic", "create", name, "--partitions", "3"]) == 0
        assert capsys.readouterr().out == f"{name}: {expected}\n"
    assert main(["topic", "create", name, "--partitions", "0", "--subscription", "s"]) == 2
    assert "--kafka_group" in capsys.readouterr().err
    assert main(["topic", "create", "file:x"]) == 2


def test_a_topic_that_is_missing_and_brokers_that_do_not_answer_are_reported(kafka_host: str) -> None:
    with pytest.raises(JobError, match=r"campaigns topic create kafka:.*/nowhere"):
        reader(KafkaUri((kafka_host,), "nowhere")).open()
    with pytest.raises(JobError, match=r"campaigns topic create kafka:.*/nowhere"):
        KafkaEvents(KafkaUri((kafka_host,), "nowhere"), CLIENT).open()
    with pytest.raises(JobError, match="Check the brokers"):
        KafkaEvents(KafkaUri(("127.0.0.1:9",), "t"), CLIENT, deadline_s=1.0).open()


def test_a_broker_that_asks_for_a_password_is_given_the_environments(
    uri: KafkaUri, kafka: KafkaBroker, opened: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", kafka.password)
    text = f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username={kafka.user}\nsasl.password=${{KAFKA_PASSWORD}}\n"
    properties, wrong = read_properties(text)
    assert wrong == []
    secure, client = KafkaUri((kafka.sasl_host,), uri.topic), KafkaClient(properties)
    put(uri, "a")
    assert ids(polls(opened(reader(secure, client=client)), 1)) == ["a"]
    assert kafka.password not in repr(client)
    monkeypatch.setenv("KAFKA_PASSWORD", "wrong")
    with pytest.raises(JobError, match="Check user, password and mechanism") as expected:
        KafkaEvents(secure, client, deadline_s=5.0).open()
    assert "wrong" not in str(expected.value)


def test_with_a_registry_messages_are_framed_and_what_it_does_not_know_becomes_a_dead_letter(
    uri: KafkaUri, opened: Callable[[Any], Any]
) -> None:
    events = any_events(20)
    with running_registry() as registry:
        client = KafkaClient(registry=registry.url)
        sink = opened(KafkaEvents(uri, client))
        sink.send(event_batch(events))
        assert sink.settle() == []
        (number,) = registry.subjects[f"{uri.topic}-value"]
        framed = {b"\0" + number.to_bytes(4, "big") + body for body, _ in events.values()}
        assert {row[0] for row in rows(uri, 20)} == framed
        body, attributes = next(iter(events.values()))
        producer = Producer({"bootstrap.servers": uri.brokers[0]})
        bare = {name: attributes[name] for name in ("event_id", "retailer_id")}
        for frame in (number, 9):  # another producer, which says the schema by its id only
            producer.produce(uri.topic, b"\0" + frame.to_bytes(4, "big") + body, headers=list(bare.items()))
        assert producer.flush(30) == 0
        got: list[Envelope] = []
        source = opened(reader(uri, client=client))
        while len(got) < 22:
            got += source.poll(100).envelopes
    made = [read_envelope(one, 0) for one in got]
    (letter,) = [one for one in made if isinstance(one, DeadLetter)]
    assert (letter.reason, letter.data) == ("unknown_schema", b"\0\0\0\0\x09" + body)
    good = [one for one in made if not isinstance(one, DeadLetter)]
    assert {one.event_id: one.body for one in good} == {name: wire[0] for name, wire in events.items()}
    assert len(good) == 21


def test_a_broker_that_goes_away_is_waited_for_and_comes_back_with_everything(
    tmp_path: Path, opened: Callable[[Any], Any], kafka: KafkaBroker
) -> None:
    port, events = free_port(), any_events(50)
    uri = KafkaUri((f"127.0.0.1:{port}",), "events")
    with kafka_broker(tmp_path, port):
        assert create_topic(uri, CLIENT, partitions=1, replicas=1)
        assert not create_topic(uri, CLIENT, partitions=1, replicas=1)
        patient, hasty = opened(KafkaEvents(uri, CLIENT)), opened(KafkaEvents(uri, CLIENT, deadline_s=1.0))
        source = opened(reader(uri, idle_s=0.2))
        patient.send(event_batch(events))
        assert patient.settle() == []
        got = 0
        while got < 50:
            got += len(source.poll(100).envelopes)
    hasty.send(event_batch(events))
    with pytest.raises(JobError, match=r"Nothing could be published .* goes on where it stopped"):
        hasty.settle()
    for _ in range(3):
        assert source.poll(10) == Poll([], {})  # a broker that cannot be reached is not one that has nothing
    patient.send(event_batch(events))
    with kafka_broker(tmp_path, port):
        assert patient.settle() == []
        while got < 100:
            got += len(source.poll(100).envelopes)
        while not (poll := source.poll(10)).done:
            assert poll.envelopes == []
    assert got == 100
