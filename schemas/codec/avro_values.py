"""The leaves of columnar Avro: what a column of numbers, text, bytes or symbols becomes, type by type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.codec.varints import Cells, Numbers, Part, constant, offsets, zigzags
from schemas.contracts import ContractError

is_ = pa.types
_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_CLOCKS: dict[str, tuple[Callable[[pa.DataType], bool], str]] = {
    "timestamp-millis": (is_.is_timestamp, "ms"),
    "timestamp-micros": (is_.is_timestamp, "us"),
    "local-timestamp-millis": (is_.is_timestamp, "ms"),
    "local-timestamp-micros": (is_.is_timestamp, "us"),
    "time-millis": (is_.is_time, "ms"),
    "time-micros": (is_.is_time, "us"),
}


@dataclass(frozen=True, eq=False)
class Spot:
    """One place in a schema, and the rows that have something there (`present`; None: all of them). Where a row is not
    present its column is null, and nothing may be written for it."""

    schema: Any
    where: str
    length: int
    named: Mapping[str, Any]
    present: Numbers | None = None

    @property
    def kind(self) -> str:
        return kind_of(self.schema)

    def at(self, schema: Any, suffix: str = "") -> Spot:
        """The place inside this one that has another schema, names resolved."""
        return replace(self, schema=self.resolved(schema), where=self.where + suffix)

    def resolved(self, schema: Any) -> Any:
        return self.named.get(schema, schema) if isinstance(schema, str) else schema

    def constant(self, data: bytes) -> Part:
        return constant(data, self.length, self.present)

    def nulls(self, column: pa.Array) -> Numbers | None:
        """The present rows that are null; None when there is none."""
        absent = 0 if self.present is None else self.length - int(np.count_nonzero(self.present))
        if column.null_count == absent:
            return None
        nulls = np.asarray(column.is_null())
        return nulls if self.present is None else nulls & self.present

    def refuse(self, problem: str, bad: Numbers | None = None) -> ContractError:
        """The error to raise; `bad` marks the rows to blame, the first of which is named."""
        return ContractError(self.where, problem, None if bad is None else int(np.argmax(bad)))

    def refuse_type(self, given: object) -> ContractError:
        return self.refuse(f"{given} does not fit {self.kind}")


def kind_of(schema: Any) -> str:
    """The name of a type: union, record, array, …, or a primitive's; a reference's own name."""
    if isinstance(schema, list):
        return "union"
    return str(schema["type"]) if isinstance(schema, Mapping) else str(schema)


def _null(spot: Spot, column: pa.Array) -> list[Part]:
    if column.null_count < spot.length:
        raise spot.refuse("a value where the schema has only null", np.asarray(column.is_valid()))
    return []


def _boolean(spot: Spot, column: pa.Array) -> list[Part]:
    return [_own_bytes(spot, np.asarray(column.fill_null(False)))]


def _float(spot: Spot, column: pa.Array) -> list[Part]:
    values = np.asarray(column.fill_null(pa.scalar(0, column.type)))
    with np.errstate(over="ignore"):
        written = values.astype("<f4" if spot.kind == "float" else "<f8")
    lost = np.isinf(written) & ~np.isinf(values)
    if lost.any():
        raise spot.refuse(f"{values[np.argmax(lost)]} does not fit float", lost)
    return [_own_bytes(spot, written)]


def _own_bytes(spot: Spot, values: Numbers) -> Part:
    """The values' own bytes, for the rows that are present."""
    data = np.ascontiguousarray(values).view(np.uint8).reshape(spot.length, values.itemsize)
    keep = None if spot.present is None else np.broadcast_to(spot.present[:, None], data.shape)
    return Cells(data, keep)


def _integer(spot: Spot, column: pa.Array) -> list[Part]:
    logical = spot.schema.get("logicalType") if isinstance(spot.schema, Mapping) else None
    fits, unit = _CLOCKS.get(logical or "", (is_.is_null, ""))
    if fits(column.type):
        values = _in_unit(spot, column, unit)
    elif is_.is_integer(column.type) or (logical == "date" and is_.is_date32(column.type)):
        values = _whole(column)
    else:
        raise spot.refuse_type(column.type)
    bits = 31 if spot.kind == "int" else 63
    outside = (values > 2**bits - 1) | (values < -(2**bits))
    if outside.any():
        raise spot.refuse(f"{values[np.argmax(outside)]} does not fit {spot.kind}", outside)
    return [zigzags(values, spot.present)]


def _whole(column: pa.Array) -> Numbers:
    bare = column if is_.is_integer(column.type) else column.view(f"int{column.type.bit_width}")
    return np.asarray(bare.fill_null(pa.scalar(0, bare.type)))


