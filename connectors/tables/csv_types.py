"""The types of CSV columns: the narrowest that loses nothing of the values."""

from __future__ import annotations

from collections.abc import Collection

from duckdb import DuckDBPyConnection as Connection

from connectors.tables.sources import SAMPLE_ROWS

_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
FORMS = {
    "BIGINT": "(0|-?[1-9][0-9]{0,17})",
    "DOUBLE": "-?((0|[1-9][0-9]{0,17})([.][0-9]*)?|[.][0-9]+)([eE][-+]?[0-9]{1,3})?",
    "BOOLEAN": "(?i:true|false)",
    "DATE": _DAY,
    "TIMESTAMP": _DAY + "[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?",
    "TIMESTAMPTZ": _DAY + "[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?(Z|[-+][0-9]{2}(:?[0-9]{2})?)",
    "VARCHAR": "[-+]?[0-9]+",
}
"""What the values of a type look like, tried in this order. Digits that are no BIGINT (a leading zero, a plus, 19 and
more of them) are text: as numbers they would not come back as they were written."""
_WIDER = {
    "BIGINT": ["BIGINT", "DOUBLE", "VARCHAR"],
    "DATE": ["DATE", "TIMESTAMP", "TIMESTAMPTZ"],
    "BOOLEAN": ["BOOLEAN"],
}
_FAMILY = {kind: family for family, kinds in _WIDER.items() for kind in kinds}
_OTHER = "OTHER"


def quoted(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as SQL."""
    return "'" + value.replace("'", "''") + "'"


def column_types(con: Connection, names: Collection[str], rows: str, ids: Collection[str]) -> dict[str, str]:
    """The type of each column of some rows (SQL, all text): that of the first ones, widened by what comes after them. A
    column of `ids` is whole numbers if every value is one, written as a number is; else it stays the text it is."""
    sampled = _forms(con, {name: list(FORMS) for name in names}, f"(FROM {rows} LIMIT {SAMPLE_ROWS})")
    later = _forms(con, {n: ["BIGINT"] if n in ids else _to_ask(forms) for n, forms in sampled.items()}, rows)
    return {
        name: _id_type(later[name]) if name in ids else _type_of(forms, later.get(name, set()))
        for name, forms in sampled.items()
    }


def common_type(types: Collection[str]) -> str:
    """The type for a column of several files."""
    if len(set(types)) == 1:
        return next(iter(types))
    return "DOUBLE" if set(types) <= {"BIGINT", "DOUBLE"} else "VARCHAR"


def _forms(con: Connection, asked: dict[str, list[str]], rows: str) -> dict[str, set[str]]:
    """The forms that some value of each column has, of those that are asked for; `OTHER` for none of all."""
    asked = {name: forms for name, forms in asked.items() if forms}
    if not asked:
        return {}
    columns = []
    for name, forms in asked.items():
        column = quoted(name)
        cases = [f"WHEN regexp_full_match({column}, {literal(FORMS[form])}) THEN {literal(form)}" for form in forms]
        columns.append(f"list(DISTINCT CASE {' '.join(cases)} ELSE '{_OTHER}' END) FILTER (WHERE {column} IS NOT NULL)")
    forms = con.sql(f"SELECT {', '.join(columns)} FROM {rows}").fetchall()[0]  # noqa: S608
    return {name: set(forms or ()) for name, forms in zip(asked, forms, strict=True)}


def _id_type(forms: set[str]) -> str:
    return "BIGINT" if forms == {"BIGINT"} else "VARCHAR"


def _to_ask(sampled: set[str]) -> list[str]:
    """What the rest of the file may widen a column to."""
    if not sampled:
        return list(FORMS)
    family = _family(sampled)
    return [] if family in (None, "BOOLEAN") else _WIDER[str(family)]


def _family(forms: set[str]) -> str | None:
    """What all forms belong to: numbers (BIGINT), times (DATE), BOOLEAN, or nothing."""
    families = {None if form in (_OTHER, "VARCHAR") else _FAMILY[form] for form in forms}
    return families.pop() if len(families) == 1 else None


def _type_of(sampled: set[str], later: set[str]) -> str:
    """The type that loses nothing of the values; later ones of another kind are mistakes of their rows."""
    family = _family(sampled or later)
    if family is None or (sampled and "VARCHAR" in later):
        return "VARCHAR"
    seen = (sampled | later) - {_OTHER}
    return [kind for kind in _WIDER[family] if kind in seen][-1]
