"""Opens the feature store that a URI names: `lmdb:DIR`, `redis://HOST:PORT/DB` or a table of Bigtable."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from connectors.uri import UriError
from schemas.features.windows import duration_ms
from stores.features.protocol import FeatureStore

FORMS = "lmdb:DIR, redis://[:PASSWORD@]HOST:PORT/DB[?expire=120d] or bigtable:projects/P/instances/I/tables/T"
_BIGTABLE = re.compile(r"projects/([^/\s]+)/instances/([a-z][a-z0-9-]{5,32})/tables/([\w.-]{1,50})", re.ASCII)


def open_store(uri: str, *, read_only: bool = False) -> FeatureStore:
    """The feature store of a URI; close it in the end, and open one in each process. With `read_only` a folder need not
    be there yet: reads raise JobError until it is.

    Raises UriError with the right form, JobError where the store cannot be opened.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme not in ("lmdb", "redis", "rediss", "bigtable"):
        raise UriError(f"{uri!r} names no feature store; write {FORMS}")
    if scheme == "lmdb":
        return _lmdb(uri, rest, read_only)
    return _bigtable(uri, rest) if scheme == "bigtable" else _redis(uri)


def _lmdb(uri: str, folder: str, read_only: bool) -> FeatureStore:
    from stores.features.lmdb_store import LmdbStore

    if not folder or "://" in folder or folder.startswith("//"):
        raise UriError(f"{uri!r} names no folder on this machine; write lmdb:DIR, for instance lmdb:out/features")
    return LmdbStore(Path(folder), read_only=read_only)


def _redis(uri: str) -> FeatureStore:
    from stores.features.redis_store import RedisStore

    form = "write redis://[:PASSWORD@]HOST:PORT/DB, for instance redis://127.0.0.1:6379/0"
    try:
        parts = urlsplit(uri)
        _ = parts.port
        settings = {
            name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()
        }
    except ValueError as error:
        raise UriError(f"{_without_password(uri)!r}: {error}; {form}") from error
    if not parts.hostname or not re.fullmatch(r"/?[0-9]{0,4}", parts.path) or settings.keys() - {"expire"}:
        raise UriError(f"{_without_password(uri)!r} names no database; {form}")
    try:
        expire_s = duration_ms(settings["expire"]) // 1_000 if settings else 0
    except ValueError as error:
        raise UriError(f"{_without_password(uri)!r}: expire: {error}") from error
    return RedisStore(parts._replace(query="").geturl(), expire_s=expire_s)


def _bigtable(uri: str, path: str) -> FeatureStore:
    from stores.features.bigtable_store import BigtableStore

    found = _BIGTABLE.fullmatch(path)
    if found is None:
        raise UriError(f"{uri!r}: write bigtable:projects/P/instances/I/tables/T")
    return BigtableStore(*found.groups())


def _without_password(uri: str) -> str:
    return re.sub(r"//[^@/]*@", "//…@", uri)
