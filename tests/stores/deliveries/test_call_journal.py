"""The journal of calls: after a kill only the calls that were in flight are in doubt."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.journals import IDS, LEASE, NOW, claim, kill, mark_sent, states

from schemas.delivery import Claim, ClaimRequest, DeliveryLedger, Settlement
from schemas.problems import JobError
from stores.deliveries import call_journal, call_recovery
from stores.deliveries.call_journal import FileJournal
from stores.deliveries.call_recovery import Recovered, read_records, recover
from stores.ledger.sqlite import SqliteLedger

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def ledger(tmp_path: Path) -> DeliveryLedger:
    opened = SqliteLedger(str(tmp_path / "ledger.db"))
    opened.open()
    return opened


def test_a_claim_without_a_started_call_is_released(tmp_path: Path, ledger: DeliveryLedger) -> None:
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS)
    journal.granted("one", 2)
    kill(journal)
    assert recover(tmp_path / "calls", ledger, NOW) == Recovered(released=8)
    assert states(ledger, IDS) == ["granted"] * 8


def test_a_claim_that_the_ledger_never_got_changes_nothing(tmp_path: Path, ledger: DeliveryLedger) -> None:
    ledger.claim(ClaimRequest([Claim(IDS[0], "b")], "somebody else", NOW, NOW + LEASE, "hold"))
    journal = FileJournal(tmp_path / "calls")
    journal.claiming("one", IDS)
    kill(journal)
    recover(tmp_path / "calls", ledger, NOW)
    assert states(ledger, IDS) == ["taken", *["granted"] * 7]


def test_only_started_calls_without_an_answer_stay_in_doubt(tmp_path: Path, ledger: DeliveryLedger) -> None:
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS)
    journal.granted("one", 4)
    mark_sent(journal.started("one", "in doubt", IDS[0:2]))
    mark_sent(journal.started("one", "answered", IDS[2:4]))
    journal.answered("one", "answered", [Settlement(IDS[2], "accepted", b"r"), Settlement(IDS[3], "rejected", b"s")])
    mark_sent(journal.started("one", "nothing sent", IDS[4:6]))
    journal.answered("one", "nothing sent", None)
    journal.started("one", "connected, and no byte left", IDS[6:7])
    kill(journal)
    assert recover(tmp_path / "calls", ledger, NOW) == Recovered(settled=2, released=4, in_doubt=2)
    assert ledger.find(IDS) == {IDS[2]: "accepted", IDS[3]: "rejected"}
    assert [body for _, body in ledger.unreported(9)] == [b"r", b"s"]
    assert states(ledger, IDS) == ["taken"] * 2 + ["settled"] * 2 + ["granted"] * 4
    assert not list((tmp_path / "calls").iterdir())


def test_a_second_recovery_changes_nothing(tmp_path: Path, ledger: DeliveryLedger) -> None:
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS[:4])
    journal.granted("one", 1)
    journal.started("one", "answered", IDS[:2])
    journal.answered("one", "answered", [Settlement(event_id, "accepted") for event_id in IDS[:2]])
    kill(journal)
    (path,) = (tmp_path / "calls").glob("*.journal")
    data = path.read_bytes()
    recover(tmp_path / "calls", ledger, NOW)
    assert states(ledger, IDS[2:4]) == ["granted"] * 2
    path.write_bytes(data)
    recover(tmp_path / "calls", ledger, NOW)
    (state,) = {
        result.state
        for result in ledger.claim(
            ClaimRequest([Claim(event_id, "b") for event_id in IDS[2:4]], "two", NOW, NOW + 1, "hold")
        )
    }
    assert state == "taken"
    assert ledger.find(IDS) == dict.fromkeys(IDS[:2], "accepted")


def test_closed_calls_are_not_recovered_and_a_journal_without_open_calls_is_deleted(
    tmp_path: Path, ledger: DeliveryLedger
) -> None:
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS[:4])
    journal.granted("one", 2)
    for batch_id, ids in (("a", IDS[:2]), ("b", IDS[2:4])):  # whatever they were
        journal.started("one", batch_id, ids)
        journal.closed("one", batch_id)
    journal.close()
    assert not list((tmp_path / "calls").iterdir())


def test_a_call_that_was_closed_without_an_answer_keeps_its_claim(tmp_path: Path, ledger: DeliveryLedger) -> None:
    """Under resend the claim of a lost call stays until it lapses: to free it would be to forget that it was sent."""
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS[:4])
    journal.granted("one", 2)
    journal.started("one", "lost", IDS[:2])
    journal.closed("one", "lost")
    mark_sent(journal.started("one", "in doubt", IDS[2:3]))
    kill(journal)
    assert recover(tmp_path / "calls", ledger, NOW) == Recovered(released=1, in_doubt=1)
    assert states(ledger, IDS[:4]) == ["taken"] * 3 + ["granted"]


def test_without_its_sent_flags_every_call_that_started_is_in_doubt(tmp_path: Path, ledger: DeliveryLedger) -> None:
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS[:4])
    journal.granted("one", 1)
    journal.started("one", "a", IDS[:2])
    kill(journal)
    next((tmp_path / "calls").glob("*.marks")).unlink()
    assert recover(tmp_path / "calls", ledger, NOW) == Recovered(released=2, in_doubt=2)


def test_after_a_reboot_all_that_was_not_answered_is_in_doubt(
    tmp_path: Path, ledger: DeliveryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may have lost records and flags: what seems not to be sent may have been."""
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS)
    journal.granted("one", 3)
    journal.started("one", "a", IDS[:2])
    mark_sent(journal.started("one", "answered", IDS[2:4]))
    journal.answered("one", "answered", [Settlement(event_id, "accepted") for event_id in IDS[2:4]])
    journal.started("one", "nothing sent", IDS[4:6])
    journal.answered("one", "nothing sent", None)
    kill(journal)
    monkeypatch.setattr(call_recovery, "boot_id", lambda: "another boot")
    assert recover(tmp_path / "calls", ledger, NOW) == Recovered(settled=2, released=2, in_doubt=4)
    assert states(ledger, IDS) == ["taken"] * 2 + ["settled"] * 2 + ["granted"] * 2 + ["taken"] * 2


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    started = data.index(b"started")
    if how == "cut":
        path.write_bytes(data[: started - 10])
        return
    if how == "flipped":
        data[started] ^= 1
    path.write_bytes(data if how == "flipped" else data[: len(data) // 2])


@pytest.mark.parametrize("how", ["cut", "flipped", "shorter"])
def test_a_damaged_journal_releases_nothing(tmp_path: Path, ledger: DeliveryLedger, how: str) -> None:
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS[:4])
    journal.granted("one", 2)
    mark_sent(journal.started("one", "a", IDS[:2]))
    mark_sent(journal.started("one", "b", IDS[2:4]))
    kill(journal)
    damage(next((tmp_path / "calls").glob("*.journal")), how)
    assert recover(tmp_path / "calls", ledger, NOW).released == 0
    assert states(ledger, IDS[:4]) == ["taken"] * 4


def test_a_foreign_journal_releases_nothing_and_stops_nothing(
    tmp_path: Path, ledger: DeliveryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS[:2])
    journal._note(call_journal.Record("of a later version", "one"))  # type: ignore[arg-type]
    kill(journal)
    (tmp_path / "calls" / "folder.journal").mkdir()
    assert recover(tmp_path / "calls", ledger, NOW).released == 0
    assert states(ledger, IDS[:2]) == ["taken"] * 2


def test_the_sent_flag_of_an_earlier_call_does_not_count_for_a_later_one(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "calls")
    flags = [journal.started("one", str(number), []) for number in range(call_journal.FLAGS + 1)]
    assert flags[0].at == flags[-1].at
    assert flags[0].value != flags[-1].value


def test_a_copy_of_a_live_journal_releases_nothing(tmp_path: Path, ledger: DeliveryLedger) -> None:
    """A copy has no lock; what is in no call yet may be in one when the copy is read."""
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS)
    copies = tmp_path / "copy" / "calls"
    shutil.copytree(tmp_path / "calls", copies)
    assert recover(copies, ledger, NOW) == Recovered(in_doubt=8)
    assert states(ledger, IDS) == ["taken"] * 8
    kill(journal)
    assert recover(tmp_path / "calls", ledger, NOW).released == 8


