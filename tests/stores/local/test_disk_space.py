"""Disk space: checked before a call, and a reserve that is deleted when a write fails. On a real full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disks import fill, small_disk
from support.receipts_factory import any_receipt

from schemas.delivery import Claim, ClaimRequest, DeliveryLedger, Settlement
from schemas.problems import JobError
from stores.deliveries.receipts import read_receipts, write_receipts
from stores.ledger.sqlite import SqliteLedger
from stores.ledger.sqlite_process import SqliteProcess
from stores.local.disk_space import NAME, DiskSpace, release_reserve

MB = 1 << 20
NOW, LATER = 1_700_000_000_000, 1_700_000_060_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, 16):
        yield folder


def test_there_is_enough_until_the_free_bytes_fall_below_what_is_kept(disk: Path) -> None:
    seconds, asked = [0.0], list[str]()
    space = DiskSpace(
        [disk], keep_free=4 * MB, reserve=2 * MB, on_short=lambda: asked.append("stop"), clock=lambda: seconds[0]
    )
    space.prepare()
    assert (disk / NAME).stat().st_size == 2 * MB
    assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize <= 14 * MB
    assert space.enough()
    fill(disk, leave=3 * MB)
    assert space.enough(), "the free bytes are looked at once a second at most"
    seconds[0] = 1.0
    assert not space.enough()
    with pytest.raises(JobError, match=rf"{disk} is on a disk with 3 MB free, free at least [12] MB more"):
        space.check()
    assert asked == ["stop"]
    (disk / "filling").unlink()
    seconds[0] = 2.0
    assert not space.enough(), "the job that was told to end is not told otherwise"
    assert asked == ["stop"]
    space.prepare()
    space.check()
    assert space.enough()


def test_calls_stop_at_once_when_the_reserve_was_deleted(disk: Path) -> None:
    space = DiskSpace([disk], keep_free=MB, reserve=2 * MB)
    space.prepare()
    assert release_reserve(disk / "receipts")
    assert not space.enough()
    assert not release_reserve(disk / "receipts")
    space.prepare()
    assert space.enough()


def test_a_start_without_room_fails_and_leaves_no_part_of_a_reserve(disk: Path) -> None:
    fill(disk, leave=MB)
    with pytest.raises(JobError, match="free at least"):
        DiskSpace([disk], keep_free=MB, reserve=2 * MB).prepare()
    assert not (disk / NAME).exists()


@pytest.mark.parametrize("kind", [SqliteLedger, SqliteProcess])
def test_an_answer_is_settled_on_a_full_disk_by_deleting_the_reserve(disk: Path, kind: type[SqliteLedger]) -> None:
    ledger, space = kind(str(disk / "ledger.db")), DiskSpace([disk], keep_free=MB, reserve=2 * MB)
    space.prepare()
    ledger.open()
    names = [f"{number:032x}" for number in range(1_000)]
    ledger.claim(ClaimRequest([Claim(name, "b" * 32) for name in names], "one", NOW, LATER, "hold"))
    fill(disk, leave=0)
    settlements = [Settlement(name, "accepted", b"r" * 300) for name in names]
    assert ledger.settle("one", settlements, NOW) == names
    assert not (disk / NAME).exists()
    assert ledger.find(names) == dict.fromkeys(names, "accepted")
    fill(disk, leave=0)
    more = [Claim(f"{number:032x}", "c" * 32) for number in range(10_000, 11_000)]
    with pytest.raises(JobError, match="Free some space"):
        claim_again_and_again(ledger, more, disk)
    (disk / "filling").unlink()
    assert {result.state for result in ledger.claim(ClaimRequest(more, "two", NOW, LATER, "hold"))} == {"granted"}
    ledger.close()


def claim_again_and_again(ledger: DeliveryLedger, claims: list[Claim], disk: Path) -> None:
    """What the file has room for within itself is no proof: until the disk is needed."""
    for _ in range(40):
        ledger.claim(ClaimRequest(claims, "two", NOW, LATER, "hold"))
        ledger.release("two", [claim.event_id for claim in claims])
        fill(disk, leave=0)


def test_receipts_are_written_on_a_full_disk_by_deleting_the_reserve(disk: Path) -> None:
    DiskSpace([disk], keep_free=MB, reserve=2 * MB).prepare()
    fill(disk, leave=0)
    path = write_receipts(str(disk / "receipts"), "part-0", [any_receipt()])
    assert read_receipts(path) == [any_receipt()]
    fill(disk, leave=0)
    with pytest.raises(JobError, match="Free some space") as caught:
        write_receipts(str(disk / "receipts"), "part-1", [any_receipt(event_id=f"e-{n}") for n in range(9_000)])
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
