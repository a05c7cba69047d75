"""The bytes of a batch: events that are appended at once, and that readers see all or none of."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

MAGIC = b"CEL1"
ID_BYTES = 16
MOST_BYTES = 1 << 30  # of a batch
_CRC = struct.Struct("<4sI")  # magic, crc32 of everything behind it
_HEADER = struct.Struct("<4sIIIqqqII")
HEADER_BYTES = _HEADER.size


class Header(NamedTuple):
    """What a batch begins with. `size` is that of the whole batch in bytes, `first` the position of its first event;
    its events were published from `oldest` to `newest` (epoch ms). `id_bytes` are 16 for each event, or none."""

    magic: bytes
    crc: int
    size: int
    events: int
    first: int
    oldest: int
    newest: int
    id_bytes: int
    attribute_bytes: int

    @property
    def end(self) -> int:
        """The position behind its last event."""
        return self.first + self.events


class Batch(NamedTuple):
    """Events of one partition, in the order of their positions. `published` (int64, epoch ms) and `lengths` (uint32)
    are of each event, `attributes` of all, `ids` are 16 bytes an event or empty, `blob` holds the bodies one behind the
    other."""

    header: Header
    ids: bytes
    published: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.uint32]
    attributes: dict[str, str]
    blob: bytes

    @property
    def first(self) -> int:
        """The position of its first event."""
        return self.header.first

    @property
    def end(self) -> int:
        """The position behind its last event."""
        return self.header.end

    def cut(self, start: int, stop: int) -> Batch:
        """Its events from a position on, up to before another. Raises ValueError when it has none of them."""
        since, until = max(0, start - self.first), min(len(self.lengths), stop - self.first)
        if since >= until:
            raise ValueError(f"no event from {start} to {stop} is in {self.first} to {self.end}")
        if until - since == len(self.lengths):
            return self
        ends = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        return Batch(
            self.header._replace(first=self.first + since, events=until - since),
            self.ids[ID_BYTES * since : ID_BYTES * until],
            self.published[since:until],
            self.lengths[since:until],
            self.attributes,
            self.blob[ends[since] : ends[until]],
        )

    def bodies(self) -> list[bytes]:
        """The body of each event."""
        blob, ends = self.blob, np.cumsum(self.lengths, dtype=np.int64).tolist()
        return [blob[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def encode_batch(
    first: int,
    bodies: Sequence[bytes],
    published_at: Sequence[int] | npt.NDArray[np.int64],
    attributes: Mapping[str, str],
    ids: bytes = b"",
) -> bytes:
    """The bytes of a batch. Raises ValueError for columns of different lengths, no event, or more than 1 GB."""
    count, published = len(bodies), np.asarray(published_at, np.int64)
    if not count or len(published) != count or len(ids) not in (0, ID_BYTES * count):
        raise ValueError(f"{count} bodies, {len(published)} times and {len(ids)} bytes of ids are no batch")
    lengths = np.fromiter(map(len, bodies), np.int64, count)
    text = json.dumps(dict(attributes), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    parts = [ids, published.tobytes(), lengths.astype(np.uint32).tobytes(), text, *bodies]
    size = HEADER_BYTES + len(ids) + 12 * count + len(text) + int(lengths.sum())
    if size > MOST_BYTES:
        raise ValueError(f"a batch of {size:,} bytes; append fewer events at once")
    oldest, newest = int(published.min()), int(published.max())
    rest = _HEADER.pack(MAGIC, 0, size, count, first, oldest, newest, len(ids), len(text))[_CRC.size :]
    body = b"".join([rest, *parts])
    return _CRC.pack(MAGIC, crc32(body)) + body


def read_header(data: bytes | memoryview, place: int = 0) -> Header | None:
    """The header at a place, if bytes that can be one are there; the crc is not checked."""
    if len(data) - place < HEADER_BYTES:
        return None
    header = Header(*_HEADER.unpack_from(data, place))
    least = HEADER_BYTES + header.id_bytes + header.attribute_bytes + 12 * header.events
    if header.magic != MAGIC or not header.events or not least <= header.size <= MOST_BYTES or header.first < 0:
        return None
    return header


def read_batch(data: memoryview, place: int = 0) -> Batch | None:
    """The batch at a place; None unless all of it is there and whole."""
    header = read_header(data, place)
    if header is None or len(data) - place < header.size:
        return None
    whole = data[place : place + header.size]
    if crc32(whole[_CRC.size :]) != header.crc:
        return None
    times = HEADER_BYTES + header.id_bytes
    lengths = times + 8 * header.events
    text = lengths + 4 * header.events
    blob = text + header.attribute_bytes
    return Batch(
        header,
        bytes(whole[HEADER_BYTES:times]),
        np.frombuffer(whole[times:lengths], np.int64).copy(),
        np.frombuffer(whole[lengths:text], np.uint32).copy(),
        json.loads(bytes(whole[text:blob]).decode("utf-8", "surrogatepass")),
        bytes(whole[blob:]),
    )
