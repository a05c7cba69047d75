"""Avro bodies of many rows at once, built from Arrow columns: byte for byte what fastavro writes row by row.

An Avro record is its fields' encodings one after the other, so each field becomes parts (schemas/codec/varints.py)
and Arrow joins the parts of all fields row by row in one call. Nothing here loops over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fastavro.schema import parse_schema

from schemas.codec.avro_values import Spot, branch_of, kind_of, leaf_parts
from schemas.codec.varints import Numbers, Part, join, offsets, zigzag, zigzags
from schemas.contracts import ContractError

is_ = pa.types


@dataclass(frozen=True, eq=False)
class Encoded:
    """A field's bytes as they stand, union branch included: a binary array, or bytes for all rows."""

    data: pa.Array | bytes


Column: TypeAlias = Any
"""What a field is given as: an Arrow array, `Encoded`, a mapping of columns (record, map), or a constant."""


def encode_records(schema: Mapping[str, Any], columns: Mapping[str, Column], length: int) -> pa.LargeBinaryArray:
    """The Avro body of each of `length` rows, from one column a field, as a large_binary array.

    A record is given as a struct array or a mapping of columns; an array as a list array; a map as a map
    array, or as a struct array or mapping whose names are every row's keys, in that order. Any of them may
    be dictionary encoded. A Python value or Arrow scalar is a constant of all rows; a field left out takes
    its default. A union's branch is chosen by the Arrow type. Naive times are UTC, finer ones rounded down.

    Raises ContractError with field and first bad row: null where the schema has none, an unknown symbol, a
    number out of range, an Arrow type or a field name that does not fit.
    """
    return encode_column(schema, dict(columns), length)


def encode_column(schema: Any, column: Column, length: int) -> pa.LargeBinaryArray:
    """The encoding of one Avro type for each row, for instance to prepare an `Encoded` field."""
    named: dict[str, Any] = {}
    parsed = parse_schema(schema, named_schemas=named)
    where = parsed.get("name", "value") if isinstance(parsed, Mapping) else "value"
    return join(_parts(Spot(parsed, where.rpartition(".")[2], length, named), column), length)


def _parts(spot: Spot, column: Column) -> list[Part]:
    if isinstance(column, Encoded):
        return [_as_given(spot, column.data)]
    if isinstance(column, Mapping):
        return _mapping(spot, column)
    if not isinstance(column, pa.Array):
        return [spot.constant(_one(spot, column))]
    if len(column) != spot.length:
        raise spot.refuse(f"{len(column)} values for {spot.length} rows")
    if is_.is_dictionary(column.type):
        return _dictionary(spot, column)
    if spot.kind == "union":
        return _union(spot, column)
    nulls = spot.nulls(column)
    if nulls is not None and spot.kind != "null":
        raise spot.refuse("null where the schema has none", nulls)
    if is_.is_null(column.type):
        return []
    return _NESTS.get(spot.kind, leaf_parts)(spot, column)


def _as_given(spot: Spot, data: pa.Array | bytes) -> Part:
    if isinstance(data, bytes):
        return spot.constant(data)
    if len(data) != spot.length or data.null_count:
        raise spot.refuse(f"{len(data)} encoded values, {data.null_count} of them null, for {spot.length} rows")
    return data.cast(pa.large_binary())


def _one(spot: Spot, value: Any) -> bytes:
    """The encoding of one Python value or Arrow scalar."""
    try:
        column = pa.repeat(value, 1) if isinstance(value, pa.Scalar) else pa.array([value])
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise spot.refuse(f"no constant can be made of {value!r:.80} ({error})") from error
    return bytes(join(_parts(replace(spot, length=1, present=None), column), 1)[0].as_py())


def _mapping(spot: Spot, columns: Mapping[str, Column]) -> list[Part]:
    if spot.kind == "union":
        index = branch_of(spot, pa.struct([(name, pa.null()) for name in columns]))
        return [spot.constant(zigzag(index)), *_mapping(spot.at(spot.schema[index]), columns)]
    if spot.kind not in ("map", "record"):
        raise spot.refuse_type("a mapping")
    return _fixed_keys(spot, columns) if spot.kind == "map" else _fields(spot, columns)


def _dictionary(spot: Spot, column: pa.Array) -> list[Part]:
    """The values encoded once and looked up; plainly where that is no gain, or where a value is refused. (A refused
    value may be one that no row uses, and the plain way knows the row.)"""
    size, nulls = len(column.dictionary), spot.nulls(column)
    if size > spot.length:
        return _parts(spot, _decoded(spot, column))
    try:
        encoded = join(_parts(replace(spot, length=size, present=None), column.dictionary), size)
        null = b"" if nulls is None else _one(spot, None)
    except ContractError:
        return _parts(spot, _decoded(spot, column))
    if nulls is not None:
        encoded = pa.concat_arrays([encoded, pa.array([null], encoded.type)])
        return [encoded.take(pc.if_else(pa.array(nulls), size, column.indices.cast(pa.int64())))]
    return [spot.constant(encoded[0].as_py()) if size == 1 else encoded.take(column.indices)]


def _decoded(spot: Spot, column: pa.DictionaryArray) -> pa.Array:
    try:
        return column.dictionary_decode()
    except pa.ArrowNotImplementedError as error:  # Arrow cannot take from views
        raise spot.refuse(f"{column.type} cannot be decoded: cast its views to plain strings") from error


