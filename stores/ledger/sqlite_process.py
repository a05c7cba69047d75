"""An SQLite ledger in a process of its own, for a worker whose threads are busy.

SQLite releases Python's lock at each statement, and a thread that wants it again waits for the threads that encode and
decode events: with sixty of them a commit of 2 ms took 20. The process has a lock of its own, and gets all queued
requests as one message, which it commits as one transaction. `python -m stores.ledger.sqlite_process PATH` is that
process: requests on its standard input, answers on its output; it ends when its input does. If it is killed, or does
not answer for two minutes, nothing more is claimed, so the job ends; the answers of calls in flight are settled from
this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Condition, Event, Lock, Thread
from typing import Any, BinaryIO, TypeVar

import msgspec

from schemas.delivery import ClaimRequest, ClaimResult, DeliveryLedger, Settlement
from schemas.problems import JobError
from stores.ledger.answer_watch import AnswerWatch
from stores.ledger.sqlite import SqliteLedger
from stores.ledger.sqlite_file import sound_cell
from stores.local.child_process import ignore_stop_signals, start_child

T = TypeVar("T")
_ROOT = Path(__file__).resolve().parents[2]
_encode, _decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class SqliteProcess(DeliveryLedger):
    """A DeliveryLedger like SqliteLedger, safe for several threads. A claim after the process's end raises JobError."""

    def __init__(self, path: str, wait_s: float = 60.0) -> None:
        self._path, self._wait_s = path, wait_s
        self._opening, self._queued = Lock(), Condition()
        self._queue: list[_Request] = []
        self._cells: dict[str, bytes | None] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._file: SqliteLedger | None = None

    def __reduce__(self) -> tuple[type[SqliteProcess], tuple[str, float]]:
        return SqliteProcess, (self._path, self._wait_s)

    def open(self) -> None:
        """Start the process, which opens the file. Raises JobError for a file that is no ledger."""
        with self._opening:
            if self._process is not None:
                return
            command = [sys.executable, "-m", "stores.ledger.sqlite_process", str(Path(self._path).absolute())]
            self._process = start_child([*command, str(self._wait_s)], cwd=_ROOT, stdout=subprocess.PIPE)
            Thread(target=self._pass_requests, args=(self._process,), daemon=True, name="ledger").start()
        try:
            self._ask("ready")
        except JobError:
            self.close()
            raise

    def close(self) -> None:
        """End the process; may be called twice."""
        with self._opening:
            process, self._process = self._process, None
            if process is not None and process.stdin is not None:
                with self._queued:
                    self._queue.append(_Request(None))
                    self._queued.notify()
                process.wait()
            if self._file is not None:
                self._file.close()
                self._file = None

    def claim(self, request: ClaimRequest) -> list[ClaimResult]:
        claim_results = self._ask("claim", request)
        if claim_results is None:  # the common case: every claim is granted
            return [ClaimResult(claim.event_id, "granted") for claim in request.claims]
        return [ClaimResult(*result) for result in claim_results]

    def settle(self, owner: str, settlements: Sequence[Settlement], now: int) -> list[str]:
        settled = self._ask("settle", owner, settlements, now)
        return [end.event_id for end in settlements] if settled is None else list(settled)

    def reconcile(self, settlements: Sequence[Settlement], now: int) -> list[str]:
        return list(self._ask("reconcile", settlements, now))

    def release(self, owner: str, event_ids: Sequence[str]) -> None:
        self._ask("release", owner, event_ids)

    def find(self, event_ids: Sequence[str]) -> dict[str, str]:
        return dict(self._ask("find", event_ids))

    def reopen(self, event_ids: Sequence[str]) -> int:
        return int(self._ask("reopen", event_ids))

    def unreported(self, limit: int) -> list[tuple[str, bytes]]:
        return [(name, receipt) for name, receipt in self._ask("unreported", limit)]

    def report(self, event_ids: Sequence[str]) -> None:
        self._ask("report", event_ids)

    def forget(self, before: int) -> int:
        return int(self._ask("forget", before))

    def counts(self, now: int) -> dict[str, int]:
        """Entries by state; reads them all."""
        return dict(self._ask("counts", now))

    def change(self, cell: str, update: Callable[[bytes | None], tuple[bytes, T]]) -> T:
        """Read, update and write a small named value: compare-and-swap from the value that was seen last."""
        before = self._cells.get(cell)
        while True:
            with sound_cell(cell):
                value, result = update(before)
            changed, before = self._ask("swap", cell, before, value)
            self._cells[cell] = value if changed else before
            if changed:
                return result

    def _ask(self, name: str, *args: Any) -> Any:
        mine = _Request([name, *args])
        with self._queued:
            if self._process is None:  # asked under the lock: nothing is queued behind the request that ends it
                raise RuntimeError("the ledger is not open")
            self._queue.append(mine)
            self._queued.notify()
        mine.done.wait()
        if mine.lost is not None:
            return self._ask_file(mine.lost, name, args)
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _ask_file(self, lost: JobError, name: str, args: Sequence[Any]) -> Any:
        """The answer of the file itself, after the process has ended: the answers of calls in flight are settled, or
        the calls would be made again. A claim is released and raises `lost`, a report is made and raises it: the job
        ends."""
        if name == "ready":
            raise lost
        with self._opening:
            if self._file is None:
                self._file = SqliteLedger(self._path, self._wait_s)
                self._file.open()
        if name == "claim":
            self._file.release(args[0].owner, [claim.event_id for claim in args[0].claims])
        else:
            result = _Server(self._file).call(name, *args)
        if name in ("claim", "report"):
            raise lost
        if isinstance(result, Exception):
            raise result
        return result

    def _pass_requests(self, process: subprocess.Popen[bytes]) -> None:
        """Sends all queued requests as one message, again and again; a request without data ends it."""
        watch = AnswerWatch(process, f"the process that keeps the ledger {self._path}")
        while True:
            with self._queued:
                self._queued.wait_for(lambda: self._queue)
                requests, self._queue = self._queue, []
            asked = [request for request in requests if request.data is not None]
            if asked:
                self._pass_on(process, watch, asked)
            if len(asked) < len(requests):
                with watch:
                    process.communicate()
                watch.close()
                return

    def _pass_on(self, process: subprocess.Popen[bytes], watch: AnswerWatch, requests: list[_Request]) -> None:
        try:
            with watch:
                write_message(process.stdin, _encode([request.data for request in requests]))
                data = read_message(process.stdout)
            if data is None:
                raise EOFError("no answer")
            for request, (result, problem) in zip(requests, _decode(data), strict=True):
                request.result = result
                if problem:
                    request.error = JobError(*problem[1:]) if problem[0] == "JobError" else ValueError(problem[1])
        except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
            happened = f"The process that keeps the ledger {self._path} has ended ({watch.why_ended or error})"
            gone = JobError(happened, "Run the same command again: nothing that was claimed or settled is lost")
            for request in requests:
                request.lost = gone
        for request in requests:
            request.done.set()


