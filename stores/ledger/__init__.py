"""The delivery ledger (schemas/delivery.py has its contract): SQLite and Firestore, named by URI (open.py)."""

from __future__ import annotations

from schemas.problems import JobError


class LedgerError(JobError):
    """A ledger that cannot go on until somebody acts: what happened, and what to do.

    `damaged`: the file does not hold a sound ledger, so that the same command fails again.
    """

    def __init__(self, happened: str, todo: str, damaged: bool = False) -> None:
        super().__init__(happened, todo)
        self.happened, self.todo, self.damaged = happened, todo, damaged

    def __str__(self) -> str:
        return f"{self.happened}. {self.todo}"