def test_a_live_journal_is_not_recovered(tmp_path: Path, ledger: DeliveryLedger) -> None:
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "one", IDS)
    assert recover(tmp_path / "calls", ledger, NOW) == Recovered()
    assert states(ledger, IDS) == ["taken"] * 8
    kill(journal)
    assert recover(tmp_path / "calls", ledger, NOW).released == 8


@pytest.mark.parametrize("cut", [2, 7, 9, 40])
def test_a_record_that_a_kill_cut_off_did_not_happen(tmp_path: Path, cut: int) -> None:
    journal = FileJournal(tmp_path / "calls")
    journal.claiming("one", IDS)
    journal.started("one", "a", IDS)
    end = journal._end
    kill(journal)
    (path,) = (tmp_path / "calls").glob("*.journal")
    data = path.read_bytes()
    assert [record.kind for record in read_records(data)] == ["boot", "claiming", "started"]
    torn = data[: end - cut] + bytes(len(data) - end + cut)
    assert [record.kind for record in read_records(torn)] == ["boot", "claiming"]


def test_a_full_journal_is_rewritten_with_the_open_records(
    tmp_path: Path, ledger: DeliveryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_journal, "SIZE", 4_000)
    journal = FileJournal(tmp_path / "calls")
    claim(ledger, journal, "open", IDS[:2])
    journal.granted("open", 1)
    mark_sent(journal.started("open", "a", IDS[:1]))
    for number in range(500):
        journal.claiming(f"owner {number}", IDS[2:])
        journal.granted(f"owner {number}", 1)
        journal.closed(f"owner {number}", "b")
        assert sum(path.stat().st_size for path in (tmp_path / "calls").glob("*.journal")) < 5_000
    assert recover(tmp_path / "calls", ledger, NOW) == Recovered()  # the new file is locked too
    kill(journal)
    assert recover(tmp_path / "calls", ledger, NOW) == Recovered(released=1, in_doubt=1)


def test_a_failed_record_stops_a_claim_or_a_call_but_not_an_answer(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = FileJournal(tmp_path / "file" / "calls")
    for note in (lambda: journal.claiming("one", IDS), lambda: journal.started("one", "a", IDS)):
        with pytest.raises(JobError, match="could not be written"):
            note()
    journal.answered("one", "a", None)
    journal.closed("one", "a")


_KILLED = """
import sys
from pathlib import Path
from stores.deliveries.call_journal import FileJournal
journal = FileJournal(Path(sys.argv[1]))
for number in range(1_000_000):
    journal.claiming(f"owner {number}", ["a" * 32] * 50)
    if number == 100:
        print("ready", flush=True)
"""


def test_a_process_that_is_killed_leaves_whole_records_and_no_lock(tmp_path: Path, ledger: DeliveryLedger) -> None:
    folder = tmp_path / "calls"
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    (path,) = folder.glob("*.journal")
    records = list(read_records(path.read_bytes()))[1:]
    assert [record.owner for record in records] == [f"owner {number}" for number in range(len(records))]
    assert len(records) > 100
    recover(folder, ledger, NOW)
    assert not list(folder.glob("*.journal"))
