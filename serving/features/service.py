"""The calls of a feature server, whatever transport they come by: what is read, what is answered, what is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import orjson

from schemas.problems import InputError, JobError
from serving.features import compact_call, feast_call
from serving.features.metrics import FeatureMetrics
from serving.features.reader import FeatureReader, GroupValues
from serving.http_server import Request, Response, problem_response

Work = Callable[[bytes], tuple[Any, list[GroupValues]]]
_MSGPACK = "application/msgpack"
_encode_msgpack = msgspec.msgpack.Encoder().encode


class FeatureService:
    """Answers requests from a reader.

    A local store is read at once, in the loop: it takes less time than a thread would. One behind a network is read in
    one of `threads`; an answer that takes longer than `deadline_s` becomes 504, and while `most_waiting` requests wait
    more are refused with 503, so that a slow store does not fill the memory.
    """

    def __init__(
        self, reader: FeatureReader, metrics: FeatureMetrics, *, local: bool, deadline_s: float = 1.0,
        threads: int = 16, most_waiting: int = 256,
    ) -> None:  # fmt: skip
        self._reader, self._metrics = reader, metrics
        self._deadline_s, self._most_waiting, self._waiting = deadline_s, most_waiting, 0
        self._pool = None if local else ThreadPoolExecutor(threads, "features")

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        """The response to a request over HTTP."""
        path = request.path.partition("?")[0]
        if path in ("/get-online-features", "/v1/features"):
            if request.method != "POST":
                return problem_response(405, error=f"{path} takes POST")
            if path == "/get-online-features":
                return self._respond("feast", self.feast, request.body, orjson.dumps)
            packed = request.fields.get("content-type", "").partition(";")[0].strip() == _MSGPACK
            if packed:
                return self._respond("compact", self.compact_msgpack, request.body, _encode_msgpack, _MSGPACK)
            return self._respond("compact", self.compact_json, request.body, orjson.dumps)
        if request.method not in ("GET", "HEAD"):
            return problem_response(404, error="the calls are POST /get-online-features and POST /v1/features")
        if path == "/health":
            return Response(200, b'{"status":"ok"}')
        if path == "/metrics":
            return Response(200, self._metrics.page(), "text/plain; version=0.0.4; charset=utf-8")
        return problem_response(404, error="the pages are /health and /metrics")

    def feast(self, body: bytes) -> tuple[Any, list[GroupValues]]:
        """(the response of Feast's call, what was read)."""
        return feast_call.answer(self._reader, feast_call.decode(body))

    def compact_json(self, body: bytes) -> tuple[Any, list[GroupValues]]:
        """(the response of our call, what was read)."""
        return compact_call.answer(self._reader, compact_call.decode_json(body))

    def compact_msgpack(self, body: bytes) -> tuple[Any, list[GroupValues]]:
        """As `compact_json`, from MessagePack."""
        return compact_call.answer(self._reader, compact_call.decode_msgpack(body))

    async def run(self, call: str, work: Work, body: bytes, deadline_s: float | None = None) -> tuple[int, Any]:
        """(an HTTP status, the response as data), in a thread unless the store is local."""
        begun = time.perf_counter()
        if self._pool is None:
            return self._noted(call, begun, self._run(work, body))
        if self._waiting >= self._most_waiting:
            return self._noted(
                call, begun, _Done("overloaded", 503, {"error": "too many requests wait; try again later"})
            )
        limit, loop = min(self._deadline_s, deadline_s or self._deadline_s), asyncio.get_running_loop()
        future = self._pool.submit(self._run, work, body)
        self._waiting += 1
        future.add_done_callback(lambda _: self._leave(loop))  # a thread that is late still counts
        try:
            done = await asyncio.wait_for(asyncio.wrap_future(future), limit)
        except TimeoutError:
            done = _Done("late", 504, {"error": f"the feature store did not answer within {limit * 1_000:.0f} ms"})
        return self._noted(call, begun, done)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        def leave() -> None:
            self._waiting -= 1

        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(leave)

    def close(self) -> None:
        """Waits for the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _respond(
        self, call: str, work: Work, body: bytes, encode: Callable[[Any], bytes], kind: str = "application/json"
    ) -> Response | Awaitable[Response]:
        if self._pool is None:
            begun = time.perf_counter()
            status, data = self._noted(call, begun, self._run(work, body))
            return Response(status, encode(data), kind)
        return self._respond_later(partial(self.run, call, work, body), encode, kind)

    async def _respond_later(
        self, run: Callable[[], Awaitable[tuple[int, Any]]], encode: Callable[[Any], bytes], kind: str
    ) -> Response:
        status, data = await run()
        return Response(status, encode(data), kind)

    def _run(self, work: Work, body: bytes) -> _Done:
        try:
            data, read = work(body)
        except (msgspec.DecodeError, RecursionError) as error:
            return _Done("mistake", 400, _mistakes(str(error), [_place(str(error))]))
        except InputError as error:
            found = [{"field": one.field, "value": one.value, "fix": one.fix} for one in error.problems]
            return _Done("mistake", 400, _mistakes(f"{found[0]['field']}: {found[0]['fix']}", found))
        except JobError as error:
            return _Done("error", 503, {"error": str(error), "detail": str(error)})
        self._metrics.note_values(read)
        failed = bool(read) and all(one.failed for one in read)
        return _Done("error", 503, data) if failed else _Done("ok", 200, data)

    def _noted(self, call: str, begun: float, done: _Done) -> tuple[int, Any]:
        self._metrics.note_request(call, done.outcome, time.perf_counter() - begun)
        return done.status, done.data


class _Done(NamedTuple):
    outcome: str
    status: int
    data: Any


def _place(error: str) -> dict[str, str]:
    """A mistake in the form of a body: msgspec names its place at the end."""
    fix, _, field = error.partition(" - at `$")
    return {"field": field.rstrip("`").lstrip("."), "value": "", "fix": fix}


def _mistakes(error: str, problems: list[dict[str, str]]) -> dict[str, Any]:
    """The body of a 400; Feast's clients read `detail`."""
    return {"error": error, "detail": error, "problems": problems}
