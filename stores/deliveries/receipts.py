"""Receipts as Avro container files: write a part, read all parts into SQL with the outcome of each event."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import gettempdir
from typing import Any, TypeAlias

import duckdb
import fastavro
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystems import FileSystems

from connectors.files.avro_blocks import read_columns
from connectors.files.sink import FileSink
from schemas.codec.avro_columns import encode_records
from schemas.contracts import parsed, schema
from schemas.delivery import Receipt
from schemas.problems import InputError, Problem, shown
from stores.dead_letters import incomplete_fix
from stores.local.disk_space import with_reserve

Row: TypeAlias = Mapping[str, Any]
_log = logging.getLogger(__name__)
_SCHEMA = "receipt"
_ROWS = 1 << 16
_TIMES = ("arrived_at", "settled_at")
_ORDERED_BY = ("event_id", "launch_id", "outcome", "settled_at", "batch_id", "reason", "vendor_id", "attempt")
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(Receipt._fields, pa.large_string()),  # a launch's id may be as long as an event
    **dict.fromkeys(_TIMES, pa.int64()),
    "attempt": pa.int32(),
    "resent": pa.bool_(),
}
_MEMORY = "512MB"
_AT_ONCE = 1 << 17  # receipts that become rows of the table by one statement, at least
_VIEW = """
CREATE TABLE repeated AS SELECT event_id FROM receipts GROUP BY event_id HAVING count(*) > 1;
CREATE VIEW outcomes AS
SELECT * FROM receipts ANTI JOIN repeated USING (event_id)
UNION ALL
SELECT * FROM (FROM receipts SEMI JOIN repeated USING (event_id)) QUALIFY row_number() OVER (
    PARTITION BY event_id
    ORDER BY outcome <> 'accepted', CASE WHEN outcome = 'accepted' THEN settled_at ELSE -settled_at END,
        list_position(['rejected', 'expired', 'unknown'], outcome), batch_id, reason, vendor_id, attempt
) = 1
"""


def encode_receipts(receipts: Sequence[Receipt]) -> pa.LargeBinaryArray:
    """The Avro body of each receipt (receipt.avsc), in their order; text that UTF-8 cannot encode is escaped. Raises
    ContractError for an outcome that the schema does not know."""
    columns = {
        name: _column([receipt[at] for receipt in receipts], _TYPES[name]) for at, name in enumerate(Receipt._fields)
    }
    return encode_records(schema(_SCHEMA), columns, len(receipts))


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([text and text.encode("utf-8", "backslashreplace").decode() for text in values], kind)


def write_receipts(directory: str, part: str, receipts: Iterable[Receipt]) -> str:
    """The path of DIRECTORY/PART.avro with the receipts in the order of their bytes: the same receipts give the same
    file. Raises JobError when it cannot be written, ContractError for an outcome that the schema does not know."""
    bodies = encode_receipts(list(receipts))
    ordered, sink = bodies.take(pc.sort_indices(bodies)), FileSink(directory)
    return with_reserve(Path(directory), lambda: sink.write(part, schema(_SCHEMA), ordered))


def read_receipts(path: str) -> list[Receipt]:
    """The receipts of one file, local or gs://, in its order. Raises InputError for a file that cannot be used."""
    return [Receipt(**row) for rows in _blocks(path) for row in rows]


def open_receipts(
    directories: Iterable[str], launch_id: str | None = None, columns: Iterable[str] = Receipt._fields
) -> duckdb.DuckDBPyConnection:
    """A connection to the receipts of all *.avro files in these folders, local or gs://.

    `receipts` has them as they were written, duplicates included, with these columns of a Receipt and those that
    `outcomes` needs. `outcomes` has one per event: the first accepted one, else the last one, as the ledger has it (an
    event that was rejected, replayed and is then unknown is unknown). Of several at the same time: rejected, then
    expired, then unknown. `repeated` has the events with several. With `launch_id` all leave other launches out, and
    `others` (launch_id, receipts) counts those.
    Raises InputError with every folder that is missing and every file that cannot be used.
    """
    con = duckdb.connect(":memory:")
    con.execute(f"SET enable_progress_bar = false; SET memory_limit = '{_MEMORY}'")
    con.execute("SET temp_directory = $1", [f"{gettempdir()}/campaigns-{os.getpid()}"])  # for what exceeds the memory
    types = {name: kind for name, kind in _TYPES.items() if name in {*columns, *_ORDERED_BY}}
    con.register("chunk", pa.schema(types.items()).empty_table())
    con.execute("CREATE TABLE receipts AS FROM chunk; CREATE TABLE others (launch_id VARCHAR, receipts BIGINT)")
    problems: list[Problem] = []
    others = Counter[str]()
    waiting: list[pa.Table] = []
    files = _files(directories, problems)
    for chunk in read_columns(files, _SCHEMA, types, lambda path, error: problems.append(_unusable(path, error))):
        waiting.append(chunk if launch_id is None else _of_launch(chunk, launch_id, others))
        if sum(table.num_rows for table in waiting) >= _AT_ONCE:
            _insert(con, waiting)
    _insert(con, waiting)
    if problems:
        raise InputError(problems)
    if others:
        con.executemany("INSERT INTO others VALUES ($1, $2)", list(others.items()))
    con.execute(_VIEW)
    return con


def _of_launch(chunk: pa.Table, launch_id: str, others: Counter[str]) -> pa.Table:
    """The receipts of a launch; those of others are counted."""
    own = pc.equal(chunk["launch_id"], launch_id)
    if pc.all(own, min_count=0).as_py():
        return chunk
    for count in chunk.filter(pc.invert(own))["launch_id"].value_counts().to_pylist():
        others[count["values"]] += count["counts"]
    return chunk.filter(own)


