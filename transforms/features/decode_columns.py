"""The columns of many Avro bodies of an event type, whatever versions they are of."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import fastavro
import numpy as np
import pyarrow as pa

from schemas.codec.avro_scan import Scan
from schemas.contracts import ContractError, read_record
from schemas.events.event_types import EventType
from schemas.events.versions import columns_of
from schemas.problems import shown
from transforms.features.event_columns import Mask, Numbers


class Decoded(NamedTuple):
    """Events as columns, as EventColumns has them, and their places in the bodies, ascending."""

    places: Numbers
    columns: dict[str, Any]
    present: dict[str, Mask]


def decode_columns(
    event_type: EventType, by_version: Mapping[int, list[int]], bodies: Sequence[bytes], wanted: list[str]
) -> tuple[Decoded, dict[int, str]]:
    """The columns `wanted` of the bodies in these places, by their version, and why the others cannot be read.
    Columns that a version does not have are filled with their defaults."""
    refused: dict[int, str] = {}
    pieces: list[Decoded] = []
    for version, places in by_version.items():
        pieces += _decode(event_type, version, np.array(places, np.int64), bodies, wanted, refused)
    return _merge(pieces, event_type, wanted), refused


def _decode(
    event_type: EventType,
    version: int,
    places: Numbers,
    bodies: Sequence[bytes],
    wanted: list[str],
    refused: dict[int, str],
) -> Iterable[Decoded]:
    """The events of one version: those that the scan vouches for together, the others one by one."""
    schema = event_type.versions[version]
    scanned = Scan(schema, [bodies[place] for place in places.tolist()], frozenset(wanted))
    sound = scanned.sound
    if sound.all():
        yield _scanned_piece(event_type, scanned, places, wanted, version)
        return
    if sound.any():
        piece = _scanned_piece(event_type, scanned, places, wanted, version)
        columns = {
            name: column[sound] if isinstance(column, np.ndarray) else column.filter(pa.array(sound))
            for name, column in piece.columns.items()
        }
        yield Decoded(places[sound], columns, {name: mask[sound] for name, mask in piece.present.items()})
    yield _read_one_by_one(event_type, version, places[~sound], bodies, wanted, refused)


def _scanned_piece(event_type: EventType, scanned: Scan, places: Numbers, wanted: list[str], version: int) -> Decoded:
    length = len(places)
    columns: dict[str, Any] = {}
    present: dict[str, Mask] = {}
    written = columns_of(event_type.versions[version])
    for name in wanted:
        kind = event_type.columns[name]
        if name not in written:
            value = event_type.fields[name].default[0]
            columns[name], mask = _column(kind, [value]), None if value is not None else np.zeros(length, bool)
            repeated = np.zeros(length, np.int64)
            columns[name] = columns[name].take(repeated) if kind == "string" else columns[name][repeated]
        elif kind == "string":
            columns[name], mask = scanned.array(name).cast(pa.string()), None
        else:
            values: Mapping[str, Numbers] = scanned.reals if kind == "double" else scanned.numbers
            columns[name] = values[name] if name in values else np.zeros(length, _DTYPES[kind])
            mask = scanned.present.get(name)
        if mask is not None and kind != "string" and not mask.all():
            present[name] = mask
    return Decoded(places, columns, present)


_DTYPES: dict[str, Any] = {"long": np.int64, "boolean": np.int64, "double": np.float64}


def _column(kind: str, values: list[Any]) -> Any:
    """A column of Python values; zeros where a number is None."""
    if kind == "string":
        return pa.array(values, pa.string())
    return np.array([0 if value is None else value for value in values], _DTYPES[kind])


def _read_one_by_one(
    event_type: EventType,
    version: int,
    places: Numbers,
    bodies: Sequence[bytes],
    wanted: list[str],
    refused: dict[int, str],
) -> Decoded:
    """The events that fastavro can read; the others are refused."""
    writer = event_type.versions[version]
    defaults = {name: field.default[0] for name, field in event_type.fields.items() if field.default}
    records, readable = [], []
    for place in places.tolist():
        try:
            records.append({**defaults, **_read(writer, bodies[place], event_type.name)})
            readable.append(place)
        except ContractError as error:
            refused[place] = shown(error.problem, 500)
    columns = {name: _column(event_type.columns[name], [one[name] for one in records]) for name in wanted}
    present = {
        name: np.array([one[name] is not None for one in records], bool)
        for name in wanted
        if event_type.fields[name].nullable and event_type.columns[name] != "string"
    }
    return Decoded(np.array(readable, np.int64), columns, present)


def _read(writer: Any, body: bytes, name: str) -> dict[str, Any]:
    """One record. fastavro reads a number of more than ten bytes as another one: such a record is refused."""
    record = read_record(writer, None, body, name)
    again = io.BytesIO()
    fastavro.schemaless_writer(again, writer, record)
    if again.getvalue() != body:
        raise ContractError(name, "not written as Avro writes this record: a number has too many bytes")
    return record


def _merge(pieces: list[Decoded], event_type: EventType, wanted: list[str]) -> Decoded:
    """All pieces in the order of the envelopes."""
    if len(pieces) == 1:
        return pieces[0]
    if not pieces:
        nothing = {name: _column(event_type.columns[name], []) for name in wanted}
        return Decoded(np.zeros(0, np.int64), nothing, {})
    places = np.concatenate([piece.places for piece in pieces])
    order = np.argsort(places)
    columns = {}
    for name in wanted:
        parts = [piece.columns[name] for piece in pieces]
        if isinstance(parts[0], np.ndarray):
            columns[name] = np.concatenate(parts)[order]
        else:
            columns[name] = pa.concat_arrays(parts).take(order)
    present = {}
    for name in {name for piece in pieces for name in piece.present}:
        masks = [piece.present.get(name, np.ones(len(piece.places), bool)) for piece in pieces]
        present[name] = np.concatenate(masks)[order]
    return Decoded(places[order], columns, present)
