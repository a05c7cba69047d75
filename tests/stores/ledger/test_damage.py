"""A damaged file raises a JobError that says so, whenever the damage is met, and no other exception."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.delivery import Claim, ClaimRequest, DeliveryLedger, Settlement
from schemas.problems import JobError
from stores.ledger.identity import CELL, read_identity, write_beat
from stores.ledger.sqlite import SqliteLedger
from stores.ledger.sqlite_file import probe
from stores.ledger.sqlite_process import SqliteProcess
from transforms.pacing.limiter import cell_name, decode_state

NOW, LATER, PAGE = 1_700_000_000_000, 1_700_000_060_000, 4_096
NAMES = [f"{number:032x}" for number in range(0, 3_000_000, 1_000)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of three thousand events, some claimed, some with receipts; all of it in one file."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    ledger = SqliteLedger(str(path))
    ledger.open()
    write_beat(ledger, NOW)
    ledger.change(cell_name("kroger"), lambda raw: (raw or b"\x90", None))
    for start in range(0, 3_000, 1_000):
        some = NAMES[start : start + 1_000]
        ledger.claim(ClaimRequest([Claim(one, "a" * 32) for one in some], "one", NOW, LATER, "hold"))
        ledger.settle("one", [Settlement(one, "accepted", b"receipt" * 9) for one in some[:800]], NOW)
        ledger.report(some[:400])
    ledger.close()
    return path


def damaged(sound: Path, tmp_path: Path, spoil: Callable[[bytearray], object]) -> Path:
    """A copy with other bytes."""
    data = bytearray(sound.read_bytes())
    spoil(data)
    path = tmp_path / "ledger.db"
    path.write_bytes(data)
    return path


def use(ledger: DeliveryLedger) -> int:
    """Everything that is done to a ledger, each in turn; how often it said that it is damaged."""
    fresh = [f"{number:032x}" for number in range(500, 600_000, 1_000)]
    calls: list[Callable[[], object]] = [
        lambda: read_identity(ledger),
        lambda: write_beat(ledger, LATER),
        lambda: ledger.find(NAMES[:1_000]),
        lambda: ledger.claim(ClaimRequest([Claim(one, "b" * 32) for one in fresh], "two", LATER, LATER + 9, "hold")),
        lambda: ledger.claim(
            ClaimRequest([Claim(name, "b" * 32) for name in NAMES[:1_000]], "two", LATER, LATER + 9, "resend")
        ),
        lambda: ledger.settle("two", [Settlement(one, "accepted", b"r") for one in fresh], LATER),
        lambda: ledger.settle("two", [Settlement(name, "unknown") for name in NAMES[:1_000]], LATER),
        lambda: ledger.reconcile([Settlement(name, "accepted") for name in NAMES[:1_000]], LATER),
        lambda: ledger.release("one", NAMES[1_000:2_000]),
        lambda: ledger.unreported(1_000),
        lambda: ledger.report(NAMES[:1_000]),
        lambda: ledger.reopen(NAMES[:1_000]),
        lambda: ledger.counts(NOW),
        lambda: ledger.change(cell_name("kroger"), lambda raw: (raw or b"", decode_state(raw))),
        lambda: ledger.forget(NOW + 1),
    ]
    errors = 0
    for call in calls:
        try:
            call()
        except JobError:
            errors += 1
    return errors


def opened(path: Path) -> int:
    """The same with the file opened; once if it cannot be."""
    try:
        probe(str(path), CELL)
        ledger = SqliteLedger(str(path))
        ledger.open()
    except JobError:
        return 1
    try:
        return use(ledger)
    finally:
        ledger.close()


@pytest.mark.parametrize("seed", range(40))
def test_random_bytes_anywhere_give_no_other_exception(sound: Path, tmp_path: Path, seed: int) -> None:
    rnd = random.Random(seed)

    def spoil(data: bytearray) -> None:
        for _ in range(rnd.choice([1, 3, 30])):
            at, size = rnd.randrange(len(data)), rnd.choice([1, 2, 16, 300, PAGE])
            data[at : at + size] = rnd.randbytes(len(data[at : at + size]))

    opened(damaged(sound, tmp_path, spoil))


def test_each_page_zeroed_gives_no_other_exception(sound: Path, tmp_path: Path) -> None:
    pages = sound.stat().st_size // PAGE
    errors = []
    for page in range(0, pages, max(1, pages // 40)):

        def spoil(data: bytearray, page: int = page) -> None:
            data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)

        errors.append(opened(damaged(sound, tmp_path, spoil)))
    assert sum(map(bool, errors)) > len(errors) / 2


@pytest.mark.parametrize("size", [99, 512, PAGE - 1, PAGE, PAGE + 100, 20 * PAGE + 7])
def test_a_file_that_breaks_off_is_damaged(sound: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(JobError) as caught:
        probe(str(damaged(sound, tmp_path, lambda data: data.__delitem__(slice(size, None)))), CELL)
    assert caught.value.damaged
    assert "ledger.db" in str(caught.value)


def test_later_damage_is_reported_by_the_ledger_process_too(sound: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    shutil.copy(sound, path)
    ledger = SqliteProcess(str(path))
    ledger.open()
    assert ledger.find(NAMES[:1]) == {NAMES[0]: "accepted"}
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(random.Random(2).randbytes(path.stat().st_size - PAGE))
    error = use(ledger)
    ledger.close()
    assert error > 5


@pytest.mark.skipif(os.getuid() != 0, reason="skipped: needs root, to become another user")
@pytest.mark.parametrize(("mode", "folder_mode"), [(0o000, 0o755), (0o444, 0o755), (0o644, 0o700)])
def test_a_file_without_permission_is_reported(sound: Path, mode: int, folder_mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        shutil.copy(sound, path)
        path.chmod(mode)
        Path(folder).chmod(folder_mode)
        child = os.fork()
        if child == 0:
            os.setuid(65_534)
            try:
                probe(str(path), CELL)
            except JobError as error:
                os._exit(0 if error.damaged and str(path) in str(error) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_probe_changes_nothing(sound: Path, tmp_path: Path) -> None:
    assert probe(str(tmp_path / "none.db"), CELL).state == "missing"
    (tmp_path / "empty.db").touch()
    assert probe(str(tmp_path / "empty.db"), CELL).state == "empty"
    before = sound.read_bytes()
    assert probe(str(sound), CELL).state == "ledger"
    assert sound.read_bytes() == before
    assert not (tmp_path / "none.db").exists()
