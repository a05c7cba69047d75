"""Columnar Avro on the cases that matter by name: what fastavro writes, and errors with their place."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from schemas.codec.avro_columns import Encoded, encode_column, encode_records
from schemas.contracts import ContractError, schema

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


def encoded(avro: Any, column: Any, length: int) -> list[bytes]:
    result = encode_column(avro, column, length)
    assert result.null_count == 0
    result.validate(full=True)
    return result.to_pylist()


def check(avro: Any, rows: list[Any], arrow: pa.DataType | None = None, plain: list[Any] | None = None) -> None:
    column = pa.array(rows if plain is None else plain, arrow)
    assert encoded(avro, column, len(rows)) == written(avro, rows)


def any_event(**changes: Any) -> dict[str, Any]:
    offer = {"id": "five", "kind": "unique_code", "code": "AB-1", "value": "5.00", "currency": "USD"}
    event = {
        "event_id": "0" * 32,
        "launch_id": "l-1",
        "campaign_id": "spring",
        "campaign_version": "0123456789ab",
        "surface": "storefront",
        "retailer_id": "r-1",
        "customer_id": "c-1",
        "recipient": "ann@example.com",
        "channel": "email",
        "vendor_campaign": None,
        "experiment": {"key": "k", "variant": "code", "bucket": 0.25, "scheme": "growthbook/2"},
        "offers": [{**offer, "expires_at": 1_775_000_000_000}],
        "template": "plain",
        "properties": {"name": "Ann"},
        "deliver_after": 1_775_000_000_000,
        "expires_at": None,
        "emitted_at": 1_774_999_999_999,
        "trace": "l-1/0",
    }
    return {**event, **changes}


def as_columns(events: list[dict[str, Any]]) -> dict[str, pa.Array]:
    """The events' columns; properties as a struct of the keys the first one has."""
    return {name: pa.array([event[name] for event in events]) for name in events[0]}


EVENTS = [
    any_event(),
    any_event(surface="marketplace", recipient="", experiment=None, offers=[], template=None),
    any_event(customer_id="c\0\0", recipient="žluťoučký 🐎", properties={"name": None}, expires_at=-1),
    any_event(offers=any_event()["offers"] * 3, deliver_after=2**63 - 1, emitted_at=-(2**63)),
]


def test_campaign_events_are_written_as_fastavro_writes_them() -> None:
    bodies = encode_records(schema("campaign_event"), as_columns(EVENTS), len(EVENTS))
    assert bodies.to_pylist() == written(schema("campaign_event"), EVENTS)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_constants_stand_for_every_row(length: int) -> None:
    event = any_event()
    event["offers"] = pa.scalar(event["offers"])
    event["channel"] = pa.scalar("email", pa.string())
    bodies = encode_records(schema("campaign_event"), event, length)
    assert bodies.to_pylist() == written(schema("campaign_event"), [any_event()] * length)


def test_a_record_and_a_map_may_be_given_as_columns_and_constants() -> None:
    variants, names = ["a", None, "b"], ["Ann", None, "Zoë"]
    events = [
        any_event(experiment={"key": "k", "variant": v, "bucket": None, "scheme": "s"}, properties={"n": n, "x": 7})
        for v, n in zip(variants, names, strict=True)
    ]
    experiment = {"key": "k", "variant": pa.array(variants).dictionary_encode(), "scheme": "s"}
    columns = any_event(experiment=experiment, properties={"n": pa.array(names), "x": 7})
    bodies = encode_records(schema("campaign_event"), columns, 3)
    assert bodies.to_pylist() == written(schema("campaign_event"), events)


def test_a_field_left_out_takes_its_default() -> None:
    avro = {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "a", "type": "int"},
            {"name": "b", "type": "bytes", "default": "\u00ff"},
            {"name": "c", "type": {"type": "array", "items": "int"}, "default": []},
            {"name": "d", "type": ["string", "null"], "default": "x"},
        ],
    }
    assert encode_records(avro, {"a": 5}, 1).to_pylist() == [b"\x0a\x02\xff\x00\x00\x02x"]


def test_prepared_bytes_are_used_as_they_stand() -> None:
    names = encode_column(ANY, pa.array(["a", None]), 2)
    columns = any_event(properties={"n": Encoded(names)}, template=Encoded(b"\x02\x02t"))
    expected = [any_event(properties={"n": n}, template="t") for n in ("a", None)]
    bodies = encode_records(schema("campaign_event"), columns, 2)
    assert bodies.to_pylist() == written(schema("campaign_event"), expected)


def test_a_named_type_may_be_used_again_by_its_name() -> None:
    fields = [{"name": "a", "type": {"type": "enum", "name": "E", "symbols": ["x", "y"]}}, {"name": "b", "type": "E"}]
    avro = {"type": "record", "name": "some.R", "fields": [*fields, {"name": "c", "type": ["null", "some.E"]}]}
    rows: list[dict[str, Any]] = [{"a": "x", "b": "y", "c": None}, {"a": "y", "b": "x", "c": "y"}]
    assert encode_records(avro, as_columns(rows), 2).to_pylist() == written(avro, rows)


def test_long_strings_and_extreme_numbers_keep_their_bytes() -> None:
    check("string", ["", "a" * 63, "b" * 64, "c" * 8191, "d" * 8192, "e" * 10_000_000])
    check("long", [0, -1, 63, 64, -64, -65, 2**31, 2**63 - 1, -(2**63)])


