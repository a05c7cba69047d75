"""The calls of the feature server: Feast's and ours, mistakes with field and fix, slow stores, and what is counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feature_server import row_at, write_declarations

from schemas.problems import JobError
from serving.features.metrics import FeatureMetrics
from serving.features.reader import FeatureReader
from serving.features.server import load_columns
from serving.features.service import FeatureService
from serving.features.worker import load_layouts
from serving.http_server import Request
from stores.features.lmdb_store import LmdbStore

NOW, HOUR = 1_800_000_000_000, 3_600_000
AT = "2027-01-15T07:00:00.000Z"  # an hour before NOW
NEVER = "1970-01-01T00:00:00Z"


class Controlled(LmdbStore):
    """A store that waits for `go`, or fails with `error`."""

    error: JobError | None = None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go = threading.Event()
        self.go.set()

    def read(self, wanted: Sequence[tuple[str, str]]) -> list[list[bytes]]:
        self.go.wait(10)
        if self.error:
            raise self.error
        return super().read(wanted)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controlled]:
    opened = Controlled(tmp_path_factory.mktemp("store"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reader(store: Controlled, tmp_path_factory: pytest.TempPathFactory) -> FeatureReader:
    layouts = load_layouts(str(write_declarations(tmp_path_factory.mktemp("declared") / "f")), load_columns(None))
    store.write(
        "spend@1",
        0,
        {
            "h1": row_at(layouts["spend@1"], [NOW - HOUR, NOW - 5 * HOUR]),
            "7": row_at(layouts["spend@1"], [NOW - 30 * HOUR]),
        },
    )
    store.write("sales@2", 0, {"s1\x1f12": row_at(layouts["sales@2"], [NOW - HOUR])})
    return FeatureReader(store, layouts, lambda: NOW)


@pytest.fixture(scope="module")
def service(reader: FeatureReader) -> FeatureService:
    return FeatureService(reader, FeatureMetrics(), local=True)


def post(service: FeatureService, path: str, body: Any, **fields: str) -> tuple[int, Any]:
    """The status and the decoded answer of a call."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    answer = service.answer(Request("POST", path, fields, data))
    if isinstance(answer, Awaitable):
        return asyncio.run(_awaited(answer))
    return answer.status, orjson.loads(answer.body)


async def _awaited(answer: Awaitable[Any]) -> tuple[int, Any]:
    response = await answer
    return response.status, orjson.loads(response.body)


def feast(service: FeatureService, features: list[str], entities: dict[str, list[Any]], **more: Any) -> tuple[int, Any]:
    return post(service, "/get-online-features", {"features": features, "entities": entities, **more})


def test_feasts_call_answers_as_feast_does(service: FeatureService) -> None:
    status, body = feast(service, ["spend:lines_7d", "spend:sales_cents_max_7d"], {"household_id": ["h1", 7, "nobody"]})
    assert status == 200
    assert body == {
        "metadata": {"feature_names": ["household_id", "lines_7d", "sales_cents_max_7d"]},
        "results": [
            {"values": ["h1", 7, "nobody"], "statuses": ["PRESENT"] * 3, "event_timestamps": [NEVER] * 3},
            {"values": [2, 1, 0], "statuses": ["PRESENT", "OUTSIDE_MAX_AGE", "PRESENT"], "event_timestamps": [AT, "2027-01-14T02:00:00.000Z", NEVER]},
            {"values": [700, 700, None], "statuses": ["PRESENT", "OUTSIDE_MAX_AGE", "NOT_FOUND"], "event_timestamps": [AT, "2027-01-14T02:00:00.000Z", NEVER]},
        ],
    }  # fmt: skip


def test_feasts_call_reads_groups_of_different_keys_and_full_names(service: FeatureService) -> None:
    entities: dict[str, list[Any]] = {"household_id": ["h1"], "product_id": [12], "store_id": ["s1"]}
    status, body = feast(
        service,
        ["sales:sold_7d", "spend@1:lines_1h", "sales:sales_cents_last_k_7d"],
        entities,
        full_feature_names=True,
        other=1,
    )
    assert status == 200
    assert body["metadata"]["feature_names"][3:] == [
        "sales__sold_7d",
        "spend@1__lines_1h",
        "sales__sales_cents_last_k_7d",
    ]
    assert [result["values"] for result in body["results"][3:]] == [[1], [0], [None]]
    assert [result["statuses"] for result in body["results"][3:]] == [["PRESENT"], ["PRESENT"], ["NULL_VALUE"]]


