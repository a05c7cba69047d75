"""No vendor at all: each call is an Avro file in a folder, for a retailer who sends by other means."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import fastavro
import pyarrow as pa

from connectors.files.sink import FileSink
from connectors.vendors.recipients import make_each
from schemas.contracts import EVENT, parsed, schema
from schemas.delivery import Account, Answer, Begin, Call, always
from schemas.problems import JobError


@cache
def _schema() -> Any:
    return parsed(schema(EVENT))


def _body(event: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, _schema(), event)
    return buffer.getvalue()


class Outbox:
    """Writes BATCH_ID.avro into the folder that the account's URL names (a path, file:PATH or gs://…): the campaign
    events as they are. The same call writes the same file again, so a repeat sends nothing twice."""

    name = "outbox"

    def open(self) -> None:
        """Nothing to open: a file is written as a whole."""

    def close(self) -> None:
        """Nothing to close."""

    def send(self, account: Account, call: Call, begin: Begin = always) -> Answer:
        """Sent when the file is there completely; failed when it could not be written. Needs no key, knows no
        templates, and does not keep to the account's timeout: a disk has none."""
        records, broken, detail = make_each(range(len(call.events)), lambda at: _body(call.events[at]), call.events)
        if not records:
            return Answer("sent", None, detail, rejected=broken)
        flag = begin()
        if flag is None:
            return Answer("withdrawn", "withdrawn")
        flag.cells[flag.at] = flag.value
        folder = account.url.removeprefix("file:")
        try:
            bodies = pa.array(list(records.values()), pa.binary())
            path = FileSink(folder).write(call.batch_id, schema(EVENT), bodies)
        except JobError as error:
            return Answer("failed", "not_written", str(error))
        return Answer("sent", None, detail, path.rpartition("/")[2], broken)
