"""What is wrong with an input, told so that a person can put it right."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """One mistake: where it stands, what stands there, what to do."""

    file: str
    field: str
    value: str
    fix: str
    line: int | None = None

    def __str__(self) -> str:
        file, field, value = (shown(visible(str(text)), 500) for text in (self.file, self.field, self.value))
        place = file if self.line is None else f"{file}:{self.line}"
        return f"{place}  {field or '(whole file)'} = {value}\n    {_cut(visible(self.fix), 4_000)}"


class InputError(Exception):
    """Every mistake found in the inputs of one command; `str()` lists them all."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems), key=lambda p: (p.file, p.line or 0, p.field))
        head = f"{plural(len(self.problems), 'mistake')} in the input; nothing was run."
        super().__init__("\n".join([head, *map(str, self.problems)]))


_TOLD = re.compile(
    r"(?:LaunchError|TransportError|LedgerError): (.*?)(?: \[while running|\n\S*Error|\n\n|$)", re.DOTALL
)


class LaunchError(Exception):
    """The work could not go on; the message says what happened and what to do."""

    @staticmethod
    def told(error: BaseException) -> str | None:
        """What a launch error said, also when an engine has wrapped it into another's text; None for a bug."""
        if isinstance(error, LaunchError):
            return str(error)
        found = _TOLD.findall(str(error))
        return found[-1].strip() if found else None


def plural(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def visible(text: str) -> str:
    """A text for a terminal: what cannot be seen there, or would be obeyed, is escaped; ends of lines stay."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shown(value: object, limit: int = 80) -> str:
    """A value as one short line, cut in the middle when it is long."""
    text = repr(value) if not isinstance(value, str) else value
    return _cut(text.replace("\n", "\\n"), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 20]} … {text[-16:]}"
