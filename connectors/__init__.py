"""How events and dead letters travel: files and Pub/Sub, named by URI (uri.py) and interchangeable."""

from __future__ import annotations

from schemas.problems import JobError


class TransportError(JobError):
    """A transport that cannot go on until somebody acts: what happened, and what to do."""

    def __init__(self, happened: str, todo: str) -> None:
        super().__init__(happened, todo)
        self.happened, self.todo = happened, todo

    def __str__(self) -> str:
        return f"{self.happened}. {self.todo}"
