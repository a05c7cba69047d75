"""The ledger process: requests, kills, stops, and the end of either process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.delivering import eventually

from schemas.delivery import Claim, ClaimRequest, Settlement
from schemas.problems import JobError
from stores.ledger import answer_watch, sqlite_process
from stores.ledger.sqlite import SqliteLedger
from stores.ledger.sqlite_process import SqliteProcess

NOW, LEASE = 1_700_000_000_000, 60_000
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


@pytest.fixture
def ledger(path: str) -> Iterator[SqliteProcess]:
    """Open, with a process of its own."""
    opened = SqliteProcess(path)
    opened.open()
    yield opened
    opened.close()


def ids(count: int, name: str = "event") -> list[str]:
    return [f"{name}-{number}" for number in range(count)]


def claim(ledger: Any, names: list[str], owner: str = "one") -> list[str]:
    results = ledger.claim(ClaimRequest([Claim(name, "batch-1") for name in names], owner, NOW, NOW + LEASE, "resend"))
    return [one.state for one in results]


def process_of(ledger: SqliteProcess) -> subprocess.Popen[bytes]:
    process = ledger._process
    assert process is not None
    return process


def killed(ledger: SqliteProcess) -> None:
    os.kill(process_of(ledger).pid, signal.SIGKILL)
    process_of(ledger).wait(60)


def test_the_error_of_a_killed_process_says_what_to_do_and_its_answers_hold(ledger: SqliteProcess, path: str) -> None:
    claim(ledger, ids(3))
    ledger.settle("one", [Settlement("event-0", "accepted", b"r")], NOW)
    killed(ledger)
    for _ in range(2):
        with pytest.raises(JobError, match=r"has ended.*Run the same command again: nothing .* is lost") as told:
            claim(ledger, ids(1))
        assert path in str(told.value)
    ledger.close()
    ledger.open()
    assert ledger.find(ids(3)) == {"event-0": "accepted"}
    assert claim(ledger, ids(3), "two") == ["settled", "taken", "taken"]


def test_stop_signals_do_not_end_the_process(ledger: SqliteProcess) -> None:
    assert os.getsid(process_of(ledger).pid) == process_of(ledger).pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process_of(ledger).pid, number)
    assert claim(ledger, ids(3)) == ["granted"] * 3
    assert process_of(ledger).poll() is None


def test_answers_after_the_process_was_killed_are_settled_in_the_file(ledger: SqliteProcess, path: str) -> None:
    claim(ledger, ids(3))
    count = ledger.change("count", lambda old: (b"1", 1))
    killed(ledger)
    assert ledger.settle("one", [Settlement("event-0", "accepted", b"r")], NOW) == ["event-0"]
    ledger.release("one", ["event-1"])
    assert ledger.change("count", lambda old: (b"2", old)) == b"1"
    assert ledger.find(ids(3)) == {"event-0": "accepted"}
    with pytest.raises(JobError, match="has ended"):
        ledger.report(["event-0"])
    assert ledger.unreported(9) == []
    assert count == 1
    ledger.close()
    ledger.open()
    assert claim(ledger, ids(3), "two") == ["settled", "granted", "taken"]


def test_a_claim_whose_answer_was_lost_is_released(ledger: SqliteProcess) -> None:
    with ThreadPoolExecutor(1) as pool:
        os.kill(process_of(ledger).pid, signal.SIGSTOP)
        asked = pool.submit(claim, ledger, ids(3))
        other = SqliteLedger(ledger._path)
        other.open()
        claim(other, ids(3))  # as if the process had written it, and was killed before it could say so
        killed(ledger)
        with pytest.raises(JobError, match="has ended"):
            asked.result(timeout=120)
    assert claim(other, ids(3), "two") == ["granted"] * 3
    other.close()


def test_waiting_requests_fail_when_the_process_dies(ledger: SqliteProcess) -> None:
    os.kill(process_of(ledger).pid, signal.SIGSTOP)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(claim, ledger, ids(1, f"worker-{number}")) for number in range(8)]
        os.kill(process_of(ledger).pid, signal.SIGKILL)
        for request in asked:
            with pytest.raises(JobError, match="has ended"):
                request.result(timeout=120)


def test_a_stopped_process_raises_an_alarm_and_continues(
    ledger: SqliteProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answer_watch, "ALARM_S", 0.5)
    os.kill(process_of(ledger).pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(claim, ledger, ids(3))
        eventually(lambda: "ALARM: the process that keeps the ledger" in caplog.text, "the alarm")
        assert ledger._path in caplog.text
        os.kill(process_of(ledger).pid, signal.SIGCONT)
        assert asked.result(timeout=120) == ["granted"] * 3
    eventually(lambda: "answers again" in caplog.text, "the end of the alarm")


def test_a_process_stopped_for_too_long_is_killed_and_answers_are_settled_in_the_file(
    ledger: SqliteProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_watch, "LIMIT_S", 1.0)
    claim(ledger, ids(3))
    os.kill(process_of(ledger).pid, signal.SIGSTOP)
    assert ledger.settle("one", [Settlement("event-0", "accepted", b"r" * 200_000)], NOW) == ["event-0"]
    with pytest.raises(JobError, match=r"had not answered for 1 s and was killed.*Run the same command again"):
        claim(ledger, ids(1, "more"))
    assert ledger.find(ids(3)) == {"event-0": "accepted"}


def test_closing_ends_a_stopped_process(ledger: SqliteProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_watch, "LIMIT_S", 1.0)
    process = process_of(ledger)
    os.kill(process.pid, signal.SIGSTOP)
    ledger.close()
    assert process.poll() == -signal.SIGKILL


def test_a_cut_off_answer_means_that_the_process_has_ended(
    ledger: SqliteProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = [
        sys.executable,
        "-c",
        "import sys; sys.stdin.buffer.read(4); sys.stdout.buffer.write(b'\\0\\0\\0\\x09\\x92')",
    ]
    monkeypatch.setattr(sqlite_process.subprocess, "Popen", _instead(cut))
    other = SqliteProcess("x")
    with pytest.raises(JobError, match="has ended"):
        other.open()
    other.close()


def _instead(command: list[str]) -> Any:
    original = subprocess.Popen

    def popen(_: list[str], **more: Any) -> Any:
        return original(command, **more)

    return popen


def test_the_process_ends_when_its_input_does_and_leaves_a_ledger(path: str) -> None:
    command = [sys.executable, "-m", "stores.ledger.sqlite_process", path, "5"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sqlite_process.write_message(process.stdin, sqlite_process._encode([["ready"], ["find", ids(1)]]))
        assert sqlite_process._decode(sqlite_process.read_message(process.stdout) or b"") == [[None, None], [{}, None]]
        process.stdin.close()
        assert process.wait(60) == 0
    ledger = SqliteLedger(path)
    ledger.open()
    assert ledger.find(ids(1)) == {}
    ledger.close()


def test_it_ends_with_a_worker_that_is_killed(path: str, tmp_path: Path) -> None:
    text = (
        "import os, signal\nfrom stores.ledger.sqlite_process import SqliteProcess\n"
        f"ledger = SqliteProcess({path!r}); ledger.open(); print(ledger._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # Its standard output is the worker's too, as a job's is: it comes to an end only when both have ended.
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0
    assert done.stderr == ""


def test_closing_ends_the_process_and_may_be_done_twice(ledger: SqliteProcess) -> None:
    process = process_of(ledger)
    ledger.close()
    assert process.poll() == 0
    ledger.close()
    with pytest.raises(RuntimeError, match="not open"):
        ledger.find(ids(1))
    ledger.open()
    assert ledger.find(ids(1)) == {}


def test_closing_after_the_process_was_killed_does_not_fail(ledger: SqliteProcess) -> None:
    killed(ledger)
    ledger.close()
    ledger.close()


def test_many_threads_at_once_each_get_their_own_answer(ledger: SqliteProcess) -> None:
    def work(number: int) -> tuple[list[str], list[str], dict[str, str], int]:
        mine, owner = ids(20, f"worker-{number}"), f"owner-{number}"
        states = claim(ledger, [*mine, "contested"], owner)
        settled = ledger.settle(owner, [Settlement(one, "accepted", one.encode()) for one in mine], NOW)
        count = ledger.change("count", lambda old: (str(int(old or b"0") + 1).encode(), int(old or b"0")))
        return states, settled, ledger.find([*mine, "contested"]), count

    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(work, range(64)))
    for number, (states, settled, outcomes, _) in enumerate(results):
        mine = ids(20, f"worker-{number}")
        assert states[:20] == ["granted"] * 20
        assert settled == mine
        assert outcomes == dict.fromkeys(mine, "accepted")
    assert sorted(states[20] for states, *_ in results) == ["granted"] + ["taken"] * 63
    assert sorted(count for *_, count in results) == list(range(64))
    assert len(ledger.unreported(5000)) == 64 * 20


def test_a_file_that_is_no_ledger_fails_each_time_and_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes and no database at all, of more than a hundred bytes. " * 9)
    ledger = SqliteProcess(str(path))
    for _ in range(2):
        with pytest.raises(JobError, match=r"notes\.txt"):
            ledger.open()
        assert ledger._process is None
    assert path.read_text().startswith("these are notes")


def test_a_bug_in_one_request_fails_its_caller_alone(ledger: SqliteProcess) -> None:
    with pytest.raises(ValueError, match="is over at"):
        ledger.claim(ClaimRequest([Claim("a", "b")], "one", NOW, NOW, "hold"))
    with pytest.raises(UnicodeEncodeError):
        claim(ledger, ["\ud800"])
    assert claim(ledger, ids(1)) == ["granted"]
