"""What the fuzzer puts into one run: odd events, each beside a good one, as a file or as the spool of a broker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.deliveries import Event, encode, on_the_wire
from bench.mutations import Mutant, Mutations
from schemas.codec.varints import zigzag
from schemas.contracts import EVENT, schema
from schemas.transport import Envelope
from stores.deliveries.spool import Spool

_BLOCK = 100  # records
_SYNC = b"fuzz" * 4


@dataclass
class Part:
    """What goes into one run: odd messages by the name that their dead letters would have, and good ones."""

    odd: dict[str, Mutant] = field(default_factory=dict)
    good: list[str] = field(default_factory=list)


def write_events(folder: Path, source: Mutations, count: int) -> Part:
    """A file of odd events, each beside a good one: whole records share blocks, broken ones have one each."""
    part, number, blocks, shared = Part(), 0, list[bytes](), list[bytes]()

    def put(body: bytes) -> None:
        nonlocal number
        shared.append(body)
        number += 1
        if len(shared) >= _BLOCK:
            close()

    def close() -> None:
        if shared:
            blocks.append(_block(shared))
            shared.clear()

    for _ in range(count):
        mutant = source.value() if source.chance(0.7) else source.bytes_()
        if not mutant.whole:
            close()
        part.odd[f"message fuzz.avro:{number}"] = mutant
        put(mutant.body)
        if not mutant.whole:
            close()
        put(encode(_noted(source.neighbour(), part)))
    close()
    folder.mkdir(parents=True)
    _write_container(folder / "fuzz.avro", blocks)
    return part


def write_spool(folder: Path, source: Mutations, count: int) -> Part:
    """Polls of odd messages, each beside a good one, as a broker gives them."""
    part, envelopes = Part(), list[Envelope]()
    for number in range(count):
        mutant = source.any()
        part.odd[f"message odd-{number}"] = mutant
        envelopes.append(Envelope(f"odd-{number}", mutant.attributes, mutant.body, 0))
        ((body, attributes),) = on_the_wire([_noted(source.neighbour(), part)])
        envelopes.append(Envelope(f"good-{number}", attributes, body, 0))
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(envelopes), 2_000):
        Spool(folder).write(envelopes[start : start + 2_000])
    return part


def _noted(event: Event, part: Part) -> Event:
    part.good.append(event["event_id"])
    return event


def _block(bodies: Sequence[bytes]) -> bytes:
    data = b"".join(bodies)
    return zigzag(len(bodies)) + zigzag(len(data)) + data + _SYNC


def _write_container(path: Path, blocks: Sequence[bytes]) -> None:
    text = json.dumps(schema(EVENT)).encode()
    name = b"avro.schema"
    head = zigzag(1) + zigzag(len(name)) + name + zigzag(len(text)) + text + zigzag(0)
    path.write_bytes(b"Obj\x01" + head + _SYNC + b"".join(blocks))
