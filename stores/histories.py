"""Earlier sends, for frequency caps: Parquet or CSV files, or the folders of earlier launches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from schemas.problems import InputError, Problem


def history_files(sources: Sequence[str]) -> list[Path]:
    """The files of each source: itself, or a launch's exposures. Raises InputError for what is not there."""
    found: list[Path] = []
    problems = []
    for source in sources:
        path = Path(source)
        if path.is_file():
            found.append(path)
        elif (path / "exposures").is_dir():
            found += sorted((path / "exposures").glob("*.parquet"))
        else:
            fix = "is neither a file nor the folder of a launch; give a Parquet or CSV file, or OUTPUT of a launch"
            problems.append(Problem("--history", "", source, fix))
    if problems:
        raise InputError(problems)
    return found


def read_histories(sources: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    """The tables of all sources; each has `columns`, channel and sent_at, or is a launch's exposures.

    Raises InputError that names the file and the column that is missing.
    """
    for path in history_files(sources):
        table = pacsv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path, columns=_wanted(path, columns))
        missing = [] if "outcome" in table.column_names else [
            name for name in [*columns, "channel", "sent_at"] if name not in table.column_names
        ]  # fmt: skip
        if missing:
            fix = f"a history needs this column; the file has: {', '.join(table.column_names)}"
            raise InputError(Problem(str(path), name, "missing", fix) for name in missing)
        yield table


def _wanted(path: Path, columns: Sequence[str]) -> list[str]:
    names = pq.read_schema(path).names
    wanted = {*columns, "retailer_id", "customer_id", "channel", "sent_at", "outcome", "test", "deliver_after"}
    return [name for name in names if name in wanted]
