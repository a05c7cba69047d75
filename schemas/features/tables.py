"""TableGroup: features that are columns of a changing table, which a service or a query in SQL keeps."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from schemas.features.checks import fits, no_span

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
KINDS = ("long", "double", "string")


@dataclass(frozen=True)
class TableColumn:
    """A column that is a feature: its type (long, double or string) and the value of an entity without a row."""

    name: str
    kind: str
    default: Any = None


@dataclass(frozen=True)
class TableGroup:
    """Features of one kind of entity from a table that changes. A row holds from its `time` (epoch ms) until the next
    row of its `key`; as of an instant the last row before it counts.

    With `sql` it is a batch group: DuckDB makes the rows of an instant, `$as_of` in the query, from named tables. The
    query gives the columns of the key and the features. It must read nothing later than `$as_of`.
    """

    name: str
    version: int
    key: tuple[str, ...]
    columns: tuple[TableColumn, ...]
    owner: str
    time: str = "valid_from"
    sql: str = ""
    max_age: str = "1d"
    description: str = ""
    consumers: tuple[str, ...] = field(default=())

    @property
    def id(self) -> str:
        """Its name and version, as stores and lineage write them."""
        return f"{self.name}@{self.version}"

    def mistakes(self) -> list[tuple[str, Any, str]]:
        """(place, value, remedy) of what is wrong."""
        wrong: list[tuple[str, Any, str]] = []
        names = [column.name for column in self.columns]
        for place, text in [
            ("name", self.name),
            *((f"columns[{place}].name", name) for place, name in enumerate(names)),
        ]:
            if not _NAME.fullmatch(text):
                wrong.append((place, text, "a name is a lower-case letter, then letters, digits and _, at most 63"))
        if self.version < 1:
            wrong.append(("version", self.version, "a version is a whole number from 1"))
        if not 0 < len(self.key) == len(set(self.key)):
            wrong.append(("key", self.key, "name the columns that say whose features these are, each once"))
        if not names or len({*names, *self.key, self.time}) < len(names) + len(set(self.key)) + 1:
            wrong.append(("columns", tuple(names), "name at least one, each once, apart from the key and the time"))
        for number, column in enumerate(self.columns):
            if column.kind not in KINDS:
                wrong.append((f"columns[{number}].kind", column.kind, f"one of {', '.join(KINDS)}"))
            elif column.default is not None and not fits(column.default, column.kind):
                wrong.append((f"columns[{number}].default", column.default, f"the feature is a {column.kind}"))
        if fix := no_span(self.max_age):
            wrong.append(("max_age", self.max_age, fix))
        return wrong