def _insert(con: duckdb.DuckDBPyConnection, waiting: list[pa.Table]) -> None:
    """Inserts the waiting tables."""
    if waiting:
        con.register("chunk", pa.concat_tables(waiting))
        con.execute("INSERT INTO receipts FROM chunk")
        con.unregister("chunk")
        waiting.clear()


def find_receipts(directories: Iterable[str], event_id: str) -> list[Receipt]:
    """The receipts of one event in the order of their times, duplicates included. Raises as `open_receipts` does."""
    problems: list[Problem] = []
    chunks = list(_chunks(directories, problems, event_id.encode()))
    if problems:
        raise InputError(problems)
    receipts = [Receipt(**row) for rows in chunks for row in rows if row["event_id"] == event_id]
    return sorted(receipts, key=lambda receipt: (receipt.settled_at, receipt.attempt, receipt.outcome))


def receipt_chunks(directories: Iterable[str]) -> Iterator[list[Row]]:
    """The receipts of all files of these folders, duplicates included, some 65,000 at a time, as mappings with the
    fields of a Receipt. Raises InputError, at the end, with every folder and file that cannot be used."""
    problems: list[Problem] = []
    yield from _chunks(directories, problems)
    if problems:
        raise InputError(problems)


def sample_receipts(folder: Path, newest: int, files: int, each: int) -> Iterator[Row]:
    """The receipts of the newest files of a folder of this machine, at least `newest` of them if there are so many;
    then `each` from so many of the other files, evenly apart. Files that cannot be read are left out."""
    names = sorted(file.name for file in os.scandir(folder) if file.name.endswith(".avro")) if folder.is_dir() else []
    names.sort(key=lambda name: name[:20].isdigit())  # a file of a delivery begins with the time of its writing
    count = 0
    while names and count < newest:
        for row in _head(f"{folder}/{names.pop()}", newest - count):
            count += 1
            yield row
    for name in names[:: max(1, -(-len(names) // files))]:
        yield from _head(f"{folder}/{name}", each)


def _head(path: str, count: int) -> Iterator[Row]:
    """The first receipts of a file, as far as it can be read."""
    try:
        yield from islice((row for block in _blocks(path) for row in block), count)
    except InputError as error:
        _log.warning("%s", error)


def _chunks(directories: Iterable[str], problems: list[Problem], containing: bytes = b"") -> Iterator[list[Row]]:
    """The records of all files, many at a time however small the files are; errors go to `problems`."""
    rows: list[Row] = []
    for path in _files(directories, problems):
        try:
            for block in _blocks(path, containing):
                rows += block
                if len(rows) >= _ROWS:
                    yield rows
                    rows = []
        except InputError as error:
            problems += error.problems
    yield rows


def _files(directories: Iterable[str], problems: list[Problem]) -> Iterator[str]:
    """The files of the folders, each once; a folder that cannot be used becomes a problem."""
    for directory in dict.fromkeys(str(path).rstrip("/") or "/" for path in directories):
        try:
            yield from _listed(directory)
        except InputError as error:
            problems += error.problems


def _listed(directory: str) -> list[str]:
    if "://" in directory:
        try:
            (match,) = FileSystems.match([f"{directory}/*.avro"])
        except Exception as error:  # every file system of Beam has its own
            fix = f"cannot be listed ({shown(str(error), 160)}); check the address and your rights to it"
            raise _input_error(directory, fix) from error
        return sorted(file.path for file in match.metadata_list)
    folder = Path(directory)
    if not folder.is_dir():
        fix = "is no folder; give the folder that holds the receipts, usually receipts/ in the --output of the delivery"
        raise _input_error(directory, fix)
    files = sorted(map(str, folder.glob("*.avro")))
    if not files and (folder / "receipts").is_dir():
        raise _input_error(directory, f"holds no receipts itself; give {folder / 'receipts'}")
    return files


def _blocks(path: str, containing: bytes = b"") -> Iterator[list[Row]]:
    """The records of a file, block by block, times as milliseconds; only blocks that contain these bytes."""
    try:
        with FileSystems.open(path, "application/octet-stream") as file:
            blocks = fastavro.block_reader(file)
            writer, reader = _schemas(path, blocks.metadata["avro.schema"])
            for block in blocks:
                if containing in block.bytes_.getvalue():
                    yield [fastavro.schemaless_reader(block.bytes_, writer, reader) for _ in range(block.num_records)]
    except InputError:
        raise
    except Exception as error:  # fastavro has no common base: EOFError, ValueError, IndexError, zlib.error, …
        raise InputError([_unusable(path, error)]) from error


def _unusable(path: str, error: Exception) -> Problem:
    if isinstance(error, OSError):
        fix = f"cannot be read ({error.strerror or error}); check that it is a file and that you may read it"
    else:
        fix = incomplete_fix("receipts", error)
    return Problem(path, "", "receipts", fix)


def _schemas(path: str, header: str) -> tuple[Any, Any]:
    """The schema that a file was written with, and the one to read it with: None where they are the same. Other records
    are refused by name: read as receipts, an empty file of them would pass."""
    writer, reader = _parsed(header), _parsed(json.dumps(schema(_SCHEMA)))
    name = writer.get("name") if isinstance(writer, Mapping) else writer
    if name != reader["name"]:
        fix = f"holds {shown(name, 60)}, not {reader['name']}; give a folder that has only receipts"
        raise _input_error(path, fix)
    return writer, None if writer == reader else reader


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    return parsed(json.loads(text))


def _input_error(path: str, fix: str) -> InputError:
    return InputError([Problem(path, "", "receipts", fix)])
