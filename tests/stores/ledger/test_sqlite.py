"""The SQLite ledger: processes, kills, and files that are no ledger."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TextIO, cast

import pytest

from connectors.uri import UriError
from schemas.delivery import Claim, ClaimRequest, ResendLimit, Settlement
from schemas.problems import JobError
from stores.ledger.open import open_ledger
from stores.ledger.sqlite import SqliteLedger
from stores.ledger.sqlite_file import _TABLES, VERSION

ROOT = Path(__file__).resolve().parents[3]
NOW, LATER = 1_700_000_000_000, 1_700_000_060_000
_BEGIN = """
import sys
from schemas.delivery import Claim, ClaimRequest, Settlement
from stores.ledger.sqlite import SqliteLedger
path, name = sys.argv[1:]
ledger = SqliteLedger(path)
print("ready", flush=True)
sys.stdin.readline()
ledger.open()
"""
COUNT = """
for _ in range(50):
    ledger.change("counter", lambda old: (str(int(old or b"0") + 1).encode(), None))
"""
CLAIM = """
for turn in range(20):
    claims = [Claim(f"{turn}-{number}", "batch") for number in range(100)]
    for result in ledger.claim(ClaimRequest(claims[int(name) * 10:][:70], name, 1, 2, "hold")):
        if result.state == "granted":
            print(result.event_id)
"""
SEND = """
for turn in range(1_000_000):
    ids = [f"{name}-{turn}-{number}" for number in range(20)]
    ledger.claim(ClaimRequest([Claim(one, "batch") for one in ids], name, 1, 2, "hold"))
    print(*ledger.settle(name, [Settlement(one, "accepted", b"receipt") for one in ids], 1), flush=True)
