"""Rows of CSV files as bytes: their lengths, and their lines."""

from __future__ import annotations

import csv
from typing import BinaryIO

import numpy as np

from connectors.tables.sources import unusable
from connectors.tables.text import BLOCK, TextFile

MAX_ROW = 16 << 20
"""Bytes of a row. The engine drops or hangs on rows that come near its buffer, so larger ones never reach it."""


def row_at(file: BinaryIO, place: int, one_line: bool) -> tuple[int, bytes]:
    """The line ends up to a place, and the row there, whose quotes may hold line ends unless it is `one_line`. With
    \\r\\n the engine's place is at times a byte too early or too late: a row follows a line end, and is not empty."""
    count, skipped = place - 1 - file.tell(), 0
    while count > 0 and (block := file.read(min(count, 1 << 20))):
        skipped += block.count(b"\n")
        count -= len(block)
    before = file.read(1) if place > file.tell() else b""
    if before == b"\n":
        skipped, before = skipped + 1, b""
    data = row(file, before, one_line)
    while data and not data.strip(b"\r\n"):
        skipped, data = skipped + data.count(b"\n"), row(file, b"", one_line)
    return skipped, data


def row(file: BinaryIO, data: bytes, one_line: bool) -> bytes:
    """The row that begins with some bytes: up to a line end that no quote protects."""
    data += file.readline(MAX_ROW)
    while not one_line and data.count(b'"') % 2 and len(data) < MAX_ROW and (more := file.readline(MAX_ROW)):
        data += more
    return data


def check_lengths(text: TextFile) -> None:
    """Raises InputError for a row over MAX_ROW, as a quote that is never closed makes one.

    A line end between quotes (an odd number of them before it) ends no row. A quote in the middle of a field
    misleads this count, so a row that seems too long is looked at as the csv module reads it.
    """
    with text.open() as file:
        start = line = read = quotes = lines = 0
        while block := file.read(BLOCK):
            data = np.frombuffer(block, np.uint8)
            ends, marks = np.flatnonzero(data == 0x0A), np.flatnonzero(data == 0x22)
            closing = ends[(quotes + np.searchsorted(marks, ends)) % 2 == 0]
            edges = np.concatenate([[start], read + closing + 1, [read + len(block)]])
            if (long := np.flatnonzero(np.diff(edges) > MAX_ROW)).size:
                before = int(edges[long[0]])
                line = lines + int(np.searchsorted(ends, before - read)) + 1 if before >= read else line
                _check_row(text, before, line)
                closing, quotes = ends[-1:], -len(marks)
            if closing.size:
                start, line = read + int(closing[-1]) + 1, lines + int(np.searchsorted(ends, closing[-1])) + 2
            read, lines, quotes = read + len(block), lines + len(ends), quotes + len(marks)


def _check_row(text: TextFile, place: int, line: int) -> None:
    with text.open() as file:
        file.seek(place)
        data = file.read(MAX_ROW + 1)
    lines = data.decode("utf-8", "replace").splitlines(keepends=True)
    csv.field_size_limit(2 * MAX_ROW)
    reader = csv.reader(iter(lines))
    next(reader, None)
    if reader.line_num >= len(lines):
        fix = f"the row at line {line} is longer than {MAX_ROW >> 20} MB; shorten it, or close the quote it leaves open"
        raise unusable(text.source, text.name, fix)


def line_of_row(text: TextFile, delimiter: str, row: int) -> int:
    """The line at which a row begins, the rows counted from 0 with the header; empty lines count where a row has but
    one field, as the engine counts them."""
    with text.open() as file:
        lines = (line.replace(b"\r", b"").decode("utf-8", "replace") for line in file)
        reader, before, count = csv.reader(lines, delimiter=delimiter), 1, -1
        single = None
        for fields in reader:
            single = len(fields) < 2 if single is None else single
            count += bool(fields) or single
            if count == row:
                return before
            before = reader.line_num + 1
    return before


def mixed_line(text: TextFile) -> int | None:
    """The first line that does not end as the first one does, if there is one."""
    with text.open() as file:
        end = None
        for number, line in enumerate(file, 1):
            ending = line.endswith(b"\r\n")
            end = ending if end is None else end
            if line.endswith(b"\n") and (ending != end or b"\r" in line[:-2]):
                return number
    return None
