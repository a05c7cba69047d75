"""The delivery ledger (schemas/delivery.py has its contract): SQLite and Firestore, named by URI (open.py)."""

from __future__ import annotations

from schemas.problems import LaunchError


class LedgerError(LaunchError):
    """A ledger that cannot go on until somebody acts: what happened, and what to do."""

    def __init__(self, happened: str, todo: str) -> None:
        super().__init__(happened, todo)
        self.happened, self.todo = happened, todo

    def __str__(self) -> str:
        return f"{self.happened}. {self.todo}"
