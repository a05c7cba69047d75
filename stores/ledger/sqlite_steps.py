"""Steps that are committed in one transaction, in which a step fails alone or all of them do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

_OF_THE_CALLER = (sqlite3.ProgrammingError, sqlite3.InterfaceError)


class Step:
    """A step, and its result or error."""

    def __init__(self, step: Callable[[sqlite3.Connection], Any]) -> None:
        self._step, self.done = step, False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, con: sqlite3.Connection) -> None:
        """Runs it inside a transaction. Raises errors of the disk and the file; any other is stored in `error`."""
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
    """Runs all steps in one transaction, with the write lock from its start: a reader that writes later cannot wait."""
    con.execute("BEGIN IMMEDIATE")
    try:
        for step in steps:
            step.run(con)
        con.execute("COMMIT")
    except BaseException:
        if con.in_transaction:
            con.execute("ROLLBACK")
        raise
