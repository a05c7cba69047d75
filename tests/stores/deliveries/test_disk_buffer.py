"""The disk buffer: bytes are read back unchanged, freed file by file, and gone with the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from stores.deliveries import disk_buffer
from stores.deliveries.disk_buffer import DiskBuffer


def test_written_bytes_are_read_again_and_the_file_has_no_name(tmp_path: Path) -> None:
    buffer = DiskBuffer(tmp_path / "waiting")
    parts = [bytes([number]) * size for number, size in enumerate((0, 1, 70_000, 5))]
    places = [buffer.write(part) for part in parts]
    assert [buffer.read(place or "") for place in places] == parts
    assert not list((tmp_path / "waiting").iterdir())


def test_a_file_is_closed_when_all_its_parts_are_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_buffer, "SEGMENT", 10)
    buffer = DiskBuffer(tmp_path)
    places = [buffer.write(b"12345") or "" for _ in range(6)]
    assert len(buffer._segments) == 3
    for place in places[:3]:
        buffer.free(place)
    assert len(buffer._segments) == 2
    assert [buffer.read(place) for place in places[3:]] == [b"12345"] * 3
    for place in places[3:]:
        buffer.free(place)
    assert buffer.read(buffer.write(b"more") or "") == b"more"
    assert len(buffer._segments) == 1


def test_bytes_that_a_full_disk_refuses_are_not_stored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert DiskBuffer(tmp_path / "file").write(b"x") is None
