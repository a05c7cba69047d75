"""Opens the ledger that a URI names: `sqlite:PATH` or `firestore:projects/P/databases/D/COLLECTION`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from connectors.uri import UriError
from schemas.delivery import DeliveryLedger
from stores.ledger.firestore import FirestoreLedger
from stores.ledger.sqlite import SqliteLedger

FORMS = "sqlite:PATH or firestore:projects/P/databases/D/COLLECTION"
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_DATABASE = re.compile(r"\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]")
_COLLECTION = re.compile(r"(?!__.*__$)(?!\.{1,2}$)[^\s/]{1,200}")


def open_ledger(uri: str) -> DeliveryLedger:
    """The ledger of a URI, not connected yet: it can be pickled, and `.open()` connects it where it is used. Raises
    UriError with the part that is wrong and the right form."""
    scheme, colon, rest = uri.partition(":")
    if not colon or scheme not in _PARSERS:
        raise UriError(f"{uri!r} names no ledger; write {FORMS}")
    return _PARSERS[scheme](uri, rest)


@contextmanager
def connected_ledger(uri: str) -> Iterator[DeliveryLedger]:
    """The ledger of a URI, connected until the block ends."""
    ledger = open_ledger(uri)
    ledger.open()
    try:
        yield ledger
    finally:
        ledger.close()


def _sqlite(uri: str, path: str) -> DeliveryLedger:
    if not path or path.endswith("/"):
        raise UriError(f"{uri!r} names no file; write sqlite:PATH, for instance sqlite:out/ledger.db")
    if "://" in path or path == ":memory:":
        raise UriError(f"{uri!r} is no file on this machine, where SQLite needs its own; write sqlite:PATH")
    return SqliteLedger(path)


def _firestore(uri: str, rest: str) -> DeliveryLedger:
    parts = rest.split("/")
    if len(parts) != 5 or (parts[0], parts[2]) != ("projects", "databases"):
        raise UriError(f"{uri!r}: write firestore:projects/P/databases/D/COLLECTION")
    _, project, _, database, collection = parts
    if not _PROJECT.fullmatch(project):
        raise UriError(f"{uri!r}: {project!r} is no project id (6 to 30 lower-case letters, digits and hyphens)")
    if not _DATABASE.fullmatch(database):
        raise UriError(f"{uri!r}: {database!r} is no database; write (default) or its id")
    if not _COLLECTION.fullmatch(collection):
        raise UriError(f"{uri!r}: {collection!r} is no collection's name (no slash, no blank, not __…__)")
    return FirestoreLedger(project, database, collection)


_PARSERS = {"sqlite": _sqlite, "firestore": _firestore}
