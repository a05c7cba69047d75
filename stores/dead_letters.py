"""Dead letters as Avro container files: write a part, read it for a replay."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import fastavro
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from connectors.files.sink import FileSink
from schemas.codec.avro_columns import encode_records
from schemas.contracts import DeadLetter, schema
from schemas.problems import InputError, Problem, shown
from stores.local.disk_space import with_reserve

_SCHEMA, _TYPES = "dead_letter", {"data": pa.large_binary()}


def write_dead_letters(directory: str, part: str, letters: Iterable[DeadLetter]) -> str:
    """Writes DIRECTORY/PART.avro with the letters in sorted order, so that the same letters give the same bytes; its
    path. Text that UTF-8 cannot encode (lone surrogates) is written as backslash escapes; `data` is verbatim. Raises
    JobError when it cannot be written."""
    ordered = sorted(letters)
    columns = {
        name: pa.array([_storable(letter[place]) for letter in ordered], _TYPES.get(name, pa.large_string()))
        for place, name in enumerate(DeadLetter._fields)
    }
    bodies = encode_records(schema(_SCHEMA), columns, len(ordered))
    return with_reserve(Path(directory), lambda: FileSink(directory).write(part, schema(_SCHEMA), bodies))


def _storable(value: str | bytes) -> str | bytes:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def read_dead_letters(path: str) -> list[DeadLetter]:
    """The letters of one file, local or gs://, in its order. Raises InputError for a file that cannot be used."""
    try:
        with FileSystems.open(path, "application/octet-stream") as file:
            return [DeadLetter(**record) for record in fastavro.reader(file, reader_schema=schema(_SCHEMA))]
    except Exception as error:  # fastavro has no common base: EOFError, ValueError, IndexError, zlib.error, …
        raise InputError([Problem(path, "", "dead letters", incomplete_fix("dead letters", error))]) from error


def incomplete_fix(kind: str, error: Exception) -> str:
    """The fix for an Avro file of a kind that cannot be read to its end."""
    cause = shown(str(error), 120) or "its bytes end early"
    return (
        f"is no whole file of {kind} ({cause}); copy it again from where it was written, or move it out of the folder"
    )
