"""NDJSON tables: one JSON object a line. A column has the type of most of the first lines; dates stay text."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.json as pajson

from connectors.tables.sources import SAMPLE_ROWS, Reject, Rejected, check_names, unusable
from connectors.tables.text import BLOCK, TextFile

MAX_LINE = 64 << 20
MAX_DEPTH = 100
"""Nested objects and lists. The parser uses stack memory for each level and ends the process when that is used up, so
deeper lines never reach it."""
_TYPES = {
    "UBIGINT": pa.int64(), "BIGINT": pa.int64(), "HUGEINT": pa.float64(), "UHUGEINT": pa.float64(),
    "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_(), "VARCHAR": pa.string(), "NULL": pa.string(), "JSON": pa.string(),
}  # fmt: skip
_WHOLE = ["UBIGINT", "BIGINT"]

Line = tuple[int, bytes]
"""Its number in the file, from 1, and its bytes without the line end."""


class NdjsonFiles:
    """The objects of NDJSON files. Raises InputError when no line of the sample is a JSON object. A column of `ids`
    with whole numbers has an integer type: floats would not hold them all."""

    def __init__(self, source: str, paths: Sequence[Path], ids: Container[str] = ()) -> None:
        self._files = [TextFile(source, path) for path in paths]
        self.schema = _schema(source, self._files, ids)
        check_names(source, self.schema.names)

    def batches(self, reject: Reject) -> Iterator[pa.RecordBatch]:
        """The lines that are objects whose values fit their columns."""
        for file in self._files:
            for lines in _blocks(file):
                sound = []
                for number, data in lines:
                    if _too_deep(data):
                        fix = f"has more than {MAX_DEPTH} objects and lists within one another; write it flatter"
                        reject(Rejected("broken_json", fix, f"{file.name} line {number}", data))
                    else:
                        sound.append((number, data))
                for part in self._parsed(sound, file.name, reject):
                    yield from part.to_batches()

    def _parsed(self, lines: list[Line], name: str, reject: Reject) -> Iterator[pa.Table]:
        """The rows of some lines; halving finds a line that cannot be read."""
        if not lines:
            return
        table, problem = _read(lines, self.schema)
        if table is not None:
            yield table
        elif len(lines) == 1:
            number, data = lines[0]
            reject(Rejected(*_reason_and_detail(problem), f"{name} line {number}", data))
        else:
            middle = len(lines) // 2
            yield from self._parsed(lines[:middle], name, reject)
            yield from self._parsed(lines[middle:], name, reject)


def _read(lines: list[Line], schema: pa.Schema) -> tuple[pa.Table | None, str]:
    """The lines as a table; None and the reason if a line does not fit."""
    block = b"\n".join(data for _, data in lines)
    try:
        block.decode()
        reading = pajson.ReadOptions(use_threads=False, block_size=len(block) + 1)
        parsing = pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
        table = pajson.read_json(pa.BufferReader(block), reading, parsing)
    except UnicodeDecodeError as error:
        return None, f"UTF-8 {error}"
    except pa.ArrowException as error:
        return None, str(error)
    if len(table) != len(lines):
        return None, "a line that holds something else than one object"
    return table.select(schema.names), ""


def _reason_and_detail(problem: str) -> tuple[str, str]:
    """The reason and the detail of a rejected line."""
    if problem.startswith("UTF-8"):
        return "broken_text", "is not UTF-8; save the source as UTF-8"
    if "changed from" in problem or "conversion" in problem.lower():
        column = problem.partition("Column(/")[2].partition(")")[0]
        if not column:
            return "broken_json", "is no JSON object; correct the line"
        return "wrong_type", f"column {column}: {problem.partition(') ')[2] or problem}; correct the value"[:300]
    if match := re.search(r"Failed to convert JSON to (\w+), couldn't parse:(.{0,80})", problem):
        return "wrong_type", f"{match[2]} does not fit a column of {match[1]}; correct the value, or write all as text"
    return "broken_json", f"is not one JSON object ({problem[:200]}); correct the line"


def _too_deep(line: bytes) -> bool:
    """Whether a line nests deeper than MAX_DEPTH; brackets in texts do not count."""
    if len(line) <= MAX_DEPTH or line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for token in _TOKENS.findall(line):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token, 0)
        if depth > MAX_DEPTH:
            return True
    return False


_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def _check(file: TextFile) -> None:
    """Raises InputError for a line over MAX_LINE, and for a file that is one list."""
    line, length = 1, 0
    with file.open() as binary:
        while block := binary.read(BLOCK):
            if line == 1 and not length and block.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"[":
                fix = "is one JSON list; write one object a line (jq -c '.[]' does)"
                raise unusable(file.source, file.name, fix)
            ends = block.count(b"\n")
            length += block.find(b"\n") if ends else len(block)
            if length > MAX_LINE:
                fix = f"line {line} is longer than {MAX_LINE >> 20} MB; write one object a line"
                raise unusable(file.source, file.name, fix)
            line, length = line + ends, len(block) - 1 - block.rfind(b"\n") if ends else length


def _blocks(file: TextFile) -> Iterator[list[Line]]:
    """The non-empty lines of a file, some megabytes at a time."""
    number, rest = 1, b""
    with file.open() as binary:
        while block := binary.read(BLOCK):
            *whole, rest = (rest + block).split(b"\n")
            yield _numbered(whole, number)
            number += len(whole)
    yield _numbered([rest], number)


def _numbered(lines: list[bytes], first: int) -> list[Line]:
    marked = [line.removeprefix(b"\xef\xbb\xbf") if at == 0 and first == 1 else line for at, line in enumerate(lines)]
    return [(first + at, line.strip()) for at, line in enumerate(marked) if line.strip()]


def _schema(source: str, files: Sequence[TextFile], ids: Container[str]) -> pa.Schema:
    """A column for every key of every line, in the order of their first appearance."""
    for file in files:
        _check(file)
    sample = _structures(_lines(files), SAMPLE_ROWS)
    votes: dict[str, Counter[str]] = {}
    for structure in sample:
        for key, kind in structure.items():
            votes.setdefault(key, Counter())[json.dumps(kind)] += kind != "NULL"
    if not votes:
        raise unusable(source, files[0].name, "no line is a JSON object; write one object a line: {…}")
    chosen = {key: _chosen_id(kinds) if key in ids else _chosen(kinds) for key, kinds in votes.items()}
    (every_key,) = _structures(_lines(files), None)
    for key, kind in every_key.items():
        before = chosen.get(key)
        wider = before in _WHOLE and kind in ("DOUBLE", "HUGEINT") and key not in ids
        if before is None or before == "NULL" or wider:
            chosen[key] = kind
    return pa.schema([(key, _arrow(kind)) for key, kind in chosen.items()])


def _chosen(kinds: Counter[str]) -> Any:
    numbers = [kind for kind, votes in kinds.items() if votes and kind in ('"DOUBLE"', '"HUGEINT"')]
    commonest = json.loads(kinds.most_common(1)[0][0])
    return "DOUBLE" if commonest in _WHOLE and numbers else commonest


def _chosen_id(kinds: Counter[str]) -> Any:
    """The type of most values; a column of numbers that has whole numbers is BIGINT."""
    whole = any(votes for kind, votes in kinds.items() if kind in ('"UBIGINT"', '"BIGINT"', '"HUGEINT"', '"UHUGEINT"'))
    commonest = json.loads(kinds.most_common(1)[0][0])
    return "BIGINT" if whole and commonest in (*_WHOLE, "DOUBLE", "HUGEINT", "UHUGEINT") else commonest


def _lines(files: Sequence[TextFile]) -> pa.RecordBatchReader:
    """All lines that are UTF-8, as a column `line`."""

    def batches() -> Iterator[pa.RecordBatch]:
        for file in files:
            for lines in _blocks(file):
                texts = _texts([data for _, data in lines if not _too_deep(data)])
                yield pa.record_batch([texts], schema=schema)

    schema = pa.schema([("line", pa.string())])
    return pa.RecordBatchReader.from_batches(schema, batches())


def _texts(lines: list[bytes]) -> pa.Array:
    """The lines as text; lines that are not UTF-8 are null here and rejected later."""
    try:
        return pa.array(lines, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_decoded(line) for line in lines], pa.string())


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _structures(lines: pa.RecordBatchReader, first: int | None) -> list[dict[str, Any]]:
    """The keys and types of each of the `first` objects; with None those of all objects merged."""
    con = duckdb.connect()
    con.execute("SET threads = 2")
    con.register("lines", lines)
    objects = "SELECT line::JSON AS line FROM lines WHERE json_valid(line) AND json_type(line) = 'OBJECT'"
    if first is None:
        rows = con.sql(f"SELECT json_group_structure(line) FROM ({objects})").fetchall()  # noqa: S608
    else:
        rows = con.sql(f"SELECT json_structure(line) FROM ({objects} LIMIT {first})").fetchall()  # noqa: S608
    return [structure for row in rows if isinstance(structure := json.loads(row[0] or "{}"), dict)]


def _arrow(kind: Any) -> pa.DataType:
    if isinstance(kind, dict):
        return pa.struct([(key, _arrow(inner)) for key, inner in kind.items()])
    if isinstance(kind, list):
        return pa.list_(_arrow(kind[0] if kind else "NULL"))
    return _TYPES.get(kind, pa.string())