@pytest.mark.parametrize(
    ("body", "field", "fix"),
    [
        (b"", "", "truncated"),
        (b"\xff{", "", ""),
        (b"[]", "", "Expected `object`"),
        (b"[" * 100_000, "", ""),
        ({"features": ["spend:lines_7d"]}, "", "missing required field `entities`"),
        ({"features": [], "entities": {"household_id": ["a"]}}, "features", "name features"),
        ({"feature_service": "s", "entities": {"household_id": ["a"]}}, "features", "there are no feature services"),
        ({"features": "spend:lines_7d", "entities": {}}, "features", "Expected `array`"),
        ({"features": ["lines_7d"], "entities": {"household_id": ["a"]}}, "features", "write GROUP:FEATURE"),
        ({"features": ["spend:lines_8d"], "entities": {"household_id": ["a"]}}, "features", "is one of lines_1h, lines_7d"),
        ({"features": ["spent:lines_7d"], "entities": {"household_id": ["a"]}}, "features", "a group is one of peaks@1, sales@2, spend@1"),
        ({"features": ["spend:lines_7d"], "entities": {}}, "entities", "name the columns"),
        ({"features": ["spend:lines_7d"], "entities": {"store_id": ["a"]}}, "entities", "are named by household_id"),
        ({"features": ["spend:lines_7d"], "entities": {"household_id": ["a", 1.5]}}, "entities[...][1]", "Expected `int | str`"),
        ({"features": ["spend:lines_7d"], "entities": {"household_id": [None]}}, "entities[...][0]", "Expected `int | str`"),
        ({"features": ["spend:lines_7d"], "entities": {"household_id": ["a"], "store_id": []}}, "entities", "a value for each entity"),
        ({"features": ["spend:lines_7d", "spend@1:lines_7d"], "entities": {"household_id": ["a"]}}, "features", "full_feature_names"),
        ({"features": ["spend:lines_7d"], "entities": {"household_id": ["a"] * 200_001}}, "entities", "at most 200,000 values"),
    ],
)  # fmt: skip
def test_a_mistake_in_feasts_call_is_told_with_its_field_and_fix(
    service: FeatureService, body: Any, field: str, fix: str
) -> None:
    status, answer = post(service, "/get-online-features", body)
    assert status == 400
    assert fix in answer["error"]
    assert answer["detail"] == answer["error"]
    assert answer["problems"][0]["field"] == field


def test_our_call_gives_values_qualities_and_ages(service: FeatureService) -> None:
    groups = {
        "spend": {"entities": ["h1", 7, "x"], "features": ["sales_cents_max_7d", "lines_1h"]},
        "sales@2": {"entities": [["s1", 12]]},
    }
    status, body = post(service, "/v1/features", {"groups": groups})
    assert status == 200
    assert body == {
        "at": NOW,
        "groups": {
            "spend": {"features": ["sales_cents_max_7d", "lines_1h"], "values": [[700, 700, None], [0, 0, 0]], "qualities": ["fsd", "ddd"], "ages_ms": [HOUR, 30 * HOUR, None], "error": ""},
            "sales@2": {"features": ["sold_7d", "sales_cents_last_k_7d"], "values": [[1], [None]], "qualities": ["f", "d"], "ages_ms": [HOUR], "error": ""},
        },
    }  # fmt: skip


def test_our_call_speaks_messagepack_too(service: FeatureService) -> None:
    body = msgspec.msgpack.encode({"groups": {"spend": {"entities": ["h1"], "features": ["lines_7d"]}}})
    answer = service.answer(Request("POST", "/v1/features", {"content-type": "application/msgpack"}, body))
    assert not isinstance(answer, Awaitable)
    assert msgspec.msgpack.decode(answer.body)["groups"]["spend"]["values"] == [[2]]
    assert answer.content_type == "application/msgpack"


@pytest.mark.parametrize(
    ("groups", "field", "fix"),
    [
        ({"spend": {"entities": [["a", "b"]]}}, "groups.spend.entities[0]", "has 1 columns: household_id"),
        ({"sales": {"entities": ["a"]}}, "groups.sales.entities[0]", "store_id, product_id"),
        ({"spend": {"entitys": []}}, "groups[...]", "unknown field `entitys`"),
        ({"spent": {"entities": []}}, "features", "a group is one of"),
        ({"spend": {"entities": ["a"] * 70_000}}, "groups.spend.entities", "at most 200,000 values"),
    ],
)
def test_a_mistake_in_our_call_is_told_with_its_field_and_fix(
    service: FeatureService, groups: Any, field: str, fix: str
) -> None:
    status, answer = post(service, "/v1/features", {"groups": groups})
    assert status == 400
    assert answer["problems"][0]["field"] == field
    assert fix in answer["problems"][0]["fix"]


def test_a_store_that_does_not_answer_is_a_503_and_never_nothing(service: FeatureService, store: Controlled) -> None:
    store.error = JobError("the store hangs", "look")
    try:
        assert feast(service, ["spend:lines_7d"], {"household_id": ["h1"]}) == (
            503, {"error": "features could not be read: the store hangs. look", "detail": "features could not be read: the store hangs. look"},
        )  # fmt: skip
        status, body = post(
            service, "/v1/features", {"groups": {"spend": {"entities": ["h1"], "features": ["lines_7d"]}}}
        )
        assert status == 503
        assert body["groups"]["spend"]["values"] == [[None]]
        assert body["groups"]["spend"]["qualities"] == ["e"]
        assert body["groups"]["spend"]["error"] == "the store hangs. look"
    finally:
        store.error = None


