"""The keys of feature rows as bytes, the same in every store."""

from __future__ import annotations

import struct
from hashlib import blake2b

from stores.features.protocol import RowKey

_END = b"\0\0"
_PARTITION = struct.Struct(">H")
_MOST_ENTITY = 380  # bytes: LMDB takes keys of 511
_DIGEST = 32


def entity_prefix(group: str, entity: str) -> bytes:
    """What the keys of all rows of an entity begin with, and of no other entity."""
    name = entity.encode("utf-8", "surrogatepass").replace(b"\0", b"\0\xff")
    if len(name) > _MOST_ENTITY:
        digest = blake2b(name, digest_size=_DIGEST).hexdigest().encode()
        cut = _MOST_ENTITY - len(digest)
        while name[cut] == 0xFF or name[cut] & 0xC0 == 0x80:  # within an escaped NUL, or within a character
            cut -= 1
        name = name[:cut] + digest
    return group_prefix(group) + name + _END


def group_prefix(group: str) -> bytes:
    """What the keys of all rows of a group begin with."""
    return group.encode() + _END


def row_key(group: str, entity: str, partition: int) -> bytes:
    """The key of a row."""
    return entity_prefix(group, entity) + _PARTITION.pack(partition)


def parse_key(key: bytes) -> RowKey:
    """The parts of a key. A very long entity comes back shortened: the short one has the same key."""
    group, _, rest = key.partition(_END)
    name = rest[: -len(_END) - _PARTITION.size].replace(b"\0\xff", b"\0")
    return RowKey(group.decode(), name.decode("utf-8", "surrogatepass"), _PARTITION.unpack(key[-_PARTITION.size :])[0])
