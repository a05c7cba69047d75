"""The shared steps in a pipeline that knows nothing of campaigns: own element, keys, ids, times, counters, namespace."""

from __future__ import annotations

import ast
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.test_stream import TestStream
from support.streams import CLUSTER, NO_TIMERS, run_stream, stream_clock

import transforms.streaming
from schemas.contracts import DeadLetter
from schemas.transport import Envelope, Poll
from transforms.streaming.counters import SHARED, Counters
from transforms.streaming.decode import Decode
from transforms.streaming.drop_duplicates import DropDuplicates
from transforms.streaming.elements import Items, StructCoder, keyed
from transforms.streaming.group_by_shard import GroupByShard, group_of
from transforms.streaming.hold_until_due import HoldUntilDue
from transforms.streaming.read_messages import ReadMessages

pytestmark = pytest.mark.filterwarnings("ignore:cannot collect")
COUNTERS = Counters("till-scans", (*SHARED, "counted"), leaving=("counted",))
OUT: list[Any] = []


class Scan(msgspec.Struct, frozen=True, array_like=True):
    """A scan of an article at a till; it is published `publish_at` (epoch s)."""

    till: str
    number: int
    publish_at: int
    body: bytes = b""


class Scans(Items[Scan], frozen=True):
    """Scans that move together."""


beam.coders.registry.register_coder(Scans, StructCoder)


def read_scans(envelopes: list[Envelope], now: int) -> list[Scan | DeadLetter]:
    """A scan of each body `till,number,second`; a dead letter of any other."""
    return [read_scan(envelope.body) for envelope in envelopes]


def read_scan(body: bytes) -> Scan | DeadLetter:
    try:
        till, number, second = body.decode().split(",")
        return Scan(till, int(number), int(second), body)
    except ValueError:
        return DeadLetter("ReadScans", "no_scan", "", source="till", data=body, trace="")


def scan_ids(scans: list[Scan]) -> list[bytes]:
    return [blake2b(f"{scan.till}/{scan.number}".encode(), digest_size=16).digest() for scan in scans]


def scan_times(scans: list[Scan]) -> list[int]:
    return [scan.publish_at * 1000 for scan in scans]


def number_of(scan: Scan) -> str:
    return f"{scan.number:04x}"


class Till:
    """A reader of two polls."""

    def __init__(self) -> None:
        self._polls = [[b"a,1,0", b"b,1,0", b"a,1,0"], [b"a,2,0", b"no scan", b"a,1,0", b"a,3,9999999999"]]

    def open(self) -> None: ...
    def close(self) -> None: ...
    def commit(self, handle: Any) -> None: ...

    def poll(self, most: int) -> Poll:
        bodies = self._polls.pop(0) if self._polls else []
        return Poll([Envelope("", {}, body, 0) for body in bodies], done=not self._polls)

    def oldest(self) -> float:
        return 0.0


def open_till(index: int) -> Till:
    return Till()


def collect(element: Any) -> None:
    OUT.append(element)


def test_it_reads_decodes_groups_drops_duplicates_and_holds_on_the_direct_runner() -> None:
    OUT.clear()
    with beam.Pipeline(runner=FnApiRunner()) as p:
        scans, letters = (
            p
            | "ReadScans" >> ReadMessages(open_till, NO_TIMERS, COUNTERS)
            | "Decode" >> Decode(read_scans, Scans, stream_clock, COUNTERS)
        )
        due, released = (
            scans
            | "GroupByTill" >> GroupByShard(Scans, attrgetter("till"), number_of, stream_clock)
            | "DropDuplicates" >> DropDuplicates(scan_ids, 60.0, stream_clock, NO_TIMERS, COUNTERS)
            | "HoldUntilDue" >> HoldUntilDue(Scans, scan_times, stream_clock, NO_TIMERS, COUNTERS)
        )
        _ = (due, released) | beam.Flatten() | "Scans" >> beam.Map(collect)
        _ = letters | "Letters" >> beam.Map(collect)
    keyed_scans = [element for element in OUT if not isinstance(element, DeadLetter)]
    assert {key[0] for key, _ in keyed_scans} <= {group_of("a", 1), group_of("b", 1)}
    assert sorted((scan.till, scan.number) for _, some in keyed_scans for scan in some.items) == [
        ("a", 1), ("a", 2), ("b", 1),
    ]  # fmt: skip
    assert [letter.data for letter in OUT if isinstance(letter, DeadLetter)] == [b"no scan"]
    assert dict(COUNTERS.tally) == {"read": 7, "dead_lettered": 1, "repeats": 2, "held": 1, "left_waiting": 1}
    assert COUNTERS.in_flight() == 3
    COUNTERS.counter("counted").inc(3, 15)
    assert (COUNTERS.in_flight(), COUNTERS.bytes_in_flight()) == (0, 0)


def test_it_drops_duplicates_and_holds_on_a_stream_with_a_clock() -> None:
    def step(lists: Any) -> Any:
        dropped = lists | DropDuplicates(scan_ids, 60.0, stream_clock, CLUSTER, COUNTERS)
        return dropped | HoldUntilDue(Scans, scan_times, stream_clock, CLUSTER, COUNTERS) | beam.Flatten()

    first, second = Scan("a", 1, 0), Scan("a", 2, 30)
    stream = TestStream().add_elements([(("a", 0), Scans([first, second, first]))]).advance_processing_time(30)
    stream = stream.add_elements([(("a", 0), Scans([second]))]).advance_watermark_to_infinity()
    lists = run_stream(stream, step, keyed(Scans))
    assert [(time, scans.items) for time, (_, scans) in lists] == [(0, [first]), (30, [second])]


def test_a_counter_must_be_declared() -> None:
    with pytest.raises(ValueError, match="'accepted' is no counter of till-scans"):
        COUNTERS.counter("accepted")


def test_the_shared_steps_import_nothing_of_deliveries() -> None:
    for path in Path(transforms.streaming.__path__[0]).glob("*.py"):
        imports = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
        ours = {name for name in names if name.split(".")[0] in ("schemas", "transforms", "stores", "pipelines")}
        assert all(
            name.startswith(("transforms.streaming", "schemas.transport", "schemas.contracts", "schemas.columns"))
            for name in ours
        ), path
        assert "rebatch" not in path.read_text().lower(), path
