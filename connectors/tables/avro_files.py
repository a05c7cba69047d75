"""Avro tables: container files of records, read by fastavro block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pyarrow as pa

from connectors.tables.sources import Reject, Rejected, check_names, check_same, open_binary, unusable

ROWS = 16_384
_TYPES = {
    "null": pa.null(), "boolean": pa.bool_(), "int": pa.int64(), "long": pa.int64(), "float": pa.float64(),
    "double": pa.float64(), "string": pa.string(), "enum": pa.string(), "bytes": pa.binary(), "fixed": pa.binary(),
}  # fmt: skip
_LOGICAL: dict[str, Callable[[Any], pa.DataType]] = {
    "date": lambda _: pa.date32(),
    "time-millis": lambda _: pa.time64("us"),
    "time-micros": lambda _: pa.time64("us"),
    "timestamp-millis": lambda _: pa.timestamp("us", "UTC"),
    "timestamp-micros": lambda _: pa.timestamp("us", "UTC"),
    "local-timestamp-millis": lambda _: pa.timestamp("us"),
    "local-timestamp-micros": lambda _: pa.timestamp("us"),
    "decimal": lambda schema: pa.decimal128(min(schema["precision"], 38), schema.get("scale", 0)),
    "uuid": lambda _: pa.string(),
}


class AvroFiles:
    """The records of Avro container files. Raises InputError for a file whose header or schema cannot be used."""

    def __init__(self, source: str, paths: Sequence[Path]) -> None:
        self._source, self._paths = source, paths
        schemas = [_schema(source, path) for path in paths]
        self.schema = schemas[0]
        self._texts = [field.name for field in self.schema if pa.types.is_string(field.type)]
        for path, other in zip(paths[1:], schemas[1:], strict=True):
            check_same(paths[0], self.schema.names, path, other.names)
        check_names(source, self.schema.names)

    def batches(self, reject: Reject) -> Iterator[pa.RecordBatch]:
        """The records of all files; those of a damaged block from the damage on are rejected."""
        for path in self._paths:
            rows: list[Any] = []
            for record in self._records(path, reject):
                rows.append(record)
                if len(rows) == ROWS:
                    yield self._batch(path, rows)
                    rows = []
            if rows:
                yield self._batch(path, rows)

    def _batch(self, path: Path, rows: list[Any]) -> pa.RecordBatch:
        try:
            return pa.RecordBatch.from_pylist(rows, schema=self.schema)
        except (pa.ArrowException, TypeError, ValueError) as error:
            fix = f"holds values that do not fit the schema of the first file ({str(error)[:160]}); write all alike"
            raise unusable(self._source, path.name, fix) from error

    def _records(self, path: Path, reject: Reject) -> Iterator[Any]:
        with open_binary(path) as file:
            try:
                for number, block in enumerate(fastavro.block_reader(file)):
                    yield from self._block(path, number, block, reject)
            except Exception as error:  # fastavro has no common base
                fix = f"breaks off or is damaged ({str(error)[:120] or 'its bytes end early'}); get it again"
                raise unusable(self._source, path.name, fix) from error

    def _block(self, path: Path, number: int, block: Any, reject: Reject) -> Iterator[Any]:
        """A block's records; what cannot be decoded is rejected, the block's bytes with the first of them."""
        data, done = bytes(block.bytes_.getbuffer()), 0
        records = iter(block)
        while done < block.num_records:
            try:
                record = next(records)
            except Exception as error:  # fastavro has no common base: EOFError, IndexError, UnicodeDecodeError, …
                fix = f"cannot be decoded ({str(error)[:120] or 'its bytes end early'}); write the source again"
                for row in range(done, block.num_records):
                    at = f"{path.name} block {number} record {row}"
                    reject(Rejected("broken_record", fix, at, data if row == done else b""))
                return
            done += 1
            for name in self._texts:  # fastavro makes objects of the logical type uuid
                if isinstance(record[name], UUID):
                    record[name] = str(record[name])
            yield record


def _schema(source: str, path: Path) -> pa.Schema:
    with open_binary(path) as file:
        try:
            schema = fastavro.reader(file).writer_schema
        except Exception as error:  # fastavro has no common base
            fix = f"is no Avro container file ({str(error)[:120] or 'its bytes end early'}); get it again"
            raise unusable(source, path.name, fix) from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise unusable(source, path.name, "does not hold records; write a record a row")
    named: dict[str, Any] = {}
    try:
        return pa.schema([(f["name"], _arrow(source, path, f["name"], f["type"], named)) for f in schema["fields"]])
    except RecursionError as error:
        fix = "has types nested within one another without an end; write it flatter"
        raise unusable(source, path.name, fix) from error


def _arrow(source: str, path: Path, name: str, schema: Any, named: dict[str, Any]) -> pa.DataType:
    """The Arrow type of an Avro type; a union may join one type with null."""

    def inner(of: Any) -> pa.DataType:
        return _arrow(source, path, name, of, named)

    if isinstance(schema, list):
        kinds = [one for one in schema if one != "null"]
        if len(kinds) > 1:
            fix = f"is a union of {len(kinds)} types; a column has one type (or null)"
            raise unusable(path.name, str(kinds)[:80], fix, field=name)
        return inner(kinds[0]) if kinds else pa.null()
    if isinstance(schema, str):
        return inner(named[schema]) if schema in named else _TYPES[schema]
    if "name" in schema:
        named[schema["name"]] = schema
    kind = schema["type"]
    if (logical := schema.get("logicalType")) in _LOGICAL:
        return _LOGICAL[logical](schema)
    if kind == "array":
        return pa.list_(inner(schema["items"]))
    if kind == "map":
        return pa.map_(pa.string(), inner(schema["values"]))
    if kind == "record":
        return pa.struct([(field["name"], inner(field["type"])) for field in schema["fields"]])
    return inner(kind)
