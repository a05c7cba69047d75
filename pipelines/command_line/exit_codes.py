"""The exit codes of every command, and the one place that turns an error into one (docs/operations.md)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum

from pipelines.command_line.logs import say
from schemas.problems import ErrorKind, describe_error


class Ending(StrEnum):
    """How a command ends that no error ends."""

    DONE = "done"
    CHECK_FAILED = "check failed"
    WARNINGS = "strict warnings"


EXIT_CODES: dict[Ending | ErrorKind, int] = {
    Ending.DONE: 0,
    Ending.CHECK_FAILED: 1,
    ErrorKind.JOB: 1,
    ErrorKind.INPUT: 2,
    Ending.WARNINGS: 2,
}


def exit_code(command: Callable[[], int | Ending], stopped: str = "") -> int:
    """Run a command and return its exit code.

    A CommandError is printed to stderr, after the words `stopped` unless it is about the input. A bug is raised: Python
    prints its traceback and ends with 1.
    """
    try:
        ending = command()
    except Exception as error:
        described = describe_error(error)
        if described is None:
            raise
        text = described.message if described.kind is ErrorKind.INPUT else stopped + described.message
        say(text, logging.ERROR)
        return EXIT_CODES[described.kind]
    return EXIT_CODES[ending] if isinstance(ending, Ending) else ending
