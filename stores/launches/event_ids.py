"""Read a list of event ids from a vendor or a person: one a line, CSV, or NDJSON; plain or gzip."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NoReturn, TextIO

import msgspec

from schemas.problems import InputError, Problem, shown

FIELD = "event_id"
_LONGEST = 256  # characters of an id, as decode takes them
_GZIP = b"\x1f\x8b"


def read_event_ids(path: str) -> Iterator[str]:
    """The ids of a file, in its order, repeats included; lines without one are left out. A first line that is a JSON
    object makes it NDJSON with a field `event_id`; a first line that has a column `event_id`, separated by comma,
    semicolon or tab, makes it CSV; otherwise each line is an id. UTF-8, with or without a byte order mark. Raises
    InputError with the line that cannot be read."""
    try:
        with _opened(path) as text:
            first = next((line for line in text if line.strip()), "")
            lines = chain([first] if first else [], text)
            if first.lstrip().startswith("{"):
                yield from _ndjson(path, lines)
            elif delimiter := _delimiter(first):
                yield from _csv(path, lines, delimiter)
            else:
                yield from _plain(path, lines)
    except (OSError, EOFError, zlib.error) as error:
        _refuse(path, "", f"cannot be read ({error}); check that it is a whole file and that you may read it")
    except UnicodeDecodeError as error:
        _refuse(path, "", f"is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8 text")
    except csv.Error as error:
        _refuse(path, "", f"is no CSV file ({error}); give one with a column {FIELD}, or one id a line")


def _opened(path: str) -> TextIO:
    with Path(path).open("rb") as file:
        packed = file.read(2) == _GZIP
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _delimiter(header: str) -> str | None:
    """The delimiter of a CSV header with a column event_id; None if it is no such header."""
    for delimiter in (",", ";", "\t"):
        if FIELD in _columns(header, delimiter):
            return delimiter
    return None


def _columns(line: str, delimiter: str) -> list[str]:
    return [name.strip() for name in next(csv.reader(io.StringIO(line), delimiter=delimiter), [])]


def _csv(path: str, lines: Iterator[str], delimiter: str) -> Iterator[str]:
    rows = csv.reader(lines, delimiter=delimiter)
    header = [name.strip() for name in next(rows)]
    place = header.index(FIELD)
    for row in rows:
        if not row:
            continue
        if len(row) <= place:
            _refuse(path, shown(delimiter.join(row)), f"has no column {FIELD}, the {place + 1}. of {len(header)}")
        yield from _id(path, row[place])


def _ndjson(path: str, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            _refuse(path, shown(line.strip()), f"is no JSON object ({error}); give one a line")
        if not isinstance(row, dict) or not isinstance(row.get(FIELD), str):
            _refuse(path, shown(line.strip()), f"has no text {FIELD}; give objects with one, CSV, or one id a line")
        yield from _id(path, row[FIELD])


def _plain(path: str, lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        text = line.strip().strip("\"'")
        if any(separator in text for separator in ",;\t ") or text.startswith(("[", "<")):
            fix = (
                f"is no id; give one id a line, CSV with a column {FIELD} in its first line, or NDJSON with that field"
            )
            _refuse(path, shown(text), fix)
        yield from _id(path, text)


def _id(path: str, text: str) -> Iterator[str]:
    text = text.strip()
    if len(text) > _LONGEST or not text.isprintable():
        _refuse(path, shown(text), f"is no event id: {_LONGEST} printable characters at most")
    if text:
        yield text


def _refuse(path: str, value: str, fix: str) -> NoReturn:
    raise InputError([Problem(path, FIELD, value or "the file", fix)])
