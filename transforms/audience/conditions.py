"""Checker: checks SQL expressions over one customer's columns. A DuckDB without files and network evaluates them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from transforms.audience.functions import ALLOWED_FUNCTIONS, ALLOWED_NODES

TABLE = "customers"
LAUNCHED_AT = "launched_at"
CLOCKS = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "now", "today"})
"""SQL names of the current time; refused, unless the customers have a column of the name."""
MAX_DEPTH = 500
"""Levels of a parsed expression as JSON (two or three for a level of SQL): Python limits the recursion over it."""
_PREFIX = "SELECT (\n"
_UNPLACED = 2**63


class Mistake(NamedTuple):
    """The reason to refuse an expression; `position` counts characters from 0, None where DuckDB names none."""

    message: str
    position: int | None = None

    def shown(self, text: str) -> str:
        """The message, and the line of the expression with a caret at the place."""
        if self.position is None or self.position > len(text):
            return self.message
        start = text.rfind("\n", 0, self.position) + 1
        line = text[start:].split("\n", 1)[0]
        column = self.position - start
        low = max(0, column - 60)
        shown = f"      {line[low : low + 100]}\n      {' ' * (column - low)}^"
        return f"{self.message} (character {self.position + 1})\n{shown}"


def open_connection(*settings: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection without access to files, network, Python variables and settings; UTC, one thread.

    `settings` are set before the settings are locked.
    """
    con = duckdb.connect(":memory:")
    for setting in (
        *settings,
        "threads = 1",
        "TimeZone = 'UTC'",
        "python_enable_replacements = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        con.execute(f"SET {setting}")
    return con


def quoted(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


_TOO_DEEP = Mistake("is nested too deeply; write fewer levels, such as one IN (…) for many comparisons")


class Checker:
    """Checks expressions against the schema of the customers."""

    def __init__(self, schema: pa.Schema) -> None:
        self._con = open_connection()
        fields = [field for field in schema if field.name.lower() != LAUNCHED_AT]
        fields.append(pa.field(LAUNCHED_AT, pa.timestamp("us")))
        self._names = {field.name.lower(): field.name for field in fields}
        self._con.register(TABLE, pa.schema(fields).empty_table())

    def check(self, text: str, sql_type: str | None = None) -> Mistake | None:
        """The first mistake of an expression, or None; `sql_type` is the type it must have."""
        statement = self._parse(text)
        if isinstance(statement, Mistake):
            return _in_characters(statement, text)
        for node in _nodes(statement["select_list"]):
            if (mistake := self._refused(node)) is not None:
                return _in_characters(mistake, text)
        return self._bind(text, sql_type) or self._failing_constant(statement, text)

    def columns(self, text: str) -> set[str]:
        """The customers' columns that a valid expression reads."""
        statement = self._parse(text)
        nodes = () if isinstance(statement, Mistake) else _nodes(statement["select_list"])
        names = {node["column_names"][0].lower() for node in nodes if node["class"] == "COLUMN_REF"}
        return {self._names[name] for name in names if name in self._names} - {LAUNCHED_AT}

    def type_of(self, text: str) -> str:
        """The SQL type of a valid expression."""
        query = f"DESCRIBE SELECT (\n{text}\n) AS v FROM {TABLE}"  # noqa: S608
        return str(self._con.execute(query).fetchall()[0][1])

    def _parse(self, text: str) -> Any:
        """The statement `SELECT (text)` as JSON, or its Mistake."""
        statements = self._statements(_PREFIX, text, "\n)")
        if isinstance(statements, Mistake):
            return statements
        if len(statements) != 1 or not _is_one_expression(statements[0]["node"]):
            return Mistake("must be one expression, not a list or a query")
        # The brackets of a text such as `a) OR (b` match only those put around it.
        alone = self._statements("SELECT\n", text, "\n")
        return alone if isinstance(alone, Mistake) else statements[0]["node"]

    def _statements(self, before: str, text: str, after: str) -> Any:
        query = f"{before}{text}{after}"
        try:
            tree = json.loads(self._con.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0])
        except RecursionError:
            return _TOO_DEEP
        if _depth(tree) > MAX_DEPTH:
            return _TOO_DEEP
        if not tree["error"]:
            return tree["statements"]
        place = tree.get("position")
        message = f"is not an SQL expression: {tree['error_message']}"
        return Mistake(message, None if place is None else min(int(place) - len(before), len(text)))

    def _refused(self, node: Mapping[str, Any]) -> Mistake | None:
        kind, place = node["class"], _place(node)
        if kind == "SUBQUERY":
            return Mistake("a sub-query is not allowed: a condition sees one customer's columns", place)
        if kind not in ALLOWED_NODES:
            name = {"STAR": "*", "LAMBDA": "a lambda", "WINDOW": "a window function"}.get(kind, kind.lower())
            return Mistake(f"{name} is not allowed in a condition", place)
        if kind == "FUNCTION":
            return _refused_function(node, place)
        if kind == "COLUMN_REF" and node["column_names"][0].lower() not in self._names:
            return Mistake(self._unknown(node["column_names"][0]), place)
        return None

    def _failing_constant(self, statement: Any, text: str) -> Mistake | None:
        """The mistake of an expression with a part that reads no column and raises an error: it fails for everyone."""
        for node in _constant_parts(statement["select_list"][0]):
            tree = json.dumps({"error": False, "statements": [{"node": {**statement, "select_list": [node]}}]})
            query = self._con.execute("SELECT json_deserialize_sql(?)", [tree]).fetchall()[0][0]
            try:
                self._con.execute(query).fetchall()
            except duckdb.Error as error:
                message = f"fails for every customer: {first_line(error)}"
                return _in_characters(Mistake(message, _place(node)), text)
        return None

    def _unknown(self, name: str) -> str:
        if name.lower() in CLOCKS:
            return f"{name} changes between runs; use {LAUNCHED_AT}, the time the launch was first started"
        near = difflib.get_close_matches(name.lower(), self._names, n=1)
        hint = f"did you mean {self._names[near[0]]}?" if near else f"there are: {', '.join(self._names.values())}"
        return f"the customers have no column {name}; {hint}"

    def _bind(self, text: str, sql_type: str | None) -> Mistake | None:
        try:
            actual = self.type_of(text)
        except duckdb.Error as error:
            return _bind_mistake(text, error)
        if sql_type is not None and actual not in (sql_type, '"NULL"'):
            return Mistake(f"must be {sql_type}, this is {actual}")
        return None


def _depth(tree: Any) -> int:
    """The levels of objects and arrays of a JSON value."""
    level, depth = [tree], 0
    while level:
        depth += 1
        inner = [node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list)]
        level = [value for values in inner for value in values]
    return depth


