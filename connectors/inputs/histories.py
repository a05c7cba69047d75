"""Earlier sends, for frequency caps: tables of a send a row, or the folders of earlier launches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.tables.csv_types import FORMS, literal
from connectors.tables.input_tables import MOST_PROBLEMS, Table, missing_columns, open_table, read_ids, row_problem
from schemas.columns.ids import trimmed
from schemas.problems import InputError, Problem, shown

_ID = pa.large_string()
SCHEMA = pa.schema([("retailer", _ID), ("customer", _ID), ("channel", pa.string()), ("sent_at", pa.int64())])
"""`sent_at` in epoch milliseconds."""
_TIME = f"({FORMS['DATE']}|{FORMS['TIMESTAMP']}|{FORMS['TIMESTAMPTZ']})"
_EXPOSURES = ("retailer_id", "customer_id", "channel", "outcome", "test", "deliver_after")


def history_files(sources: Sequence[str]) -> list[Path]:
    """The files of each source: itself, or a launch's exposures. Raises InputError for what is not there."""
    files: list[Path] = []
    problems = []
    for source in sources:
        path = Path(source)
        if path.is_file():
            files.append(path)
        elif (path / "exposures").is_dir():
            files += sorted((path / "exposures").glob("*.parquet"))
        else:
            fix = "is neither a file nor the folder of a launch; give a Parquet or CSV file, or OUTPUT of a launch"
            problems.append(Problem("--history", "", source, fix))
    if problems:
        raise InputError(problems)
    return files


def read_histories(sources: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    """The sends of each file, as SCHEMA has them.

    A file has two `columns` (the retailer's id and the customer's), channel and sent_at, or is a launch's exposures: of
    those the emitted, untested rows count, at their deliver_after. Raises InputError that names the file and the column
    that is missing, or the row of a value that cannot be read.
    """
    for path in history_files(sources):
        table = open_table(path, str(path))
        yield _of_launch(table) if _is_launch(table) else _of_table(table, columns)


def check_histories(sources: Sequence[str], columns: Sequence[str], channels: Collection[str]) -> Counter[str]:
    """Read every history once; the number of sends of each channel.

    Raises InputError with the mistakes of every file: a table without sends, and a channel that is one of engine.yaml's
    `channels` but for case or blanks, are mistakes too.
    """
    problems: list[Problem] = []
    sends_by_channel: Counter[str] = Counter()
    for path in history_files(sources):
        try:
            (sends,) = read_histories([str(path)], columns)
        except InputError as error:
            problems += error.problems
            continue
        table = open_table(path, str(path))
        if not sends.num_rows and not _is_launch(table):
            fix = "holds no sends, so no cap would count any; write the sends, or leave the file out"
            problems.append(Problem(str(path), "", "0 rows", fix))
        counts = {entry["values"]: entry["counts"] for entry in sends["channel"].value_counts().to_pylist()}
        for name in sorted(counts.keys() - set(channels)):
            if meant := [channel for channel in channels if _folded(channel) == _folded(name)]:
                fix = f"is no channel of engine.yaml, and its caps would not count these sends; write {meant[0]}"
                row = pc.index(sends["channel"], name).as_py()
                filtered = Problem(str(path), "channel", shown(name), fix)
                problems.append(filtered if _is_launch(table) else row_problem(table, "channel", name, fix, row))
        sends_by_channel.update(counts)
    if problems:
        raise InputError(problems)
    return sends_by_channel


def _folded(channel: str) -> str:
    return "".join(channel.split()).casefold()


def _is_launch(table: Table) -> bool:
    return set(_EXPOSURES) <= set(table.names)


def _of_launch(table: Table) -> pa.Table:
    rows = table.read(_EXPOSURES)
    sent = np.array(rows["outcome"].cast(pa.string()).to_numpy(zero_copy_only=False) == "emitted")
    rows = rows.filter(pa.array(sent & ~rows["test"].to_numpy(zero_copy_only=False)))
    at = _read_times(table, "deliver_after", rows["deliver_after"])
    return pa.table([rows["retailer_id"], rows["customer_id"], rows["channel"], at], SCHEMA.names).cast(SCHEMA)


def _of_table(table: Table, columns: Sequence[str]) -> pa.Table:
    wanted = [*columns, "channel", "sent_at"]
    if missing := missing_columns(table, wanted, "a history needs this column"):
        raise InputError(missing)
    rows = table.read(wanted)
    texts = {name: trimmed(read_ids(table, name, rows[name])) for name in wanted[:3]}
    if empty := [problem for name, column in texts.items() for problem in _empty(table, name, column)]:
        raise InputError(empty)
    at = _read_times(table, "sent_at", rows["sent_at"])
    return pa.table([*texts.values(), at], SCHEMA.names).cast(SCHEMA)


def _empty(table: Table, column: str, values: Any) -> list[Problem]:
    filled = pc.fill_null(pc.greater(pc.binary_length(values), 0), False)
    places = np.flatnonzero(~np.asarray(filled))[:MOST_PROBLEMS].tolist()
    fix = "is empty; a send has a retailer, a customer and a channel"
    return [row_problem(table, column, "", fix, row) for row in places]


def _read_times(table: Table, column: str, values: pa.ChunkedArray) -> pa.Array:
    """Times, dates, or texts of them as epoch milliseconds; a time without a zone is in UTC. Raises
    InputError with the rows that cannot be read, and for a column of another type."""
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        times = values.cast(pa.timestamp("ms", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
    elif pa.types.is_string(kind) or pa.types.is_null(kind):
        times = _parse_times(values.cast(pa.string()))
    else:
        fix = "must hold times (a TIMESTAMP or a DATE), or text of them"
        raise InputError([Problem(table.name, column, str(kind), fix)])
    bad = np.flatnonzero(np.asarray(times.is_null()))[:MOST_PROBLEMS].tolist()
    if bad:
        fix = "is no time; write 2026-01-31, 2026-01-31T10:00:00 (UTC), or with a zone: 2026-01-31T10:00:00+02:00"
        raise InputError(row_problem(table, column, values[row].as_py() or "", fix, row) for row in bad)
    return times.combine_chunks()


def _parse_times(values: pa.ChunkedArray) -> Any:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    con.register("texts", pa.table({"text": values}))
    sure = f"CASE WHEN regexp_full_match(trim(text), {literal(_TIME)}) THEN trim(text) END"
    return con.sql(f"SELECT epoch_ms(TRY_CAST({sure} AS TIMESTAMPTZ)) AS at FROM texts").to_arrow_table()["at"]  # noqa: S608
