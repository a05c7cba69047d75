"""Columnar Avro against its judge: random rows of random schemas, byte for byte as fastavro writes them."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import fastavro
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec.avro_columns import encode_column

UTC_MICROS = pa.timestamp("us", "UTC")
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
ANY = ["null", "boolean", "long", "double", "string"]


def written(avro: Any, rows: list[Any]) -> list[bytes]:
    """What fastavro writes."""
    parsed = fastavro.parse_schema(avro)
    out = []
    for row in rows:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, row)
        out.append(buffer.getvalue())
    return out


class Node(NamedTuple):
    """A random type: its Avro schema, an Arrow type for it, its values, and a value as fastavro wants it."""

    avro: Any
    arrow: pa.DataType
    values: st.SearchStrategy[Any]
    given: Callable[[Any], Any] = lambda value: value
    branch: str = ""


TIMES = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))
SMALL, BIG = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
LEAVES = [
    Node("null", pa.null(), st.none()),
    Node("boolean", pa.bool_(), st.booleans()),
    Node("int", pa.int32(), SMALL),
    Node("int", pa.uint8(), st.integers(0, 255)),
    Node({"type": "int", "logicalType": "date"}, pa.date32(), st.dates(), branch="int"),
    Node("long", pa.int64(), BIG | st.sampled_from([0, 63, 64, -64, -65, 8191, 8192, -(2**63), 2**63 - 1])),
    Node("long", pa.uint64(), st.integers(0, 2**63 - 1)),
    Node(MILLIS, pa.int64(), BIG, branch="long"),
    Node(MILLIS, UTC_MICROS, TIMES, branch="long"),
    Node({"type": "long", "logicalType": "timestamp-micros"}, UTC_MICROS, TIMES, branch="long"),
    Node("float", pa.float32(), st.floats(width=32)),
    Node("double", pa.float64(), st.floats()),
    Node("bytes", pa.binary(), st.binary(max_size=80)),
    Node("bytes", pa.large_binary(), st.binary()),
    Node("string", pa.string(), st.text()),
    Node("string", pa.large_string(), st.text(max_size=200)),
    Node("string", pa.string_view(), st.text()),
    Node("string", pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["", "a", "é" * 70])),
]


@st.composite
def leaves(draw: st.DrawFn, name: str) -> Node:
    kind = draw(st.sampled_from(["plain", "plain", "fixed", "enum"]))
    if kind == "plain":
        return draw(st.sampled_from(LEAVES))
    if kind == "fixed":
        size = draw(st.integers(1, 20))
        arrow = draw(st.sampled_from([pa.binary(size), pa.binary()]))
        avro = {"type": "fixed", "name": name, "size": size}
        return Node(avro, arrow, st.binary(min_size=size, max_size=size), branch=name)
    symbols = draw(st.lists(st.sampled_from("ABCDEFGH"), min_size=1, unique=True))
    arrow = draw(st.sampled_from([pa.string(), pa.dictionary(pa.int8(), pa.string())]))
    avro = {"type": "enum", "name": name, "symbols": symbols}
    return Node(avro, arrow, st.sampled_from(symbols), branch=name)


@st.composite
def nodes(draw: st.DrawFn, name: str = "n", depth: int = 3) -> Node:
    kinds: list[Any] = [leaves, nullables, anythings] + ([records, arrays, maps, fixed_maps] if depth else [])
    kind = draw(st.sampled_from(kinds))
    return draw(kind(name) if kind in (leaves, anythings) else kind(name, depth))


@st.composite
def nullables(draw: st.DrawFn, name: str, depth: int) -> Node:
    kinds: list[Any] = [leaves] + ([records, arrays, maps, fixed_maps] if depth else [])
    kind = draw(st.sampled_from(kinds))
    inner = draw(kind(name) if kind is leaves else kind(name, depth))
    if inner.avro == "null":
        return inner
    first = draw(st.booleans())
    branch = inner.branch or inner.avro
    return Node(
        ["null", inner.avro] if first else [inner.avro, "null"],
        inner.arrow,
        st.none() | inner.values,
        lambda value: ("null", None) if value is None else (branch, inner.given(value)),
    )


@st.composite
def anythings(draw: st.DrawFn, name: str) -> Node:
    inner = draw(st.sampled_from([n for n in LEAVES if n.avro in ANY and n.arrow != pa.float32()]))
    return Node(
        draw(st.permutations(ANY)),
        inner.arrow,
        st.none() | inner.values,
        lambda value: ("null", None) if value is None else (inner.avro, value),
    )


@st.composite
def records(draw: st.DrawFn, name: str, depth: int) -> Node:
    count = draw(st.integers(0, 4))
    fields = {f"f{i}": draw(nodes(f"{name}_{i}", depth - 1)) for i in range(count)}
    return Node(
        {"type": "record", "name": name, "fields": [{"name": k, "type": n.avro} for k, n in fields.items()]},
        pa.struct([(k, n.arrow) for k, n in fields.items()]),
        st.fixed_dictionaries({k: n.values for k, n in fields.items()}),
        lambda value: {k: fields[k].given(v) for k, v in value.items()},
        name,
    )


@st.composite
def arrays(draw: st.DrawFn, name: str, depth: int) -> Node:
    item = draw(nodes(f"{name}_i", depth - 1))
    arrow = draw(st.sampled_from([pa.list_(item.arrow), pa.large_list(item.arrow)]))
    return Node(
        {"type": "array", "items": item.avro},
        arrow,
        st.lists(item.values, max_size=4),
        lambda value: [item.given(v) for v in value],
        "array",
    )


@st.composite
def maps(draw: st.DrawFn, name: str, depth: int) -> Node:
    item = draw(nodes(f"{name}_v", depth - 1))
    return Node(
        {"type": "map", "values": item.avro},
        pa.map_(pa.string(), item.arrow),
        st.dictionaries(st.text(max_size=5), item.values, max_size=3).map(lambda d: list(d.items())),
        lambda value: {k: item.given(v) for k, v in value},
        "map",
    )


@st.composite
def fixed_maps(draw: st.DrawFn, name: str, depth: int) -> Node:
    item = draw(nodes(f"{name}_v", depth - 1))
    keys = draw(st.lists(st.text(max_size=20), max_size=3, unique=True))
    return Node(
        {"type": "map", "values": item.avro},
        pa.struct([(key, item.arrow) for key in keys]),
        st.fixed_dictionaries(dict.fromkeys(keys, item.values)),
        lambda value: {key: item.given(value[key]) for key in keys},
        "map",
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_rows_of_any_schema_are_written_as_fastavro_writes_them(data: st.DataObject) -> None:
    node = data.draw(nodes())
    rows = data.draw(st.lists(node.values, max_size=12))
    start = data.draw(st.integers(0, len(rows)))
    column = pa.array(rows, node.arrow).slice(start)
    expected = written(node.avro, [node.given(row) for row in rows[start:]])
    result = encode_column(node.avro, column, len(expected))
    result.validate(full=True)
    assert result.to_pylist() == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_rows_hidden_under_nulls_and_behind_dictionaries_stay_hidden(data: st.DataObject) -> None:
    usable = records("n", 2).filter(lambda drawn: drawn.avro["fields"] and "view" not in str(drawn.arrow))
    node = data.draw(usable)
    rows = data.draw(st.lists(node.values, min_size=1, max_size=6))
    nulls = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    children = pa.array(rows, node.arrow).flatten()
    column = pa.StructArray.from_arrays(children, fields=list(node.arrow), mask=pa.array(nulls))
    expected = [("null", None) if null else ("n", node.given(row)) for row, null in zip(rows, nulls, strict=True)]
    avro = ["null", node.avro]
    assert encode_column(avro, column, len(rows)).to_pylist() == written(avro, expected)
    picks = data.draw(st.lists(st.none() | st.integers(0, len(rows) - 1), max_size=9))
    coded = pa.DictionaryArray.from_arrays(pa.array(picks, pa.int32()), column)
    looked_up = [("null", None) if pick is None else expected[pick] for pick in picks]
    assert encode_column(avro, coded, len(picks)).to_pylist() == written(avro, looked_up)
    lists = pa.ListArray.from_arrays(pa.array([0, len(rows), len(rows)], pa.int32()), column)
    wrapped = {"type": "array", "items": avro}
    assert encode_column(wrapped, lists, 2).to_pylist() == written(wrapped, [expected, []])