"""


def worker(program: str, path: Path, name: str) -> subprocess.Popen[str]:
    """A process that is about to open the ledger."""
    command = [sys.executable, "-c", _BEGIN + program, str(path), name]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def four(program: str, path: Path) -> list[str]:
    """What four processes printed that began, with no file there, at the same moment."""
    processes = [worker(program, path, str(number)) for number in range(4)]
    for process in processes:
        begin(process)
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    return "".join(printed).split()


def test_four_processes_count_and_lose_nothing(tmp_path: Path) -> None:
    four(COUNT, tmp_path / "ledger.db")
    ledger = SqliteLedger(str(tmp_path / "ledger.db"))
    ledger.open()
    assert ledger.change("counter", lambda old: (b"", old)) == b"200"
    ledger.close()


def test_four_processes_are_granted_each_event_once(tmp_path: Path) -> None:
    granted = Counter(four(CLAIM, tmp_path / "ledger.db"))
    assert granted == Counter(f"{turn}-{number}" for turn in range(20) for number in range(100))


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    settled: list[str] = []
    for turn in range(4):
        processes = [worker(SEND, path, f"{turn}{number}") for number in range(2)]
        for process in processes:
            begin(process)
        outputs = [cast(TextIO, process.stdout) for process in processes]
        begun = [output.readline() for output in outputs]
        time.sleep(0.2 + 0.07 * turn)
        for process, output, first in zip(processes, outputs, begun, strict=True):
            process.send_signal(signal.SIGKILL)
            printed = first + output.read()
            process.communicate()
            settled += printed[: printed.rfind("\n") + 1].split()
    with sqlite3.connect(path) as con:
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    con.close()
    ledger = SqliteLedger(str(path))
    ledger.open()
    assert len(settled) >= 8 * 20
    assert ledger.find(settled) == dict.fromkeys(settled, "accepted")
    counts = ledger.counts(2)
    assert counts["accepted"] % 20 == counts["lapsed"] % 20 == 0, "a call is done as a whole or not at all"
    assert len(ledger.unreported(1_000_000)) == counts["accepted"]
    ledger.close()


def test_every_commit_is_on_disk(tmp_path: Path) -> None:
    ledger = SqliteLedger(str(tmp_path / "new" / "folder" / "ledger.db"))
    ledger.open()
    assert ledger._opened is not None
    assert ledger._opened.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    ledger.close()


def test_an_entry_is_small(tmp_path: Path) -> None:
    ledger = SqliteLedger(str(tmp_path / "ledger.db"))
    ledger.open()
    for turn in range(20):
        ids = [f"{turn * 1000 + number:032x}" for number in range(1000)]
        ledger.claim(ClaimRequest([Claim(event_id, "a" * 32) for event_id in ids], "b" * 32, NOW, LATER, "hold"))
        ledger.settle("b" * 32, [Settlement(event_id, "accepted", b"receipt" * 30) for event_id in ids], NOW)
        ledger.report(ids)
    ledger.close()
    assert (tmp_path / "ledger.db").stat().st_size / 20_000 < 100


def test_a_thousand_events_are_claimed_and_settled_in_little_time(tmp_path: Path) -> None:
    ledger = SqliteLedger(str(tmp_path / "ledger.db"))
    ledger.open()
    spent = []
    for turn in range(5):
        ids = [f"{turn:016x}{number:016x}" for number in range(1000)]
        claims, settlements = (
            [Claim(event_id, "a" * 32) for event_id in ids],
            [Settlement(event_id, "accepted", b"r" * 200) for event_id in ids],
        )
        begun = time.process_time()
        ledger.claim(ClaimRequest(claims, "b" * 32, NOW, LATER, "hold"))
        ledger.settle("b" * 32, settlements, NOW)
        spent.append(time.process_time() - begun)
    ledger.close()
    assert min(spent) < 0.04


def test_a_file_of_version_1_is_upgraded_and_keeps_its_claims(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as con:
        for statement in (
            "CREATE TABLE claims (id NOT NULL PRIMARY KEY, owner, batch, lease_until INTEGER, again INTEGER) WITHOUT ROWID",
            *_TABLES[1:5],
            "PRAGMA user_version = 1",
            "INSERT INTO claims VALUES (x'00112233445566778899aabbccddeeff', '~one', '~b', 5, 1)",
        ):
            con.execute(statement)
        con.commit()
    ledger = SqliteLedger(str(path))
    ledger.open()
    (claim_result,) = ledger.claim(
        ClaimRequest([Claim("00112233445566778899aabbccddeeff", "b")], "two", 10, 20, "resend", ResendLimit(2))
    )
    ledger.close()
    assert (claim_result.state, claim_result.resends) == ("regranted", 2)


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    SqliteLedger(str(path)).open()
    with sqlite3.connect(path) as con:
        con.execute(f"PRAGMA user_version = {VERSION + 1}")
    con.close()
    with pytest.raises(JobError, match=f"is a ledger of version {VERSION + 1}, this is version {VERSION}"):
        SqliteLedger(str(path)).open()


def test_another_applications_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as con:
        con.execute("CREATE TABLE theirs (id)")
    con.close()
    before = path.read_bytes()
    with pytest.raises(JobError, match=r"is an SQLite file, but no delivery ledger\. Name another"):
        SqliteLedger(str(path)).open()
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database at all\n" * 100)
    with pytest.raises(JobError, match=r"file is not a database.*Name another file"):
        SqliteLedger(str(path)).open()
    with pytest.raises(JobError, match="folder cannot be made"):
        SqliteLedger(str(path / "ledger.db")).open()
    with pytest.raises(JobError, match="unable to open"):
        SqliteLedger(str(tmp_path)).open()


def test_a_lock_held_by_another_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(str(path), wait_s=0.1)
    ledger.open()
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("BEGIN IMMEDIATE")
    with pytest.raises(JobError, match=r"locked.*See which process holds it"):
        ledger.claim(ClaimRequest([Claim("a", "b")], "one", NOW, LATER, "hold"))
    con.execute("ROLLBACK")
    assert ledger.claim(ClaimRequest([Claim("a", "b")], "one", NOW, LATER, "hold"))[0].state == "granted"
    con.close()
    ledger.close()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("out/ledger.db", "names no ledger; write sqlite:PATH or firestore:"),
        ("bigtable:x", "names no ledger"),
        ("sqlite:", "names no file"),
        ("sqlite:out/", "names no file"),
        ("sqlite::memory:", "is no file on this machine"),
        ("sqlite:gs://bucket/ledger.db", "is no file on this machine"),
        ("firestore:ledger", "write firestore:projects/P/databases/D/COLLECTION"),
        ("firestore:projects/project-1/databases/(default)/a/b", "write firestore:projects/P/databases/D/COLLECTION"),
        ("firestore:projects/p/databases/(default)/ledger", "'p' is no project id"),
        ("firestore:projects/project-1/databases/Default/ledger", "'Default' is no database"),
        ("firestore:projects/project-1/databases/(default)/__x__", "'__x__' is no collection's name"),
        ("firestore:projects/project-1/databases/(default)/..", "is no collection's name"),
    ],
)
def test_a_wrong_uri_shows_the_right_form(uri: str, message: str) -> None:
    with pytest.raises(UriError) as caught:
        open_ledger(uri)
    assert message in str(caught.value)
