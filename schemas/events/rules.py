"""The quality rules of an event type, as its type.yaml declares them (transforms/features/quality.py applies them)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field, StringConstraints

from schemas.campaigns.audience import Strict
from schemas.features.windows import duration_ms

Severity = Literal["drop", "quarantine", "warn"]
"""drop: the event is counted and forgotten. quarantine: it is kept apart, to be replayed. warn: it is only counted."""
Mistakes: TypeAlias = list[tuple[str, object, str]]
"""(field, value, how to fix it) of each."""
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
_File = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}$")]
_NUMBERS = ("long", "double")


def _span(text: str) -> str:
    duration_ms(text)
    return text


_Span = Annotated[str, AfterValidator(_span)]


class _Rule(Strict):
    """What all rules have. A null satisfies every rule but `not_null`."""

    name: _Name
    severity: Severity = "quarantine"
    column: str

    def requires(self) -> str:
        """What a value must be, for the reason of a rejected event."""
        raise NotImplementedError

    def mistakes(self, columns: Mapping[str, str]) -> Mistakes:
        """What does not fit the columns of the type (name to long, double, boolean or string)."""
        return _unknown("column", self.column, columns)


class Range(_Rule):
    """A number is within these limits, both included."""

    rule: Literal["range"]
    least: int | float | None = None
    most: int | float | None = None

    def requires(self) -> str:
        """What a value must be."""
        if self.least is None or self.most is None:
            return f"must be at least {self.least}" if self.most is None else f"must be at most {self.most}"
        return f"must be {self.least} to {self.most}"

    def mistakes(self, columns: Mapping[str, str]) -> Mistakes:
        """What does not fit the columns."""
        wrong = super().mistakes(columns) + _not_of("column", self.column, columns, _NUMBERS)
        if self.least is None and self.most is None:
            wrong.append(("least", None, "give `least`, `most` or both"))
        elif self.least is not None and self.most is not None and self.least > self.most:
            wrong.append(("least", self.least, f"must not be more than `most`, {self.most}"))
        return wrong


class OneOf(_Rule):
    """A value is one of these."""

    rule: Literal["set"]
    values: tuple[str | int, ...] = Field(min_length=1, max_length=1_000)

    def requires(self) -> str:
        """What a value must be."""
        return f"must be one of {', '.join(map(str, self.values))}"

    def mistakes(self, columns: Mapping[str, str]) -> Mistakes:
        """What does not fit the columns."""
        wrong = super().mistakes(columns) + _not_of("column", self.column, columns, ("string", "long"))
        for value in self.values:
            text = columns.get(self.column) == "string"
            fits = text if isinstance(value, str) else not text and -(2**63) <= value < 2**63
            if not wrong and not fits:
                wrong.append(("values", value, f"{self.column} is a {columns[self.column]}"))
        return wrong


class Reference(_Rule):
    """A text stands in a list: a file beside type.yaml with one value a line."""

    rule: Literal["reference"]
    file: _File

    def requires(self) -> str:
        """What a value must be."""
        return f"must stand in the list {self.file}"

    def mistakes(self, columns: Mapping[str, str]) -> Mistakes:
        """What does not fit the columns."""
        return super().mistakes(columns) + _not_of("column", self.column, columns, ("string",))


class Pattern(_Rule):
    """The whole text matches a regular expression (RE2)."""

    rule: Literal["regex"]
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=1_000)]

    def requires(self) -> str:
        """What a value must be."""
        return f"must match {self.pattern}"

    def mistakes(self, columns: Mapping[str, str]) -> Mistakes:
        """What does not fit the columns."""
        wrong = super().mistakes(columns) + _not_of("column", self.column, columns, ("string",))
        try:
            pc.match_substring_regex(pa.array([""]), self.pattern)
        except pa.ArrowInvalid as error:
            wrong.append(("pattern", self.pattern, f"is no regular expression of RE2 ({error})"))
        return wrong


class NotNull(_Rule):
    """The column has a value."""

    rule: Literal["not_null"]

    def requires(self) -> str:
        """What a value must be."""
        return "must not be null"


class Lateness(_Rule):
    """An event was published at most so long after the time in the column. The clock does not matter: an event that is
    read again years later is as late as it was."""

    rule: Literal["lateness"]
    column: str = "occurred_at"
    most: _Span

    def requires(self) -> str:
        """What a value must be."""
        return f"must be at most {self.most} before published_at"

    def mistakes(self, columns: Mapping[str, str]) -> Mistakes:
        """What does not fit the columns."""
        return super().mistakes(columns) + _not_of("column", self.column, columns, ("long",))


class Future(_Rule):
    """A time is at most so long after now. Every type has this rule for its times; one of the type replaces it."""

    rule: Literal["future"]
    column: str = "occurred_at"
    most: _Span = "5m"

    def requires(self) -> str:
        """What a value must be."""
        return f"must be at most {self.most} from now"

    def mistakes(self, columns: Mapping[str, str]) -> Mistakes:
        """What does not fit the columns."""
        return super().mistakes(columns) + _not_of("column", self.column, columns, ("long",))


class Compare(_Rule):
    """Two columns of an event compare so."""

    rule: Literal["compare"]
    comparison: Literal["==", "!=", "<", "<=", ">", ">="]
    other: str

    def requires(self) -> str:
        """What a value must be."""
        return f"must be {self.comparison} {self.other}"

    def mistakes(self, columns: Mapping[str, str]) -> Mistakes:
        """What does not fit the columns."""
        wrong = super().mistakes(columns) + _unknown("other", self.other, columns)
        kinds = {"number" if columns[one] in _NUMBERS else columns[one] for one in (self.column, self.other)
                 if one in columns}  # fmt: skip
        if not wrong and len(kinds) > 1:
            wrong.append(("other", self.other, f"is a {columns[self.other]}, {self.column} a {columns[self.column]}"))
        return wrong


Rule: TypeAlias = Annotated[
    Range | OneOf | Reference | Pattern | NotNull | Lateness | Future | Compare, Field(discriminator="rule")
]


def _unknown(field: str, column: str, columns: Mapping[str, str]) -> Mistakes:
    known = ", ".join(columns)
    return [] if column in columns else [(field, column, f"the newest version has no such column; it has {known}")]


def _not_of(field: str, column: str, columns: Mapping[str, str], kinds: tuple[str, ...]) -> Mistakes:
    kind = columns.get(column, kinds[0])
    return [] if kind in kinds else [(field, column, f"is a {kind}; this rule is for {' and '.join(kinds)}")]