def test_columns_of_one_value_and_of_nulls_only() -> None:
    check(["null", "string"], [None] * 5, pa.string())
    check(["null", "string"], [None] * 5, pa.null())
    check(["string", "null"], [None] * 5, pa.dictionary(pa.int8(), pa.string()))
    check("string", ["same"] * 5, pa.dictionary(pa.int8(), pa.string()))
    check({"type": "array", "items": "long"}, [[]] * 3, pa.list_(pa.null()))
    check({"type": "array", "items": "long"}, [[4], [5], [600]])


def test_a_dictionary_may_hold_nulls_repeats_and_values_no_row_uses() -> None:
    avro = ["null", {"type": "enum", "name": "E", "symbols": ["x", "y"]}]
    values = pa.array(["x", None, "unknown", "y", "x"])
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 3, 4, 0]), values)
    assert encoded(avro, column, 6) == written(avro, ["x", None, None, "y", "x", "x"])


def test_what_lies_under_a_null_is_not_written() -> None:
    inner = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": "long"}]}
    column = pa.StructArray.from_arrays(
        [pa.array(["x", "hidden", "y"]), pa.array([1, 2**40, 3])], ["a", "b"], mask=pa.array([False, True, False])
    )
    assert encoded(["null", inner], column, 3) == written(
        ["null", inner], [{"a": "x", "b": 1}, None, {"a": "y", "b": 3}]
    )
    lists = pa.ListArray.from_arrays(
        pa.array([0, 1, 3, 4], pa.int32()), pa.array([1, None, None, 4]), mask=pa.array([False, True, False])
    )
    avro = ["null", {"type": "array", "items": "long"}]
    assert encoded(avro, lists, 3) == written(avro, [[1], None, [4]])
    assert encoded(avro, lists.slice(1), 2) == written(avro, [None, [4]])


def test_a_slice_of_maps_of_maps_keeps_its_rows() -> None:
    avro = {"type": "map", "values": {"type": "map", "values": ["null", "long"]}}
    rows: list[Any] = [{"a": {"b": None}}, {"c": {"d": None, "e": None}, "f": {}}, {}]
    column = pa.array(rows, pa.map_(pa.string(), pa.map_(pa.string(), pa.null())))
    for start in range(4):
        assert encoded(avro, column.slice(start), 3 - start) == written(avro, rows[start:])


def test_times_of_any_unit_are_rounded_down_to_the_schemas() -> None:
    for unit, value in [("s", -2), ("ms", -1_500), ("us", -1_500_001), ("ns", -1_500_000_001)]:
        column = pa.array([value, None], pa.timestamp(unit))
        whole = {"s": -2000, "ms": -1500, "us": -1501, "ns": -1501}[unit]
        assert encoded(["null", MILLIS], column, 2) == written(["null", "long"], [whole, None])


@pytest.mark.parametrize(
    ("avro", "column", "message"),
    [
        ("string", pa.array(["a", None]), "value, row 1: null where the schema has none"),
        (["string", "long"], pa.array(["a", None]), "row 1: null where"),
        ("long", pa.array(["a", "b"]), "value: string does not fit long"),
        ("string", pa.array([b"a", b"b"]), "binary does not fit string"),
        ("long", pa.array([1, 2**63], pa.uint64()), "row 1: 9223372036854775808 does not fit long"),
        ("int", pa.array([1, -(2**31) - 1]), "row 1: -2147483649 does not fit int"),
        ("float", pa.array([1.0, 1e300]), "row 1: 1e.300 does not fit float"),
        ("long", pa.array([1, 2], pa.timestamp("ms")), "timestamp.ms. does not fit long"),
        (["null", "long"], pa.array(["a", "b"]), "string fits no branch of null, long"),
        ({"type": "enum", "name": "E", "symbols": ["x", "y"]}, pa.array(["x", "z"]), "E, row 1: 'z' is none of x, y"),
        ({"type": "fixed", "name": "F", "size": 2}, pa.array([b"ab", b"c"]), "F, row 1: not 2 bytes"),
        ({"type": "array", "items": "string"}, pa.array([["a", "b"], ["c", None]]), r"value\[\], row 1: null"),
        ({"type": "map", "values": "string"}, pa.array([{"a": "x"}, {"a": None}]), "value{a}, row 1: null"),
        ({"type": "array", "items": "string"}, pa.array(["a", "b"]), "string does not fit array"),
        ("string", pa.array(["a"]), "1 values for 2 rows"),
        (
            "long",
            pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array(["a"], pa.string_view())),
            "cast its views to plain strings",
        ),
        ("long", "text", "string does not fit long"),
        ("long", object(), "no constant can be made"),
        ("string", {"a": 1}, "a mapping does not fit string"),
        ("string", Encoded(pa.array([b"a", None])), "2 encoded values, 1 of them null"),
        (MILLIS, pa.array([0, 2**62], pa.timestamp("s")), "row 1: 4611686018427387904"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(avro: Any, column: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        encode_column(avro, column, 2)


def test_an_error_deep_inside_names_the_field_and_the_row() -> None:
    column = as_columns(EVENTS)
    offers = [[{**offer, "kind": "gift" if i == 3 else "fixed"} for offer in e["offers"]] for i, e in enumerate(EVENTS)]
    with pytest.raises(ContractError, match=r"CampaignEvent.offers\[\].kind, row 3: 'gift' is none of fixed"):
        encode_records(schema("campaign_event"), {**column, "offers": pa.array(offers)}, 4)
    with pytest.raises(ContractError, match="CampaignEvent: no such field: recipent"):
        encode_records(schema("campaign_event"), {**column, "recipent": "x"}, 4)
    with pytest.raises(ContractError, match=r"CampaignEvent\.trace: no column and no default"):
        encode_records(schema("campaign_event"), {k: v for k, v in column.items() if k != "trace"}, 4)
