"""Avro container files block by block, sound and otherwise."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.codec.varints import zigzag
from schemas.contracts import schema

SYNC = b"0123456789abcdef"


def block(*bodies: bytes, count: int | None = None, codec: str = "null", data: bytes | None = None) -> bytes:
    """One block: how many records it says it has, and their bytes, or `data` in their place."""
    joined = b"".join(bodies)
    if codec == "deflate":
        packer = zlib.compressobj(wbits=-15)
        joined = packer.compress(joined) + packer.flush()
    stored = joined if data is None else data
    return zigzag(len(bodies) if count is None else count) + zigzag(len(stored)) + stored + SYNC


def write_container(path: Path, blocks: Sequence[bytes], written: Any = None, codec: str = "null") -> Path:
    """A file of these blocks, of campaign events or of another schema."""
    text = json.dumps(written or schema("campaign_event")).encode()
    meta = {b"avro.codec": codec.encode(), b"avro.schema": text}
    pairs = b"".join(zigzag(len(one)) + one for pair in meta.items() for one in pair)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"Obj\x01" + zigzag(len(meta)) + pairs + zigzag(0) + SYNC + b"".join(blocks))
    return path