def _is_one_expression(node: Mapping[str, Any]) -> bool:
    """Whether a statement is `SELECT expression` without any clause."""
    if node["type"] != "SELECT_NODE" or node["from_table"]["type"] != "EMPTY" or node["cte_map"]["map"]:
        return False
    clauses = ("modifiers", "where_clause", "group_expressions", "group_sets", "having", "sample", "qualify")
    return len(node["select_list"]) == 1 and not any(node.get(clause) for clause in clauses)


def _in_characters(mistake: Mistake, text: str) -> Mistake:
    """The mistake with its position in characters; DuckDB counts UTF-8 bytes."""
    if mistake.position is None:
        return mistake
    before = text.encode()[: max(0, mistake.position)]
    return mistake._replace(position=len(before.decode(errors="ignore")))


def _refused_function(node: Mapping[str, Any], place: int | None) -> Mistake | None:
    name = node["function_name"].lower()
    if node.get("schema") or node.get("catalog"):
        return Mistake("a function with a schema is not allowed", place)
    if name not in ALLOWED_FUNCTIONS:
        if name in {*CLOCKS, "get_current_timestamp"}:
            return Mistake(f"{name}() changes between runs; use {LAUNCHED_AT}", place)
        near = difflib.get_close_matches(name, ALLOWED_FUNCTIONS, n=1)
        return Mistake(f"the function {name} is not allowed" + (f"; did you mean {near[0]}?" if near else ""), place)
    if node.get("filter") or node.get("distinct") or (node.get("order_bys") or {}).get("orders"):
        return Mistake("an aggregate is not allowed: a condition sees one customer", place)
    if name.endswith("like_escape"):
        escape = node["arguments"][-1]["expression"].get("literal", {}).get("text", "")
        if len(escape) > 1:
            return Mistake(f"ESCAPE takes one character, this is {escape!r}", place)
    return None


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _constant_parts(node: Any) -> Iterator[Mapping[str, Any]]:
    """The largest parts of an expression that are computed from constants alone."""
    if isinstance(node, list):
        for child in node:
            yield from _constant_parts(child)
    elif isinstance(node, dict):
        parts = [part["class"] for part in _nodes(node)]
        if "class" in node and "COLUMN_REF" not in parts:
            yield from [node] if len(parts) > 1 and node["class"] != "TYPE" else []
        else:
            for child in node.values():
                yield from _constant_parts(child)


def first_line(error: duckdb.Error) -> str:
    """DuckDB's message in one line, without its `… Error:`."""
    return re.sub(r"^[\w ]+ Error: ", "", str(error).split("\n", 1)[0])


def _place(node: Mapping[str, Any]) -> int | None:
    place = int(node.get("query_location", _UNPLACED))
    return None if place >= _UNPLACED else place - len(_PREFIX)


def _bind_mistake(text: str, error: duckdb.Error) -> Mistake:
    """DuckDB's message, and the position of its caret in the expression."""
    message = first_line(error)
    caret = re.search(r"LINE \d+: (.*)\n( *)\^", str(error))
    if caret is None:
        return Mistake(message)
    shown, column = caret.group(1).strip("."), len(caret.group(2)) - (caret.start(1) - caret.start(0))
    at = text.find(shown.strip()) if shown.strip() else -1
    lead = len(caret.group(1)) - len(caret.group(1).lstrip("."))
    return Mistake(message, None if at < 0 or column < lead else at + column - lead)
