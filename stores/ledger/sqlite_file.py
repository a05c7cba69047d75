"""The file of an SQLite ledger: creates, upgrades and checks it, and explains SQLite's errors."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import quote

import msgspec

from schemas.problems import JobError
from stores.ledger.file_lock import LedgerLock

VERSION = 2
APPLICATION = 0x4C444752  # "LDGR", what `PRAGMA application_id` says about our files
CACHE_KB = 16_000
LOG_PAGES = 4_000  # of the write-ahead log, before they are moved to their places
_AGAIN = "then run the same command again: nothing that was claimed or settled is lost"
RESTORE = (
    "restore it from a backup together with its -wal file, or make one from the receipts: "
    "campaigns ledger rebuild OUTPUT --move-aside"
)
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
    1: ("ALTER TABLE claims ADD COLUMN first_claimed INTEGER NOT NULL DEFAULT 0", "PRAGMA user_version = 2")
}
_RESTORE = RESTORE[0].upper() + RESTORE[1:]
_TODO = {
    sqlite3.SQLITE_BUSY: f"See which process holds it (a backup, a shell that left a transaction open), {_AGAIN}",
    sqlite3.SQLITE_FULL: f"Free some space, {_AGAIN}",
    sqlite3.SQLITE_READONLY: f"Give this account the right to write it and its folder, {_AGAIN}",
    sqlite3.SQLITE_CANTOPEN: f"See that its folder is there and can be written, {_AGAIN}",
    sqlite3.SQLITE_NOTADB: f"Name another file if this one is none of ours; {RESTORE}",
    sqlite3.SQLITE_CORRUPT: _RESTORE,
}
_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_FULL_BYTES = 1 << 20  # a disk with less than this is full, whatever error SQLite gives


class Probe(NamedTuple):
    """The state of a ledger's path: no file, a file without tables, or a ledger, with the value of one of its cells."""

    state: Literal["missing", "empty", "ledger"]
    cell: bytes | None = None


class _Connection(sqlite3.Connection):
    """A connection that shares the ledger's lock until it is closed."""

    lock: LedgerLock

    def close(self) -> None:
        """Close it, then release the lock."""
        super().close()
        self.lock.release()


def connect(path: str, wait_s: float) -> sqlite3.Connection:
    """A connection to the ledger's file, which is created if missing; each statement is its own transaction. It shares
    the ledger's lock (file_lock.py). Raises JobError for a file that is no ledger, one of a newer version, one that
    cannot be opened, and while a rebuild renames the ledger."""
    lock = LedgerLock(path)
    lock.share()
    with as_job_errors(path):
        con = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False, factory=_Connection)
        con.lock = lock
        try:
            _prepare(con, path, wait_s)
        except BaseException:
            con.close()
            raise
        return con


def probe(path: str, cell: str, wait_s: float = 10.0) -> Probe:
    """The state of a path, and a cell's value; changes neither the file nor its -wal. A file that is missing or empty
    is not opened: SQLite would delete a -wal beside it. Raises JobError, with `damaged` for what can be no ledger:
    other bytes, a part of a file, a folder."""
    file = Path(path)
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return Probe("missing")
    except OSError as error:
        raise JobError(f"{path} cannot be read ({error.strerror})", "Put its folder right", damaged=True) from error
    if not file.is_file():
        raise JobError(f"{path} is no file", "Name the ledger's file", damaged=True)
    if not os.access(path, os.R_OK | os.W_OK):
        raise JobError(f"{path} may not be read and written", "Give this account the right to", damaged=True)
    if not size:
        return Probe("empty")
    with as_job_errors(path):
        con = sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", timeout=wait_s, uri=True)
        try:
            if _is_new(con):
                return Probe("empty")
            _check(con, path)
            _check_length(con, file)
            row = con.execute("SELECT value FROM cells WHERE name = ?", (cell,)).fetchone()
        finally:
            con.close()
    value = row and row[0]
    if not isinstance(value, bytes | None):
        raise JobError(f"The cell {cell} of {path} is damaged", _RESTORE, damaged=True)
    return Probe("ledger", value)


def _check_length(con: sqlite3.Connection, file: Path) -> None:
    """Raises JobError when a part of a page is missing, which SQLite reads as zeros. With a -wal the page may stand
    there. The file is not opened for this: closing it would take away SQLite's locks."""
    wal, size = Path(f"{file}-wal"), con.execute("PRAGMA page_size").fetchone()[0]
    if file.stat().st_size % size and not (wal.exists() and wal.stat().st_size):
        raise JobError(f"{file} breaks off in the middle of a page", _RESTORE, damaged=True)


def _prepare(con: sqlite3.Connection, path: str, wait_s: float) -> None:
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
        raise JobError(
            f"{path} is an SQLite file, but no delivery ledger", f"Name another file, or {RESTORE}", damaged=True
        )
    version = _version(con)
    if version != VERSION and version not in _UPGRADES:
        happened = f"{path} is a ledger of version {version}, this is version {VERSION} of the format"
        raise JobError(happened, "Use the version of this program that wrote it, or a later one")


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
def as_job_errors(path: str) -> Iterator[None]:
    """Turns SQLite's errors into JobErrors that name the file and what to do; a bug is raised as it is."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        # No statement of ours violates a constraint of a sound file, or meets text that is not UTF-8 in one.
        unsound = _code(error) == sqlite3.SQLITE_CONSTRAINT or "decode" in str(error)
        code = sqlite3.SQLITE_CORRUPT if unsound else _code(error)
        todo = _TODO.get(code, f"Put it right, {_AGAIN}")
        raise JobError(f"The ledger {path} cannot be used ({error})", todo, code in _DAMAGED) from error


@contextmanager
def sound_rows() -> Iterator[None]:
    """Around the decoding of rows: a row that no ledger writes is a damaged file, not a bug."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        damage = sqlite3.DatabaseError(f"an entry is damaged: {type(error).__name__}: {error}")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage from error


@contextmanager
def sound_cell(cell: str) -> Iterator[None]:
    """Around the update of a cell: bytes that cannot be decoded are a damaged ledger, not a bug."""
    try:
        yield
    except (msgspec.MsgspecError, TypeError) as error:
        raise JobError(f"The ledger's cell {cell} is damaged ({error})", _RESTORE, damaged=True) from error


def means_full(error: sqlite3.Error, path: str) -> bool:
    """Whether the disk of the ledger is full: SQLite says so, or cannot write and there is no room."""
    if _code(error) == sqlite3.SQLITE_FULL:
        return True
    return _code(error) == sqlite3.SQLITE_IOERR and shutil.disk_usage(Path(path).parent).free < _FULL_BYTES


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code: the low byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
