"""Messages that are published again into files."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from connectors.files.sink import FileSink
from connectors.replay import Message, group_messages
from schemas.contracts import ContractError, decode, resolve


def fits_file(message: Message) -> bool:
    """Whether a file can hold a message: one broken record makes all of it unreadable."""
    try:
        decode(message[1].get("schema", ""), message[0])
    except ContractError:
        return False
    return True


def write_messages(directory: str, part: str, messages: Sequence[Message]) -> int:
    """Write the bodies into one file for each schema, named after `part`; how many there are."""
    groups = group_messages(messages, lambda attributes: attributes.get("schema", ""))
    for number, (fingerprint, group) in enumerate(groups.items()):
        bodies = pa.array([body for body, _ in group], pa.large_binary())
        FileSink(directory).write(f"replay-{part}{f'-{number}' * bool(number)}", resolve(fingerprint), bodies)
    return len(messages)
