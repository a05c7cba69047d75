"""Opens a feature store by its URI."""

from __future__ import annotations

from pathlib import Path

from schemas.problems import InputError, Problem
from stores.features.lmdb_store import LmdbStore
from stores.features.protocol import FeatureStore


def open_store(uri: str, *, read_only: bool = False) -> FeatureStore:
    """The store of a URI: `lmdb:DIR`. Raises InputError for any other, and JobError where it does not open."""
    kind, _, place = uri.partition(":")
    if kind != "lmdb" or not place:
        raise InputError([Problem("command line", "--store", uri, "lmdb:DIR")])
    return LmdbStore(Path(place), read_only=read_only)
