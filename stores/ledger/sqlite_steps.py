"""Steps of a ledger that are written together: one transaction, in which a step fails alone or all of them do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

_OF_THE_CALLER = (sqlite3.ProgrammingError, sqlite3.InterfaceError)


class Step:
    """A step, and what came of it."""

    def __init__(self, step: Callable[[sqlite3.Connection], Any]) -> None:
        self._step, self.done = step, False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, con: sqlite3.Connection) -> None:
        """Runs it inside a transaction. Raises what the disk or the file is to blame for; any other error is kept."""
        self.error = None
        con.execute("SAVEPOINT step")
        try:
            self.result = self._step(con)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, _OF_THE_CALLER):
                raise  # nothing of the transaction can stay
            con.execute("ROLLBACK TO step")
            self.error = error
        con.execute("RELEASE step")


def run_all(con: sqlite3.Connection, steps: Sequence[Step]) -> None:
    """All steps as one transaction. The write lock is taken at once: a reader that becomes a writer cannot wait."""
    con.execute("BEGIN IMMEDIATE")
    try:
        for one in steps:
            one.run(con)
        con.execute("COMMIT")
    except BaseException:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise
