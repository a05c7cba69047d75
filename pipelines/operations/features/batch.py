"""Batch features: runs the query of a table group as of an instant with DuckDB, and keeps the rows as a file of its
table. Each run adds rows that hold from its instant on, so training sets read batch features as of any instant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.files.whole_file import whole_file
from pipelines.operations.features.recompute import ARROW
from schemas.features.tables import TableGroup
from schemas.problems import InputError, JobError, Problem


def run_batch(group: TableGroup, as_of: int, tables: Mapping[str, Any], folder: Path) -> Path:
    """Writes the group's rows as of an instant (epoch ms) below the folder and gives the file's path; a run of the same
    instant replaces it. `tables` are Arrow tables by the names that the query uses; it can read nothing else.

    Raises InputError where the query cannot be run or gives other columns than declared.
    """
    settings: dict[str, Any] = {"enable_external_access": False, "python_enable_replacements": False}
    connection = duckdb.connect(config=settings)
    for name, table in tables.items():
        connection.register(name, table)
    connection.execute("SET lock_configuration = true")
    instant = datetime.fromtimestamp(as_of / 1000, UTC).replace(tzinfo=None)
    try:
        parameters = {"as_of": instant} if "$as_of" in group.sql else {}
        relation = connection.sql(group.sql, params=parameters)
        if relation is None:
            raise InputError([Problem(group.id, "sql", group.sql, "write one SELECT: this gives no rows")])
        found = relation.to_arrow_table()
    except duckdb.Error as error:
        raise InputError([Problem(group.id, "sql", group.sql, str(error))]) from error
    finally:
        connection.close()
    rows = _declared(group, found)
    rows = rows.append_column(group.time, pa.array([as_of] * len(rows), pa.int64()))
    path = folder / group.id / f"{as_of:015d}.parquet"
    with whole_file(path) as file:
        pq.write_table(rows, file, compression="zstd", write_page_checksum=True)
    return path


def read_batches(group: TableGroup, folder: Path) -> pa.Table:
    """The rows of every run of a group; none where there was no run."""
    fields = [*((name, pa.string()) for name in group.key), *((one.name, ARROW[one.kind]) for one in group.columns)]
    schema = pa.schema([*fields, (group.time, pa.int64())])
    tables = [_read(path, schema) for path in sorted((folder / group.id).glob("[0-9]*.parquet"))]
    return pa.concat_tables([schema.empty_table(), *tables])


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(path, page_checksum_verification=True).select(schema.names).cast(schema)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise JobError(
            f"{path} is damaged: {error}", "delete it and run the batch of its instant again", True
        ) from error


def _declared(group: TableGroup, found: pa.Table) -> pa.Table:
    """The declared columns of a result. Raises InputError."""
    kinds = dict.fromkeys(group.key, pa.string()) | {one.name: ARROW[one.kind] for one in group.columns}
    problems = list[Problem]()
    columns: dict[str, Any] = {}
    known = ", ".join(found.column_names)
    for name, kind in kinds.items():
        if name not in found.column_names:
            problems.append(Problem(group.id, "sql", name, f"the query gives no such column; it gives {known}"))
            continue
        try:
            columns[name] = pc.cast(found[name], kind)
        except pa.ArrowException as error:
            problems.append(Problem(group.id, f"sql: {name}", str(found[name].type), f"cast it to {kind} ({error})"))
    if not problems:
        keys = pa.table({name: columns[name] for name in group.key})
        nulls = sum(keys[name].null_count for name in group.key)
        if nulls or keys.group_by(list(group.key)).aggregate([]).num_rows < len(keys):
            value = json.dumps(list(group.key))
            problems.append(Problem(group.id, "sql", value, "the query must give one row an entity, without null keys"))
    if problems:
        raise InputError(problems)
    return pa.table(columns)
