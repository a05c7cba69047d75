"""LaunchWarning: a valid part of the inputs without effect, or probably not with the intended one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.problems import InputError, Problem, shown

ENGINE = "engine.yaml"


@dataclass(frozen=True)
class LaunchWarning:
    """The file, field and value, the number of customers or ids that it concerns with an example, and what to do.

    `campaign` is empty for a warning about no single campaign; `file` is relative to the campaigns' folder.
    """

    kind: str
    campaign: str
    file: str
    field: str
    value: str
    count: int
    example: str
    text: str


def warning_text(warning: Mapping[str, Any]) -> str:
    """A warning of summary.json as two lines for a terminal."""
    return f"warning: {_problem(LaunchWarning(**warning))}"


def refusal(warnings: Iterable[Mapping[str, Any]]) -> InputError:
    """The warnings as the InputError that --strict raises."""
    return InputError([_problem(LaunchWarning(**warning)) for warning in warnings])


def _problem(warning: LaunchWarning) -> Problem:
    return Problem(warning.file, warning.field, shown(warning.value), warning.text)


def join_names(names: Sequence[str], limit: int = 5) -> str:
    """Names joined by commas; after `limit` names the number of the others."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" if more > 0 else "")