def test_a_slow_store_meets_the_deadline_and_too_many_calls_are_refused(
    reader: FeatureReader, store: Controlled
) -> None:
    metrics = FeatureMetrics()
    service = FeatureService(reader, metrics, local=False, deadline_s=0.05, threads=1, most_waiting=2)
    body = orjson.dumps({"groups": {"spend": {"entities": ["h1"], "features": ["lines_7d"]}}})

    async def calls(count: int) -> list[int]:
        answers = [service.run("grpc", service.compact_json, body) for _ in range(count)]
        statuses = [status for status, _ in await asyncio.gather(*answers)]
        while service._waiting and store.go.is_set():
            await asyncio.sleep(0.01)
        return statuses

    store.go.clear()
    assert asyncio.run(calls(4)) == [504, 504, 503, 503]
    store.go.set()
    service.close()
    again = FeatureService(reader, metrics, local=False, deadline_s=5.0)
    assert post(again, "/v1/features", body)[0] == 200
    again.close()
    page = metrics.page().decode()
    assert 'features_requests_total{call="grpc",outcome="late"} 2.0' in page
    assert 'features_requests_total{call="grpc",outcome="overloaded"} 2.0' in page
    assert 'features_requests_total{call="compact",outcome="ok"} 1.0' in page


def test_values_are_counted_by_feature_and_quality_and_ages_by_group(reader: FeatureReader) -> None:
    service = FeatureService(reader, FeatureMetrics(), local=True)
    feast(service, ["spend:lines_7d"], {"household_id": ["h1", "7", "x", "y"]})
    post(service, "/v1/features", b"{")
    answer = service.answer(Request("GET", "/metrics", {}, b""))
    assert not isinstance(answer, Awaitable)
    page = answer.body.decode()
    for quality, count in (("fresh", 1), ("stale", 1), ("default", 2)):
        assert f'features_values_total{{feature="lines_7d",group="spend@1",quality="{quality}"}} {count}.0' in page
    assert 'features_age_seconds_count{group="spend@1"} 2.0' in page
    assert 'features_requests_total{call="compact",outcome="mistake"} 1.0' in page
    assert 'features_request_seconds_count{call="feast"} 1.0' in page


@pytest.mark.parametrize("more", [0, 60])
def test_a_chained_group_is_read_from_the_tiles_of_another(
    service: FeatureService, store: Controlled, more: int
) -> None:
    """Some entities or many, one of them twice, one damaged."""
    store.write("spend@1", 1, {"damaged": b"x" * 21})
    entities = ["h1", "7", "nobody", "h1", "damaged", *(f"x{number}" for number in range(more))]
    status, body = post(service, "/v1/features", {"groups": {"peaks": {"entities": entities}}})
    assert status == 200
    answer = body["groups"]["peaks"]
    assert answer["features"] == ["lines_max_7d", "hours_1d"]
    assert answer["values"] == [[1, 1, 0, 1, None, *[0] * more], [2, 0, 0, 2, None, *[0] * more]]
    assert answer["qualities"] == ["fsdfe" + "d" * more, "fddfe" + "d" * more]
    assert answer["ages_ms"][:5] == [HOUR, 30 * HOUR, None, HOUR, None]
    assert "damaged" in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/health", 200), ("GET", "/", 404), ("POST", "/", 404), ("GET", "/v1/features", 405), ("PUT", "/get-online-features", 405), ("HEAD", "/health?x", 200)],
)  # fmt: skip
def test_pages_and_methods(service: FeatureService, method: str, path: str, status: int) -> None:
    answer = service.answer(Request(method, path, {}, b""))
    assert not isinstance(answer, Awaitable)
    assert answer.status == status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.sampled_from(["spend", "household_id", "spend:lines_7d"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["features", "entities", "groups", "spend", "household_id", "full_feature_names"]), inner, max_size=4),
)  # fmt: skip
ENTITIES = st.lists(st.text(max_size=8) | st.integers(-(2**63), 2**63 - 1), max_size=4)


@given(
    body=JSON.map(
        lambda value: (
            orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATACLASS) if _fits(value) else str(value).encode()
        )
    )
    | st.binary(max_size=60)
)
@settings(max_examples=300)
def test_no_body_is_a_bug(service: FeatureService, body: bytes) -> None:
    """Any bytes are answered, or refused with a reason; an exception here would be a 500."""
    for path in ("/get-online-features", "/v1/features"):
        status, answer = post(service, path, body)
        assert status in (200, 400)
        assert status == 200 or answer["error"]
    answer = service.answer(Request("POST", "/v1/features", {"content-type": "application/msgpack"}, body))
    assert not isinstance(answer, Awaitable)
    assert answer.status in (200, 400)


@given(entities=ENTITIES)
def test_any_entities_are_echoed_and_answered(service: FeatureService, entities: list[Any]) -> None:
    status, body = feast(service, ["spend:lines_7d"], {"household_id": entities})
    assert status == 200
    assert body["results"][0]["values"] == entities
    assert len(body["results"][1]["values"]) == len(entities)


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True
