"""The wire contracts: Avro schemas by name, every version ever released, and what reads old bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import fastavro
from apache_beam import coders
from fastavro.schema import fingerprint as fingerprint_of
from fastavro.schema import to_parsing_canonical_form

EVENT = "campaign_event"


class ContractError(ValueError):
    """Data that does not fit its schema: `where` names the field, `row` the first bad row, if any."""

    def __init__(self, where: str, problem: str, row: int | None = None) -> None:
        super().__init__(where, problem, row)
        self.where, self.problem, self.row = where, problem, row

    def __str__(self) -> str:
        return f"{self.where}{'' if self.row is None else f', row {self.row}'}: {self.problem}"


class DeadLetter(NamedTuple):
    """An input that could not be used or a refused delivery, its bytes verbatim (dead_letter.avsc)."""

    step: str
    reason: str
    detail: str
    source: str
    data: bytes
    trace: str


coders.registry.register_coder(DeadLetter, coders.RowCoder)


@cache
def schema(name: str) -> dict[str, Any]:
    """The schema of schemas/avro/NAME.avsc as it stands today. Shared: do not change it. Raises FileNotFoundError for a
    name without a file."""
    text = (resources.files("schemas") / "avro" / f"{name}.avsc").read_text("utf-8")
    return dict(json.loads(text))


@cache
def released(name: str = EVENT) -> tuple[dict[str, Any], ...]:
    """Every released version of a schema, oldest first (schemas/avro/released/NAME/1.avsc, 2.avsc, …)."""
    folder = resources.files("schemas") / "avro" / "released" / name
    files = [f for f in folder.iterdir() if f.name.endswith(".avsc")]
    files.sort(key=lambda f: int(f.name.removesuffix(".avsc")))
    return tuple(json.loads(f.read_text("utf-8")) for f in files)


def fingerprint(of: str | Mapping[str, Any]) -> str:
    """The CRC-64-AVRO fingerprint of a schema, or of the current schema of that name, as 16 hex digits. It is taken of
    the parsing canonical form: documentation, defaults and logical types do not change it."""
    written = dict(schema(of) if isinstance(of, str) else of)
    return str(fingerprint_of(to_parsing_canonical_form(written), "CRC-64-AVRO"))


def avro_fingerprint(text: str | None) -> str:
    """The fingerprint of a schema as a registry has its text; empty where it is no record in Avro."""
    try:
        written = json.loads(text or "")
        return fingerprint(written) if isinstance(written, dict) else ""
    except Exception:  # no JSON, or no schema (fastavro has no common base)
        return ""


def resolve(digits: str, name: str = EVENT) -> dict[str, Any]:
    """The writer's schema that has this fingerprint, among the released versions and the current one. Raises
    ContractError for a fingerprint that no version has."""
    known = _versions(name)
    if digits not in known:
        problem = f"no version has the schema fingerprint {digits!r} (known: {', '.join(known)}); upgrade"
        raise ContractError(name, problem)
    return known[digits]


def is_known(digits: str) -> bool:
    """Whether a version of the event's schema has this fingerprint."""
    return digits in _versions(EVENT)


@cache
def _versions(name: str) -> dict[str, dict[str, Any]]:
    return {fingerprint(version): version for version in (*released(name), schema(name))}


def decode(digits: str, body: bytes, name: str = EVENT) -> dict[str, Any]:
    """One record as the current schema has it, from the bytes of any released version; times in milliseconds.

    `digits` is the fingerprint of the writer's schema, as the `schema` attribute of a message says it.
    Raises ContractError for an unknown fingerprint and for bytes that are not exactly one such record.
    """
    writer, reader = _plan(digits, name)
    return read_record(writer, reader, body, name)


def read_record(writer: Any, reader: Any, body: bytes, name: str = EVENT) -> dict[str, Any]:
    """One record, written with one parsed schema, seen through another. Raises ContractError as `decode`."""
    source = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(source, writer, reader)
    except Exception as error:  # fastavro has no common base: EOFError, IndexError, UnicodeDecodeError, …
        what = f"{type(error).__name__}: {error}".replace(f" from {source}", "")  # an address would differ in every run
        raise ContractError(name, f"not a record of its schema ({what})") from error
    if source.tell() != len(body):
        raise ContractError(name, f"{len(body) - source.tell()} bytes after the record")
    return dict(record)


@cache
def writer_schema(digits: str, name: str = EVENT) -> Any:
    """The parsed schema that has this fingerprint. Raises ContractError as `resolve`."""
    return parsed(resolve(digits, name))


@cache
def _plan(digits: str, name: str) -> tuple[Any, Any]:
    writer, reader = parsed(resolve(digits, name)), parsed(schema(name))
    # Without a second schema fastavro need not resolve the one against the other, which takes twice as long.
    return writer, None if writer == reader else reader


def parsed(written: Mapping[str, Any]) -> Any:
    """A schema ready for fastavro, logical types taken off: a time stays the number that is on the wire."""
    return fastavro.parse_schema(_plain(written))


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items() if key != "logicalType"}
    return [_plain(item) for item in node] if isinstance(node, list) else node
