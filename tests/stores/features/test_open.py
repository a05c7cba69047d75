"""URIs of feature stores: what opens, and what a wrong one is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from schemas.problems import InputError
from stores.features.lmdb_store import LmdbStore
from stores.features.open import open_store
from stores.features.redis_store import RedisStore


def test_each_form_opens_its_store(tmp_path: Path) -> None:
    folder = open_store(f"lmdb:{tmp_path}/a b")
    assert isinstance(folder, LmdbStore)
    folder.close()
    assert (tmp_path / "a b" / "data.mdb").exists()
    server = open_store("redis://:word@10.0.0.1:6380/7?expire=120d")
    assert isinstance(server, RedisStore)
    assert server._expire_s == 120 * 86_400
    assert server._address == "redis://10.0.0.1:6380/7"


def test_a_folder_that_is_opened_to_be_read_is_not_made(tmp_path: Path) -> None:
    open_store(f"lmdb:{tmp_path}/later", read_only=True).close()
    assert not (tmp_path / "later").exists()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("", "names no feature store"),
        ("out/features", "names no feature store; write lmdb:DIR"),
        ("sqlite:x", "names no feature store"),
        ("lmdb:", "name a folder on this machine"),
        ("lmdb:gs://bucket/x", "name a folder on this machine"),
        ("redis:", "names no database"),
        ("redis://", "names no database"),
        ("redis://:secret@h:99999/0", "Port out of range"),
        ("redis://:secret@h:1/x", "redis://…@h:1/x"),
        ("redis://:secret@h:1/0?expire=5", "no span of time"),
        ("redis://:secret@h:1/0?ssl=no", "names no database"),
        ("bigtable:t", "write bigtable:projects/P/instances/I/tables/T"),
        ("bigtable:projects/p/instances/i/tables/t", "write bigtable:"),
    ],
)
def test_a_wrong_uri_is_told_the_right_form_and_no_password(uri: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)) as raised:
        open_store(uri)
    assert "secret" not in str(raised.value)
