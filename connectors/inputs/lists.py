"""Lists of ids and of codes: one column of a table, which is found by its name or is the only one."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.tables.input_tables import MOST_PROBLEMS, CsvTable, Table, open_table, read_ids, row_problem
from connectors.tables.text import BLOCK
from schemas.columns.ids import trimmed
from schemas.columns.masks import to_mask
from schemas.problems import InputError, Problem, shown

CODE = "code"
_ANY = {"id", "ids", "value"}
_KINDS = {
    "customer_id": {"customer", "customers", "customer_id", "customerid", "customer_ids", "user_id", "contact_id"},
    "email": {"email", "emails", "e_mail", "mail", "email_address"},
    "phone": {"phone", "phones", "phone_number", "mobile", "mobile_number", "telephone"},
    CODE: {
        CODE, "codes", "coupon", "coupon_code", "promo_code", "voucher", "voucher_code", "discount_code", "offer_code",
    },
    "push_token": {"push_token", "token", "device_token"},
    "household_id": {"household", "household_id"},
}  # fmt: skip
"""The names by which a column is known, by what it holds."""


def read_list(path: Path, column: str, name: str | None = None) -> pa.Array:
    """The ids of a list that is looked up by a column of the customers, as text, in the order of the file.

    Blanks around an id of a text file, and empty lines, do not count. Raises InputError for a list without ids, and
    where it is unclear which column is meant.
    """
    return _read(path, column, name or path.name)[1]


def read_codes(path: Path, name: str | None = None) -> pa.Array:
    """The codes of a code list, read as a list is. Raises InputError for a code that stands there twice too."""
    table, codes, rows = _read(path, CODE, name or path.name)
    encoded = codes.dictionary_encode()
    indices = encoded.indices.to_numpy()
    counts = np.bincount(indices)
    problems = []
    for code in np.flatnonzero(counts > 1)[:MOST_PROBLEMS].tolist():
        first, second = (int(rows[place]) for place in np.flatnonzero(indices == code)[:2])
        before = table.line(first)
        where = f"row {first + 1}" if before is None else f"line {before}"
        fix = f"is in {where} too, so two customers would get it; keep one"
        problems.append(row_problem(table, CODE, encoded.dictionary[code].as_py(), fix, second))
    if problems:
        raise InputError(problems)
    return codes


def list_problems(root: Path, lists: Iterable[tuple[str, str | None]]) -> list[Problem]:
    """What is wrong with the lists of a folder: (file, the customers' column), of code lists no column. No code may
    stand in two code lists. Files that are not there are problems of the configuration already."""
    problems: list[Problem] = []
    codes: dict[str, pa.Array] = {}
    for file, column in dict.fromkeys(lists):
        if not (root / file).is_file():
            continue
        try:
            if column is None:
                codes[file] = read_codes(root / file, file)
            else:
                read_list(root / file, column, file)
        except InputError as error:
            problems += error.problems
    for first, second in combinations(codes, 2):
        shared = codes[second].filter(pc.is_in(codes[second], codes[first]))
        if len(shared):
            fix = f"{len(shared):,} of its codes stand in {first} too, and would go to two customers; keep each in one"
            problems.append(Problem(second, CODE, shared[0].as_py(), fix))
    return problems


def _read(path: Path, column: str, name: str) -> tuple[Table, pa.Array, np.ndarray]:
    """The table of a list, its ids, and the row of each."""
    table = open_table(path, name)
    chosen = _column(table, column)
    texts = trimmed(read_ids(table, chosen, table.read([chosen])[chosen]))
    rows = np.flatnonzero(to_mask(pc.greater(pc.binary_length(texts), 0)))
    texts = texts.take(pa.array(rows))
    if not len(texts):
        fix = "holds no ids, so it would match nobody; write the ids, or remove the list from the configuration"
        raise InputError([Problem(name, shown(chosen), "0 rows", fix)])
    if isinstance(table, CsvTable) and not table.header:
        _check_first(table, texts, column)
    return table, texts, rows


def _column(table: Table, column: str) -> str:
    """The name of the column that is meant; the first line of a text file need not be a header."""
    names = [_normal(name) for name in table.names]
    if isinstance(table, CsvTable) and len(names) == 1:
        _check_separators(table)
    if _normal(column) in names:
        return table.names[names.index(_normal(column))]
    wanted, kinds = _kind(_normal(column)), [_kind(name) for name in names]
    fitting = [at for at, kind in enumerate(kinds) if kind == "any" or (kind and wanted in (None, kind))]
    if len(fitting) == 1:
        return table.names[fitting[0]]
    if len(names) == 1 and kinds[0] is None:
        if isinstance(table, CsvTable):
            table.without_header()
        return table.names[0]
    fix = f"it is unclear which column to read; name one of them {column}, or leave only one column"
    if len(names) == 1:
        fix = f"holds {table.names[0]}, but is looked up by {column}; name the column that is meant, or write {column}"
    raise InputError([Problem(table.name, "columns", shown(", ".join(table.names)), fix)])


def _check_first(table: CsvTable, texts: pa.Array, column: str) -> None:
    """Raises InputError where the first of some ids looks like a header of no known name: all the others have an @, or
    a digit or an @, and it has not; it has no digit but a blank, or a small letter, and none of the others has."""
    marks_of_ids, marks_of_headers = ("@", r"[0-9@]"), (r"^[^0-9@]*\s[^0-9@]*$", r"^[^0-9@]*\p{Ll}[^0-9@]*$")
    for marks in (*marks_of_ids, *marks_of_headers):
        marked = to_mask(pc.match_substring_regex(texts, marks)) ^ (marks in marks_of_headers)
        if len(marked) > 1 and not marked[0] and marked[1:].all():
            fix = f"may be a header or an id; write {column} in place of a header, or in a line above an id"
            raise InputError([row_problem(table, "first line", texts[0].as_py(), fix, 0)])


def _check_separators(table: CsvTable) -> None:
    """Raises InputError for the first line with a separator, outside of quotes, that the first line does not have."""
    with table.text.open() as file:
        if not any(_SEPARATOR.search(block) for block in iter(partial(file.read, BLOCK), b"")):
            return
    with table.text.open() as file:
        for number, line in enumerate(file, 1):
            if not _SEPARATOR.search(line):
                continue
            text = line.decode("utf-8", "replace").replace("\r", "").rstrip("\n")
            for separator in ";\t|":
                if len(next(csv.reader([text], delimiter=separator), [])) > 1:
                    fix = f"is separated by {separator!r}, the first line is not; name every column, or quote the value"
                    raise InputError([Problem(table.name, "columns", shown(text), fix, number)])


_SEPARATOR = re.compile(rb"[;\t|]")


def _kind(name: str) -> str | None:
    return "any" if name in _ANY else next((kind for kind, names in _KINDS.items() if name in names), None)


def _normal(name: str) -> str:
    return re.sub(r"[\s._-]+", "_", name.strip().lower())
