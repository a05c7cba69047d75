"""Training sets: labels with the features as they were at each label's instant, in a Parquet file with its lineage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.files.whole_file import whole_file
from pipelines.operations.features.recompute import Recomputation, flat
from schemas.features.references import Declared, resolve
from schemas.problems import InputError, Problem
from stores.features.published import declaration_hash
from transforms.features.event_columns import SEPARATOR
from transforms.features.point_in_time import Rows, filled

LINEAGE = b"campaigns.lineage"


class Lineage(NamedTuple):
    """Where a training set comes from, so that it can be made again: the features, the hash of each group's
    declaration by id, how far the log of each type was read by partition, the SHA-256 of each table and of the labels,
    and the column of the instants. `hash` is one over all of it: equal hashes mean equal sets."""

    features: list[str]
    groups: dict[str, str]
    positions: dict[str, dict[str, int]]
    tables: dict[str, str]
    as_of: str
    labels: str
    rows: int
    hash: str = ""


def training_set(
    labels: pa.Table, features: Sequence[str], as_of: str, recomputation: Recomputation, output: Path
) -> Lineage:
    """Writes the labels with a column GROUP__FEATURE of each feature, as it was at `as_of` of the row.

    `as_of` names a column of instants: epoch ms or an Arrow timestamp (without a time zone it is UTC). An event at the
    instant itself does not count, nor does any later one (transforms/features/point_in_time.py). `features` are
    references such as `spend@1:amount_sum_7d` or `spend@1`. The lineage is in the file's metadata too. Raises
    InputError with every mistake; nothing is written then.
    """
    catalogue, problems = recomputation.catalogue, list[Problem]()
    wanted = resolve(features, catalogue, problems)
    problems += _label_problems(labels, as_of, {group: catalogue[group] for group in wanted})
    columns = [(group, name, f"{catalogue[group].name}__{name}") for group, names in wanted.items() for name in names]
    titles = [*labels.column_names, *(title for _, _, title in columns)]
    for title in sorted({one for one in titles if titles.count(one) > 1}):
        problems.append(
            Problem("labels", title, title, "two columns have this name: rename one, or ask for one version")
        )
    if problems:
        raise InputError(problems)
    times = instants(labels[as_of])
    table = labels
    for group, names in wanted.items():
        known = recomputation.known(group, Rows(entity_texts(labels, catalogue[group].key), times))
        for name in names:
            values = filled(known[name], recomputation.default(group, name))
            table = table.append_column(f"{catalogue[group].name}__{name}", values)
    lineage = _lineage(labels, columns, as_of, recomputation)
    metadata = {**(labels.schema.metadata or {}), LINEAGE: json.dumps(lineage._asdict(), sort_keys=True).encode()}
    with whole_file(output) as file:
        pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd", write_page_checksum=True)
    return lineage


def read_lineage(path: Path) -> Lineage:
    """The lineage of a training set. Raises InputError where the file has none."""
    metadata = pq.read_schema(path).metadata or {}
    if LINEAGE not in metadata:
        fix = "it is no training set of `campaigns features training-set`"
        raise InputError([Problem(str(path), "", "without a lineage", fix)])
    return Lineage(**json.loads(metadata[LINEAGE]))


def instants(column: Any) -> Any:
    """The epoch milliseconds of a column of instants, as an array of numpy."""
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("ms", column.type.tz), safe=False)
    return flat(column.cast(pa.int64())).to_numpy(zero_copy_only=False)


def entity_texts(table: pa.Table, key: Sequence[str]) -> list[str]:
    """The entity of each row, as rows of features are keyed."""
    texts = [flat(table[name].cast(pa.string())) for name in key]
    return (texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, SEPARATOR)).to_pylist()


def _label_problems(labels: pa.Table, as_of: str, groups: Mapping[str, Declared]) -> list[Problem]:
    known = ", ".join(labels.column_names)
    needed = {as_of: "--as_of"} | {name: f"key of {group.id}" for group in groups.values() for name in group.key}
    problems = list[Problem]()
    for name, place in needed.items():
        if name not in labels.column_names:
            problems.append(Problem("labels", place, name, f"the labels have no such column; they have {known}"))
        elif labels[name].null_count:
            problems.append(
                Problem("labels", name, f"null in {labels[name].null_count:,} rows", "fill or leave out these rows")
            )
    if as_of in labels.column_names:
        kind = labels[as_of].type
        if not (pa.types.is_timestamp(kind) or pa.types.is_integer(kind)):
            problems.append(Problem("labels", as_of, str(kind), "instants are epoch milliseconds or timestamps"))
    return problems


def _lineage(
    labels: pa.Table, columns: Sequence[tuple[str, str, str]], as_of: str, recomputation: Recomputation
) -> Lineage:
    catalogue = recomputation.catalogue
    groups = {group: catalogue[group] for group, _, _ in columns}
    groups |= {
        source: catalogue[source] for one in [*groups.values()] if (source := getattr(one, "source", "")) in catalogue
    }
    types = {getattr(one, "source", "") for one in groups.values()}
    positions = {
        name: {str(partition): end for partition, end in sorted(ends.items())}
        for name, ends in sorted(recomputation.positions.items())
        if name in types
    }
    tables = {name: digest(table) for name, table in sorted(recomputation.tables.items()) if name in groups}
    lineage = Lineage(
        [f"{group}:{name}" for group, name, _ in columns],
        {name: declaration_hash(one) for name, one in sorted(groups.items())},
        positions,
        tables,
        as_of,
        digest(labels),
        len(labels),
    )
    return lineage._replace(hash=hashlib.sha256(json.dumps(lineage._asdict(), sort_keys=True).encode()).hexdigest())


def digest(table: pa.Table) -> str:
    """SHA-256 of a table's rows, however they are cut into chunks."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata()) as writer:
        writer.write_table(table.combine_chunks().replace_schema_metadata(None))
    return hashlib.sha256(sink.getvalue()).hexdigest()
