"""Files of ids and codes: one a line, or the first column of a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa

from schemas.problems import InputError, Problem

_HEADERS = {"id", "customer_id", "email", "phone", "code", "codes", "push_token", "household_id"}


def read_list(path: Path) -> pa.Array:
    """The ids of a list file as text, without blanks around them, empty lines and a header.

    Raises InputError when it is not UTF-8 text.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fix = f"cannot be read as UTF-8 text ({error}); save it as UTF-8, one id a line"
        raise InputError([Problem(path.name, "", "", fix)]) from error
    if '"' in text:
        first = [row[0].strip() for row in csv.reader(text.splitlines()) if row]
    else:
        first = [line.partition(",")[0].strip() for line in text.splitlines()]
    ids = [one for one in first if one]
    if ids and ids[0].lower() in _HEADERS:
        ids = ids[1:]
    return pa.array(ids, pa.string())
