"""Text files as UTF-8: gzip is recognised by its first bytes, UTF-16 by its byte-order mark."""

from __future__ import annotations

import codecs
import gzip
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from connectors.tables.sources import open_binary, unusable

BLOCK = 16 << 20
_GZIP = b"\x1f\x8b"
_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_OTHERS = {
    b"PAR1": "a Parquet file; name it .parquet",
    b"Obj\x01": "an Avro file; name it .avro",
    b"PK\x03\x04": "an archive or a workbook of Excel; save the sheet as CSV (UTF-8)",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it, or pack it by gzip",
    b"BZh": "packed by bzip2; unpack it, or pack it by gzip",
    b"\xfd7zXZ": "packed by xz; unpack it, or pack it by gzip",
}


class TextFile:
    """A text file whose lines end in \\n or \\r\\n. A file in UTF-16, or with bare carriage returns as line ends, is
    rewritten into a temporary file. Raises InputError for a file that is no text, or contradicts its name."""

    def __init__(self, source: str, path: Path) -> None:
        self.source, self.name, self.path = source, path.name, path
        with open_binary(path) as file:
            self.packed = file.read(2) == _GZIP
        if path.suffix.lower() == ".gz" and not self.packed:
            raise unusable(source, path.name, "is not packed by gzip though its name says so; take .gz off, or pack it")
        with self.open() as file:
            first = file.read(BLOCK)
        if not first.strip():
            raise unusable(source, path.name, "is empty; write a line for each of what it is to hold")
        for signature, problem in _OTHERS.items():
            if first.startswith(signature):
                raise unusable(source, path.name, f"is {problem}")
        encoding = "utf-16" if first.startswith(_UTF16) and not first.startswith(_UTF32) else "utf-8"
        if encoding == "utf-8" and (place := first.partition(b"\n")[0].find(b"\0")) >= 0:
            fix = f"is not UTF-8 (a zero byte at byte {place + 1}); save it as UTF-8, or as UTF-16 with its mark"
            raise unusable(source, path.name, fix)
        self._rewritten = None
        if encoding == "utf-16" or (b"\r" in first and b"\n" not in first):
            self._rewritten = self._rewrite(encoding)
            self.path, self.packed = Path(self._rewritten.name), False

    def _rewrite(self, encoding: str) -> tempfile._TemporaryFileWrapper[bytes]:
        copy = tempfile.NamedTemporaryFile(prefix="campaigns-", suffix=".txt")  # noqa: SIM115 (it lives as long as this)
        decoder = codecs.getincrementaldecoder(encoding)()
        returns: bool | None = None
        place = 0
        with self.open() as file:
            while block := file.read(BLOCK):
                try:
                    text = decoder.decode(block)
                except UnicodeDecodeError as error:
                    fix = f"is not {encoding.upper()} (about byte {place + error.start + 1}); save it as UTF-8"
                    raise unusable(self.source, self.name, fix) from error
                returns = "\n" not in text if returns is None else returns
                copy.write((text.replace("\r", "\n") if returns else text).encode("utf-8", "surrogatepass"))
                place += len(block)
        if decoder.getstate()[0]:
            raise unusable(self.source, self.name, f"breaks off within a letter of {encoding.upper()}; get it again")
        copy.flush()
        return copy

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The unpacked bytes. Raises InputError where a gzip file breaks off or is damaged."""
        with open_binary(self.path) as file:
            try:
                yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if self.packed else file
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                fix = f"is a gzip file that breaks off or is damaged ({str(error)[:120]}); get it again"
                raise unusable(self.source, self.name, fix) from error
