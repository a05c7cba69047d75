"""Small tables, written in every format that customers may have."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("parquet", "csv", "csv.gz", "ndjson", "jsonl", "ndjson.gz", "avro")


@dataclass
class Table:
    """Columns of one length, and how they are written: `format`, and of CSV separator, line end, quotes, encoding.

    `files`: over how many files of one folder the rows go. `types`: Arrow types that are not taken from the values.
    """

    columns: dict[str, list[Any]]
    types: dict[str, pa.DataType] = field(default_factory=dict)
    format: str = "parquet"
    separator: str = ","
    line_end: str = "\n"
    quote_all: bool = False
    encoding: str = "utf-8"
    files: int = 1

    @property
    def rows(self) -> int:
        return max((len(values) for values in self.columns.values()), default=0)

    @property
    def source(self) -> str:
        """What --customers names."""
        return f"customers.{self.format}" if self.files == 1 else "customers"

    def part(self, number: int) -> Table:
        """The rows of one of the files."""
        size = -(-self.rows // self.files)
        rows = slice(number * size, (number + 1) * size)
        return Table({name: values[rows] for name, values in self.columns.items()}, self.types, self.format,
                     self.separator, self.line_end, self.quote_all, self.encoding)  # fmt: skip


def encode(table: Table) -> dict[str, bytes]:
    """The files of a table by their paths."""
    if table.files == 1:
        return {table.source: file_bytes(table)}
    return {f"customers/part-{n}.{table.format}": file_bytes(table.part(n)) for n in range(table.files)}


def file_bytes(table: Table) -> bytes:
    """One file of a table."""
    kind = table.format.removesuffix(".gz")
    data = {"parquet": _parquet, "csv": csv_bytes, "ndjson": _ndjson, "jsonl": _ndjson, "avro": _avro}[kind](table)
    return gzip.compress(data, mtime=0) if table.format.endswith(".gz") else data


def arrow(table: Table) -> pa.Table:
    """The table with the types that it names, else those of its values."""
    return pa.table({name: pa.array(values, table.types.get(name)) for name, values in table.columns.items()})


def _parquet(table: Table) -> bytes:
    sink = io.BytesIO()
    columns = arrow(table)
    writable = [
        field.name for field in columns.schema if not pa.types.is_interval(field.type)
    ]  # no file can hold these
    pq.write_table(columns.select(writable), sink, row_group_size=max(1, table.rows // 2))
    return sink.getvalue()


def csv_bytes(table: Table) -> bytes:
    """A CSV file as spreadsheets and exports write it."""
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=table.separator,
        lineterminator=table.line_end,
        quoting=csv.QUOTE_ALL if table.quote_all else csv.QUOTE_MINIMAL,
    )
    writer.writerow(table.columns)
    writer.writerows([_cell(value) for value in row] for row in zip(*table.columns.values(), strict=True))
    return text.getvalue().encode(table.encoding, "surrogatepass")


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime | date):
        return value.isoformat()
    return json.dumps(value, default=str) if isinstance(value, dict | list) else value


def _ndjson(table: Table) -> bytes:
    rows = zip(*table.columns.values(), strict=True)
    lines = [json.dumps(dict(zip(table.columns, row, strict=True)), default=_text, ensure_ascii=False) for row in rows]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime | date) else str(value)


def _avro(table: Table) -> bytes:
    fields = [
        {"name": name, "type": ["null", _avro_type(next((v for v in values if v is not None), ""))], "default": None}
        for name, values in table.columns.items()
    ]
    schema = fastavro.parse_schema({"type": "record", "name": "Customer", "fields": fields})
    sink = io.BytesIO()
    records = [dict(zip(table.columns, row, strict=True)) for row in zip(*table.columns.values(), strict=True)]
    fastavro.writer(sink, schema, records, sync_marker=b"0123456789abcdef")
    return sink.getvalue()


def _avro_type(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"type": "long", "logicalType": "timestamp-micros" if value.tzinfo else "local-timestamp-micros"}
    if isinstance(value, date):
        return {"type": "int", "logicalType": "date"}
    if isinstance(value, list):
        return {"type": "array", "items": _avro_type(next(iter(value), ""))}
    return {bool: "boolean", int: "long", float: "double", bytes: "bytes"}.get(type(value), "string")