class _Request:
    """A request and its result; None ends the process. One that cannot be encoded fails here, for its caller alone."""

    def __init__(self, words: list[Any] | None) -> None:
        self.data = None if words is None else msgspec.Raw(_encode(words))
        self.done = Event()
        self.result: Any = None
        self.error: Exception | None = None
        self.lost: JobError | None = None  # the process has ended, perhaps after it did this


class _Server:
    """Answers the requests in the process."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger

    def answer(self, words: Sequence[Sequence[Any]]) -> list[Any]:
        """(result, problem) of each request."""
        try:
            results = self._ledger.batch([partial(self.call, *request) for request in words])
        except JobError as error:
            results = [error] * len(words)
        return [
            _encode_error(result) if isinstance(result, Exception) else (_shorten(request, result), None)
            for request, result in zip(words, results, strict=True)
        ]

    def call(self, name: str, *args: Any) -> Any:
        """The result of one request, or the exception that it raised."""
        try:
            if name == "ready":
                return self._ledger.open()
            if name == "claim":
                return self._ledger.claim(msgspec.convert(args[0], ClaimRequest))
            if name == "settle":
                return self._ledger.settle(args[0], [Settlement(*end) for end in args[1]], args[2])
            if name == "reconcile":
                return self._ledger.reconcile([Settlement(*end) for end in args[0]], args[1])
            if name == "swap":
                return self._ledger.change(args[0], partial(_swap, *args[1:]))
            return getattr(self._ledger, name)(*args)
        except Exception as error:
            return error


def _swap(before: bytes | None, value: bytes, current: bytes | None) -> tuple[bytes, tuple[bool, bytes | None]]:
    if current is None or current == before:
        return value, (True, None)
    return current, (False, current)


def _shorten(words: Sequence[Any], result: Any) -> Any:
    """None for the common results: every claim granted, every settlement applied."""
    if words[0] == "claim" and all(claim.state == "granted" for claim in result):
        return None
    if words[0] == "settle" and len(result) == len(words[2]):
        return None
    return result


def _encode_error(error: Exception) -> tuple[None, list[str]]:
    if isinstance(error, JobError):
        return None, ["JobError", error.happened, error.todo]
    return None, ["ValueError", f"{type(error).__name__}: {error}"]


def write_message(stream: BinaryIO | Any, data: bytes) -> None:
    """Write the length of a message, then the message."""
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()


def read_message(stream: BinaryIO | Any) -> bytes | None:
    """The next message; None at the end of the stream, also in the middle of a message."""
    head = stream.read(4)
    size = int.from_bytes(head, "big")
    data = stream.read(size) if len(head) == 4 else b""
    return data if len(head) == 4 and len(data) == size else None


def main(path: str, wait_s: str) -> None:
    """Answer until the input ends; stop signals are ignored."""
    ignore_stop_signals()
    server = _Server(SqliteLedger(path, float(wait_s)))
    while (data := read_message(sys.stdin.buffer)) is not None:
        answers = _encode(server.answer(_decode(data)))
        try:
            write_message(sys.stdout.buffer, answers)
        except BrokenPipeError:  # the parent was killed; what is committed stays
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