def _in_unit(spot: Spot, column: pa.Array, unit: str) -> Numbers:
    """Times as numbers of the unit the schema wants, rounded down as fastavro does."""
    values = _whole(column).astype(np.int64)
    have, want = _A_SECOND[column.type.unit], _A_SECOND[unit]
    if have >= want:
        return np.floor_divide(values, have // want)
    outside = np.abs(values) > 2**63 // (want // have) - 1
    if outside.any():
        raise spot.refuse(f"{values[np.argmax(outside)]} {column.type} does not fit {unit}", outside)
    return values * (want // have)


def _with_length(spot: Spot, column: pa.Array) -> list[Part]:
    data = column.cast(pa.large_binary())
    return [zigzags(np.diff(offsets(data)), spot.present), data]


def _fixed(spot: Spot, column: pa.Array) -> list[Part]:
    data = column.cast(pa.large_binary())
    wrong = np.diff(offsets(data)) != spot.schema["size"]
    if spot.present is not None:
        wrong &= spot.present
    if wrong.any():
        raise spot.refuse(f"not {spot.schema['size']} bytes", wrong)
    return [data]


def _enum(spot: Spot, column: pa.Array) -> list[Part]:
    text, symbols = column.cast(pa.large_string()), spot.schema["symbols"]
    places = pc.index_in(text, value_set=pa.array(symbols, pa.large_string()))
    unknown = spot.nulls(places)
    if unknown is not None:
        value = text[int(np.argmax(unknown))].as_py()
        raise spot.refuse(f"{value!r:.80} is none of {', '.join(symbols)}", unknown)
    return [zigzags(np.asarray(places.fill_null(0)), spot.present)]


def _is_text(kind: pa.DataType) -> bool:
    return is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    binary = (is_.is_binary, is_.is_large_binary, is_.is_binary_view, is_.is_fixed_size_binary)
    return any(fits(kind) for fits in binary)


def _is_small(kind: pa.DataType) -> bool:
    return is_.is_integer(kind) and (kind.bit_width < 32 or kind == pa.int32())


def _is_number(kind: pa.DataType) -> bool:
    return is_.is_floating(kind) or is_.is_integer(kind)


_LEAVES: dict[str, tuple[Callable[[pa.DataType], bool] | None, Callable[[Spot, pa.Array], list[Part]]]] = {
    "null": (None, _null),
    "boolean": (is_.is_boolean, _boolean),
    "int": (None, _integer),
    "long": (None, _integer),
    "float": (_is_number, _float),
    "double": (_is_number, _float),
    "bytes": (_is_bytes, _with_length),
    "string": (_is_text, _with_length),
    "fixed": (_is_bytes, _fixed),
    "enum": (_is_text, _enum),
}
"""By the kind of an Avro type: the Arrow types that fit (None: the encoder looks itself), and the encoder."""


def leaf_parts(spot: Spot, column: pa.Array) -> list[Part]:
    """The parts of one column, which is null where the spot is not present, only there."""
    fits, encode = _LEAVES[spot.kind]
    if fits is not None and not fits(column.type):
        raise spot.refuse_type(column.type)
    return encode(spot, column)


_CHOICES: tuple[tuple[Callable[[pa.DataType], bool], tuple[str, ...]], ...] = (
    (is_.is_boolean, ("boolean",)),
    (_is_small, ("int", "long", "float", "double")),
    (is_.is_integer, ("long", "int", "double", "float")),
    (is_.is_float64, ("double", "float")),
    (is_.is_floating, ("float", "double")),
    (_is_text, ("string", "enum")),
    (is_.is_fixed_size_binary, ("fixed", "bytes")),
    (_is_bytes, ("bytes", "fixed")),
    (is_.is_timestamp, ("long",)),
    (is_.is_time, ("int", "long")),
    (is_.is_date32, ("int",)),
    (is_.is_map, ("map",)),
    (is_.is_struct, ("record", "map")),
    (is_.is_nested, ("array",)),
)


def branch_of(spot: Spot, arrow: pa.DataType) -> int:
    """The branch of a union as which a column of this Arrow type is written: the first of the closest kind."""
    kinds = next((kinds for fits, kinds in _CHOICES if fits(arrow)), ())
    for kind in kinds:
        for index, branch in enumerate(map(spot.resolved, spot.schema)):
            if kind_of(branch) == kind and _suits(branch, arrow):
                return index
    raise spot.refuse(f"{arrow} fits no branch of {', '.join(map(kind_of, spot.schema))}")


def _suits(branch: Any, arrow: pa.DataType) -> bool:
    if kind_of(branch) == "record":
        return {field.name for field in arrow} <= {field["name"] for field in branch["fields"]}
    sized = kind_of(branch) == "fixed" and is_.is_fixed_size_binary(arrow)
    return not sized or bool(branch["size"] == arrow.byte_width)
