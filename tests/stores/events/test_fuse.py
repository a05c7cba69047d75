"""The fuse of a type: a small file that says since when and why."""

from __future__ import annotations

from pathlib import Path

from stores.events.fuse import Fuse, blow_fuse, clear_fuse, fuse_path, read_fuse


def test_a_fuse_blows_once_and_is_cleared(tmp_path: Path) -> None:
    assert read_fuse(tmp_path, "t") is None
    assert blow_fuse(tmp_path, "t", Fuse(5, "why"))
    assert not blow_fuse(tmp_path, "t", Fuse(9, "another reason"))
    assert read_fuse(tmp_path, "t") == Fuse(5, "why")
    assert read_fuse(tmp_path, "u") is None
    assert clear_fuse(tmp_path, "t")
    assert not clear_fuse(tmp_path, "t")
    assert read_fuse(tmp_path, "t") is None


def test_a_fuse_that_cannot_be_read_has_blown(tmp_path: Path) -> None:
    fuse_path(tmp_path, "t").parent.mkdir()
    for text in ("", "[]", "{}", '{"since": null, "reason": ""}'):
        fuse_path(tmp_path, "t").write_text(text)
        fuse = read_fuse(tmp_path, "t")
        assert fuse is not None
        assert "cannot be read" in fuse.reason
