"""Reads a folder of Avro container files: those that are there, or also those that come later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from apache_beam.io.filesystems import FileSystems

from schemas.codec.avro_container import ContainerReader, Stored
from schemas.contracts import fingerprint, is_known
from schemas.problems import JobError
from schemas.transport import POLL_BYTES, Envelope, Poll

_LOOK_EVERY_S = 1.0
_LONGEST_NOTE = 10_000  # characters of a schema in a dead letter


class FileReader:
    """The events of DIRECTORY/*.avro as messages, with the attributes that a launch publishes them with.

    `follow` looks for new files every second; without it the reader is done after the files that are there.
    Several readers (`index` of `readers`) share the files by their order. A file that is not an Avro container, or
    breaks off, is a JobError that names it.
    """

    def __init__(
        self,
        directory: str,
        *,
        index: int = 0,
        readers: int = 1,
        follow: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._directory, self._index, self._readers = directory.rstrip("/"), index, readers
        self._follow, self._stop = follow, stop

    def open(self) -> None:
        """Nothing is read yet."""
        self._seen: set[str] = set()
        self._looked = float("-inf")
        self._records: Iterator[Envelope] = iter(())
        self._failure: JobError | None = None

    def poll(self, most: int) -> Poll:
        """The next events, from one file to the next."""
        if self._stop():
            return Poll([], done=True)
        if self._failure:  # an engine that retries must not skip the broken file
            raise self._failure
        try:
            return self._poll(most)
        except JobError as error:
            self._failure = error
            raise

    def _poll(self, most: int) -> Poll:
        envelopes: list[Envelope] = []
        size = 0
        while len(envelopes) < most and size < POLL_BYTES:
            envelope = next(self._records, None)
            if envelope is not None:
                envelopes.append(envelope)
                size += len(envelope.body)
                continue
            path = self._next_file()
            if path is None:
                return Poll(envelopes, done=not self._follow)
            self._records = read_envelopes(path)
        return Poll(envelopes)

    def close(self) -> None:
        """Nothing to close."""

    def commit(self, handle: Any) -> None:
        """Do nothing: files stay, and a restart reads them again."""

    def oldest(self) -> float:
        """Now: a file does not say when its events come."""
        return time.time()

    def _next_file(self) -> str | None:
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_S or not self._follow:
            self._looked = now
            self._left = [path for path in list_files(self._directory) if path not in self._seen]
        while self._left:
            path = self._left.pop(0)
            self._seen.add(path)
            if sum(path.encode()) % self._readers == self._index:
                return path
        return None


def list_files(directory: str, pattern: str = "*.avro") -> list[str]:
    """The finished files of a folder, local or gs://, in the order of their names; none when it is not there yet."""
    try:
        (match,) = FileSystems.match([f"{directory}/{pattern}"])
    except Exception as error:  # Beam wraps whatever a file system raises
        raise JobError(f"{directory} cannot be listed ({error})", "See that it can be read") from error
    names = sorted(metadata.path for metadata in match.metadata_list)
    return [path for path in names if not path.rpartition("/")[2].startswith(".")]


def read_envelopes(path: str) -> Iterator[Envelope]:
    """The records of a container file as messages, bytes verbatim.

    Two kinds become dead letters when they are decoded, and their note says why: records of a schema that is no version
    of ours, and bytes of a block that cannot be separated into records.
    Raises JobError for a file that is no container, or is cut short.
    """
    try:
        with FileSystems.open(path, "application/octet-stream") as file:
            container = ContainerReader(file)
            schema_id = fingerprint(container.schema) if isinstance(container.schema, dict) else "no record"
            name, note = _text(path.rpartition("/")[2]), "" if is_known(schema_id) else _schema_note(container.schema)
            for record in container.records():
                yield _envelope(name, schema_id, record, note)
    except JobError:
        raise
    except Exception as error:  # fastavro has no common base: EOFError, ValueError, StopIteration, …
        happened = f"{path} cannot be read ({type(error).__name__}: {error})"
        raise JobError(happened, "Take the file away, or write it again: launch again into the folder") from error


def _schema_note(written: Any) -> str:
    text = json.dumps(written)
    return f"it was written with the schema {text[:_LONGEST_NOTE]}{'…' * (len(text) > _LONGEST_NOTE)}"


def _envelope(name: str, schema_id: str, record: Stored, note: str) -> Envelope:
    values = record.values if isinstance(record.values, dict) else {}
    attributes = {"schema": schema_id}
    for field in ("event_id", "retailer_id", "campaign_id", "launch_id"):
        if values.get(field):
            attributes[field] = _text(values[field])
    published = values.get("emitted_at", values.get("published_at", 0))
    return Envelope(
        f"{name}:{record.number}",
        attributes,
        record.body,
        published if isinstance(published, int) else 0,
        f"{record.problem}; {note}" if record.problem and note else record.problem or note,
    )


def _text(value: Any) -> str:
    """A value as valid UTF-8 text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
