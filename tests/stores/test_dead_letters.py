"""Dead letters: bytes verbatim, there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contracts import DeadLetter
from stores.dead_letters import read_dead_letters, write_dead_letters


def any_letter(**changes: Any) -> DeadLetter:
    letter = DeadLetter("Decode", "malformed", "cut short", "topic", b"\0\xff", "launch-1/0")
    return letter._replace(**changes)


letters = st.lists(st.builds(DeadLetter, *[st.text(max_size=9)] * 4, st.binary(max_size=99), st.text(max_size=9)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(letters)
def test_letters_are_read_back_as_they_were(tmp_path: Path, letters: list[DeadLetter]) -> None:
    assert read_dead_letters(write_dead_letters(str(tmp_path), "part-0", letters)) == sorted(letters)


def test_the_order_in_which_letters_arrive_does_not_change_the_file(tmp_path: Path) -> None:
    two = [any_letter(source="b"), any_letter(source="a")]
    one = write_dead_letters(str(tmp_path / "one"), "part-0", two)
    other = write_dead_letters(str(tmp_path / "other"), "part-0", iter(two[::-1]))
    assert Path(one).read_bytes() == Path(other).read_bytes()


def test_text_that_is_no_unicode_is_kept_as_escapes(tmp_path: Path) -> None:
    path = write_dead_letters(str(tmp_path), "part-0", [any_letter(detail="bad \udcff byte")])
    assert read_dead_letters(path)[0].detail == "bad \\udcff byte"
