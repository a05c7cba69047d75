"""Opens the feature store that a URI names: `lmdb:DIR`, `redis://HOST:PORT/DB` or a table of Bigtable."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from schemas.features.windows import duration_ms
from schemas.problems import InputError, Problem
from stores.features.protocol import FeatureStore

FORMS = "lmdb:DIR, redis://[:PASSWORD@]HOST:PORT/DB[?expire=120d] or bigtable:projects/P/instances/I/tables/T"
_BIGTABLE = re.compile(r"projects/([^/\s]+)/instances/([a-z][a-z0-9-]{5,32})/tables/([\w.-]{1,50})", re.ASCII)


def open_store(uri: str, *, read_only: bool = False) -> FeatureStore:
    """The feature store of a URI; close it in the end, and open one in each process. With `read_only` a folder need not
    be there yet: reads raise JobError until it is.

    Raises InputError with the right form, JobError where the store cannot be opened.
    """
    scheme, colon, rest = uri.partition(":")
    opening = {"lmdb": _lmdb, "redis": _redis, "rediss": _redis, "bigtable": _bigtable}.get(scheme)
    if not colon or opening is None:
        raise _mistake(uri, f"it names no feature store; write {FORMS}")
    return opening(uri, rest, read_only)


def _lmdb(uri: str, folder: str, read_only: bool) -> FeatureStore:
    from stores.features.lmdb_store import LmdbStore

    if not folder or "://" in folder or folder.startswith("//"):
        raise _mistake(uri, "name a folder on this machine, lmdb:DIR, for instance lmdb:out/features")
    return LmdbStore(Path(folder), read_only=read_only)


def _redis(uri: str, _: str, __: bool) -> FeatureStore:
    from stores.features.redis_store import RedisStore

    form = "write redis://[:PASSWORD@]HOST:PORT/DB, for instance redis://127.0.0.1:6379/0"
    try:
        parts = urlsplit(uri)
        _ = str(parts.port)  # raises ValueError for one that is none
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        settings = {name: values[-1] for name, values in query.items()}
        expire_s = duration_ms(settings["expire"]) // 1_000 if "expire" in settings else 0
    except ValueError as error:
        raise _mistake(uri, f"{error}; {form}") from error
    if not parts.hostname or not re.fullmatch(r"/?[0-9]{0,4}", parts.path) or settings.keys() - {"expire"}:
        raise _mistake(uri, f"it names no database; {form}")
    return RedisStore(parts._replace(query="").geturl(), expire_s=expire_s)


def _bigtable(uri: str, path: str, _: bool) -> FeatureStore:
    from stores.features.bigtable_store import BigtableStore

    found = _BIGTABLE.fullmatch(path)
    if found is None:
        raise _mistake(uri, "write bigtable:projects/P/instances/I/tables/T")
    return BigtableStore(*found.groups())


def _mistake(uri: str, fix: str) -> InputError:
    """The error of a URI, without its password."""
    return InputError([Problem("command line", "feature store", re.sub(r"//[^@/]*@", "//…@", uri), fix)])
