"""The file of an SQLite ledger: made, recognised, and what its errors mean."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stores.ledger import LedgerError

VERSION = 2
APPLICATION = 0x4C444752  # "LDGR", what `PRAGMA application_id` says about our files
CACHE_KB = 16_000
LOG_PAGES = 4_000  # of the write-ahead log, before they are moved to their places
_AGAIN = "then run the same command again: nothing that was claimed or settled is lost"
_TABLES = (
    # Ids are random: what is written touches a page each in a large table, so only settled entries go to one.
    """CREATE TABLE claims (id NOT NULL PRIMARY KEY, owner, batch, lease_until INTEGER, again INTEGER,
        first_claimed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
    "CREATE TABLE settled (id NOT NULL PRIMARY KEY, outcome INTEGER, settled_at INTEGER, owner) WITHOUT ROWID",
    "CREATE TABLE receipts (settled_at INTEGER, id, body BLOB, PRIMARY KEY (settled_at, id)) WITHOUT ROWID",
    "CREATE TABLE cells (name TEXT NOT NULL PRIMARY KEY, value BLOB) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
_UPGRADES = {  # by the version that a file has; `again` counts since version 2, in which it was 0 or 1 before
    1: ("ALTER TABLE claims ADD COLUMN first_claimed INTEGER NOT NULL DEFAULT 0", "PRAGMA user_version = 2"),
}
_TODO = {
    sqlite3.SQLITE_BUSY: f"See which process holds it (a backup, a shell that left a transaction open), {_AGAIN}",
    sqlite3.SQLITE_FULL: f"Free some space, {_AGAIN}",
    sqlite3.SQLITE_READONLY: f"Give this account the right to write it and its folder, {_AGAIN}",
    sqlite3.SQLITE_CANTOPEN: f"See that its folder is there and can be written, {_AGAIN}",
    sqlite3.SQLITE_NOTADB: "Name another file, or a new one",
    sqlite3.SQLITE_CORRUPT: "Restore it from a backup; `sqlite3 FILE .recover` saves what can be read",
}


def connect(path: str, wait_s: float) -> sqlite3.Connection:
    """A connection to the ledger's file, which is made if there is none; each statement is its own transaction.

    Raises LedgerError for a file that is no ledger, one of a newer version, and one that cannot be opened.
    """
    with told(path):
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(f"The ledger's folder cannot be made ({error})", "Choose another path") from error
        con = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
        try:
            _make_ready(con, path, wait_s)
        except BaseException:
            con.close()
            raise
        return con


def _make_ready(con: sqlite3.Connection, path: str, wait_s: float) -> None:
    if not _is_new(con):
        _check(con, path)
    _write_ahead(con, time.monotonic() + wait_s)
    con.execute("PRAGMA synchronous = FULL")
    con.execute("PRAGMA temp_store = MEMORY")
    con.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    con.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    con.execute("BEGIN IMMEDIATE")
    if _is_new(con):
        for statement in _TABLES:
            con.execute(statement)
    for statement in _UPGRADES.get(_version(con), ()):
        con.execute(statement)
    _check(con, path)
    con.execute("COMMIT")
    con.execute("CREATE TEMP TABLE asked (id NOT NULL PRIMARY KEY) WITHOUT ROWID")


def _is_new(con: sqlite3.Connection) -> bool:
    return not con.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _check(con: sqlite3.Connection, path: str) -> None:
    if con.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise LedgerError(f"{path} is an SQLite file, but no delivery ledger", "Name another file, or a new one")
    version = _version(con)
    if version != VERSION and version not in _UPGRADES:
        happened = f"{path} is a ledger of version {version}, this is version {VERSION} of the format"
        raise LedgerError(happened, "Use the version of this program that wrote it, or a later one")


def _version(con: sqlite3.Connection) -> int:
    return int(con.execute("PRAGMA user_version").fetchone()[0])


def _write_ahead(con: sqlite3.Connection, end: float) -> None:
    """Turn on the write-ahead log; when several open a new file at once SQLite does not wait by itself."""
    while True:
        try:
            con.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(0.01)


@contextmanager
def told(path: str) -> Iterator[None]:
    """Turns SQLite's errors into LedgerErrors that name the file and what to do; a bug stays what it is."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        todo = _TODO.get(_code(error), f"Put it right, {_AGAIN}")
        raise LedgerError(f"The ledger {path} cannot be used ({error})", todo) from error


def _code(error: sqlite3.Error) -> int:
    """The primary result code: the low byte of what SQLite said."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
