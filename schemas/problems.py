"""The errors that end a command with a message: mistakes in its input, and jobs that cannot go on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import ClassVar, NamedTuple


class Problem(NamedTuple):
    """One mistake: the file and field that have it, the value there, and how to fix it."""

    file: str
    field: str
    value: str
    fix: str
    line: int | None = None

    def __str__(self) -> str:
        file, field, value = (shown(visible(str(text)), 500) for text in (self.file, self.field, self.value))
        place = file if self.line is None else f"{file}:{self.line}"
        return f"{place}  {field or '(whole file)'} = {value}\n    {_cut(visible(self.fix), 4_000)}"


class ErrorKind(StrEnum):
    """The kind of an error; pipelines/command_line/exit_codes.py has the exit code of each."""

    INPUT = "input"
    JOB = "job"


class CommandError(Exception):
    """An error that ends a command with its message, where a bug ends it with a traceback.

    Beam raises the error of a worker again as a RuntimeError with the text of its traceback. A traceback prints the
    notes of an exception, so each error notes its kind and message there as JSON; `describe_error` reads them.
    """

    kind: ClassVar[ErrorKind]

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.add_note(_NOTE + json.dumps({"kind": self.kind, "message": str(self)}))


class InputError(CommandError):
    """Every mistake found in the inputs of one command; `str()` lists them all."""

    kind = ErrorKind.INPUT

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems), key=lambda p: (p.file, p.line or 0, p.field))
        super().__init__(self.problems)

    def __str__(self) -> str:
        head = f"{plural(len(self.problems), 'mistake')} in the input; nothing was run."
        return "\n".join([head, *map(str, self.problems)])


class JobError(CommandError):
    """A job, file, broker or ledger that cannot go on until somebody acts: what happened, and what to do. `damaged`: a
    file does not hold what it should, so that the same command fails again."""

    kind = ErrorKind.JOB

    def __init__(self, happened: str, todo: str = "", damaged: bool = False) -> None:
        self.happened, self.todo, self.damaged = happened, todo, damaged
        super().__init__(happened, todo, damaged)

    def __str__(self) -> str:
        return f"{self.happened}. {self.todo}" if self.todo else self.happened


class ErrorDescription(NamedTuple):
    """The kind of an error, and its message for the user."""

    kind: ErrorKind
    message: str


_NOTE = "campaigns-error "
_STEP = re.compile(r" \[while running '[^']*'\]")  # Beam adds it to the first argument of an error


def describe_error(error: BaseException) -> ErrorDescription | None:
    """The kind and message of a CommandError, also of one in the text of another error; None for a bug."""
    if isinstance(error, CommandError):
        return ErrorDescription(error.kind, _STEP.sub("", str(error)))
    for text in reversed(str(error).split(_NOTE)[1:]):
        try:
            note, _ = json.JSONDecoder().raw_decode(text)
            return ErrorDescription(ErrorKind(note["kind"]), _STEP.sub("", note["message"]))
        except (ValueError, KeyError, TypeError):
            continue
    return None


def plural(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def visible(text: str) -> str:
    """A text for a terminal: control and invisible characters are escaped, line ends stay."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shown(value: object, limit: int = 80) -> str:
    """A value as one short line, cut in the middle when it is long."""
    text = repr(value) if not isinstance(value, str) else value
    return _cut(text.replace("\n", "\\n"), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 20]} … {text[-16:]}"