def _union(spot: Spot, column: pa.Array) -> list[Part]:
    nulls = spot.nulls(column)
    null = next((i for i, branch in enumerate(spot.schema) if kind_of(branch) == "null"), None)
    if nulls is not None and null is None:
        raise spot.refuse("null where the schema has none", nulls)
    if is_.is_null(column.type):
        return [] if nulls is None else [spot.constant(zigzag(null or 0))]
    index = branch_of(spot, column.type)
    inner = spot.at(spot.schema[index])
    if nulls is None:
        return [spot.constant(zigzag(index)), *_parts(inner, column)]
    valid = np.asarray(column.is_valid())
    branch = zigzags(np.where(valid, index, null or 0), spot.present)
    return [branch, *(_parts(replace(inner, present=valid), column) if valid.any() else [])]


def _record(spot: Spot, column: pa.Array) -> list[Part]:
    if not is_.is_struct(column.type):
        raise spot.refuse_type(column.type)
    return _fields(spot, _children(column))


def _children(column: pa.StructArray) -> dict[str, pa.Array]:
    """A struct's columns by name, null where the struct is."""
    return dict(zip(column.type.names, column.flatten(), strict=True))


def _fields(spot: Spot, columns: Mapping[str, Column]) -> list[Part]:
    fields = spot.schema["fields"]
    unknown = [name for name in columns if name not in {field["name"] for field in fields}]
    if unknown:
        raise spot.refuse(f"no such field: {', '.join(unknown)}")
    parts: list[Part] = []
    for field in fields:
        name, inner = field["name"], spot.at(field["type"], f".{field['name']}")
        if name not in columns and "default" not in field:
            raise inner.refuse("no column and no default")
        column = columns[name] if name in columns else _default(inner, field["default"])
        parts += _parts(inner, column)
    return parts


def _default(spot: Spot, value: Any) -> Any:
    """A default as a constant: JSON has bytes as text, one character a byte."""
    first = spot.resolved(spot.schema[0]) if spot.kind == "union" else spot.schema
    is_bytes = isinstance(value, str) and kind_of(first) in ("bytes", "fixed")
    return value.encode("latin-1") if is_bytes else value


def _map(spot: Spot, column: pa.Array) -> list[Part]:
    if is_.is_struct(column.type):
        return _fixed_keys(spot, _children(column))
    if not is_.is_map(column.type):
        raise spot.refuse_type(column.type)
    return _blocks(spot, _as_lists(column), _entry)


def _as_lists(column: pa.MapArray) -> pa.ListArray:
    """The map as lists of (key, value): the same buffers (a cast of a sliced map gives children cut short)."""
    pairs = pa.StructArray.from_arrays([column.keys, column.items], ["key", "value"])
    buffers, kind = column.buffers()[:2], pa.list_(pairs.type)
    return pa.ListArray.from_buffers(kind, len(column), buffers, -1, column.offset, [pairs])


def _entry(spot: Spot, pairs: pa.StructArray) -> list[Part]:
    key, value = pairs.flatten()
    return [*_parts(spot.at("string", "{key}"), key), *_parts(spot.at(spot.schema["values"], "{}"), value)]


def _fixed_keys(spot: Spot, columns: Mapping[str, Column]) -> list[Part]:
    if not columns:
        return [spot.constant(b"\0")]
    parts = [spot.constant(zigzag(len(columns)))]
    for key, column in columns.items():
        name = key.encode()
        parts.append(spot.constant(zigzag(len(name)) + name))
        parts += _parts(spot.at(spot.schema["values"], f"{{{key}}}"), column)
    return [*parts, spot.constant(b"\0")]


def _array(spot: Spot, column: pa.Array) -> list[Part]:
    if not is_.is_nested(column.type) or is_.is_struct(column.type) or is_.is_map(column.type):
        raise spot.refuse_type(column.type)
    return _blocks(spot, column, lambda inner, items: _parts(inner.at(inner.schema["items"], "[]"), items))


def _blocks(spot: Spot, lists: pa.Array, encode: Callable[[Spot, pa.Array], list[Part]]) -> list[Part]:
    """Lists as one block each: count, items, 0; an empty one is 0."""
    counts: Numbers = np.asarray(pc.list_value_length(lists).fill_null(0)).astype(np.int64)
    items, ends = lists.flatten(), np.cumsum(counts)
    if not len(items):
        return [spot.constant(b"\0")]
    flat = replace(spot, length=len(items), present=None)
    try:
        if spot.present is None and (counts == 1).all():
            return [zigzag(1), *encode(flat, items), b"\0"]
        body = join(encode(flat, items), len(items))
    except ContractError as error:
        row = None if error.row is None else int(np.searchsorted(ends, error.row, side="right"))
        raise ContractError(error.where, error.problem, row) from error
    # The items of a row lie side by side: the row's bytes are the same buffer under wider offsets.
    edges = offsets(body)[np.concatenate([np.zeros(1, np.int64), ends])]
    buffers = [None, pa.py_buffer(np.ascontiguousarray(edges)), body.buffers()[2]]
    grouped = pa.LargeBinaryArray.from_buffers(pa.large_binary(), spot.length, buffers)
    return [zigzags(counts, counts > 0), grouped, spot.constant(b"\0")]


_NESTS: dict[str, Callable[[Spot, pa.Array], list[Part]]] = {"record": _record, "array": _array, "map": _map}
