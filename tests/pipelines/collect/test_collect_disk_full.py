"""A disk that is full under collect: the job ends, and after it no event is missing or stored twice."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from support.collecting import Collection, any_rows, write_rows
from support.disks import fill, small_disk

pytestmark = pytest.mark.usefixtures("built_in")


def test_a_full_disk_ends_the_job_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collection = Collection(tmp_path)
    rows = any_rows("order_line", 20_000, producer="p" * 200) + any_rows("order_line", 200, start=20_000, quantity=-1)
    write_rows(collection.raw, "a", rows)
    collection.store.mkdir()
    with small_disk(collection.store, 12):
        filling = fill(collection.store, 3 << 20)
        assert collection.run("--drain") == 1
        err = capsys.readouterr().err
        assert "Collect stopped: " in err
        assert "No space left on device" in err
        assert "Free some space" in err
        before = collection.stored("order_line")
        assert 0 < len(before) < 20_000
        assert set(before.values()) == {1}
        os.truncate(filling, 0)
        assert collection.run("--drain") == 0
        assert collection.stored("order_line") == Counter(f"order_line-{number}" for number in range(20_000))
        assert len({letter.data for letter in collection.letters("order_line")}) == 200
