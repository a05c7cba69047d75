"""Finding a few fields in many Avro records at once: numpy steps over all of them field by field, and no record
becomes a Python object. fastavro takes 14 µs to read an event, this 2 to find what routes it.

What a scan vouches for is exactly what fastavro would read: varints and lengths in bounds, branches and symbols that
exist, text that is UTF-8, no byte left over; and that the numbers are as the caller needs them: within their limits,
and finite. What it does not vouch for (`sound` is False) it does not judge either: let fastavro read that record and
say what is wrong, if anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Rows = npt.NDArray[np.int64]
_MOST_ITEMS = 1_000  # items of an array or map; longer ones are left to fastavro
_PAD = 16
_FIXED = {"null": 0, "boolean": 1, "float": 4, "double": 8}
_EXPONENTS = {"float": 0x80, "double": 0xF0}  # its bits in the last byte but one; in the last they are 0x7F


class Scan:
    """The top-level fields of records of one parsed schema (contracts.parsed), named in `wanted`.

    Text is `texts(name)`, a float or double `reals[name]`, what else is `wanted` is `numbers[name]`, in the order of
    the bodies; a field that is a union with null has `present[name]`, and zeros where it is null. A record with a
    number outside `limits` (path, such as `offers[].expires_at`, to the least and the greatest) is not sound, and with
    `finite` neither is one with a number that is nan or infinite.
    `bodies` are the records; with `lengths`, those of the records, each of the bodies may be many of them.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        bodies: Sequence[bytes],
        wanted: frozenset[str],
        limits: Mapping[str, tuple[int, int]] = MappingProxyType({}),
        *,
        finite: bool = False,
        lengths: Rows | None = None,
    ) -> None:
        self._wanted, self._limits, self._finite = wanted, limits, finite
        if lengths is None:
            lengths = np.fromiter(map(len, bodies), np.int64, len(bodies))
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self._at = self._starts
        self._data = b"".join([*bodies, bytes(_PAD)])
        self._bytes = np.frombuffer(self._data, np.uint8)
        self._everyone = np.arange(len(lengths))
        self._unchecked: list[tuple[Rows, Rows, Rows]] = []
        self._high_elsewhere = 0
        self._named: dict[str, Mapping[str, Any]] = {}
        self.sound = np.ones(len(lengths), bool)
        self.numbers: dict[str, Rows] = {}
        self.reals: dict[str, npt.NDArray[np.float64]] = {}
        self.present: dict[str, npt.NDArray[np.bool_]] = {}
        self._places: dict[str, tuple[Rows, Rows]] = {}
        for field in schema["fields"]:
            self._walk(field["type"], self._everyone, field["name"])
        self.sound &= self._at == self._ends
        self._check_texts()

    def texts(self, name: str) -> list[str]:
        """The text of a field in every row; empty where it is null, of no meaning where the row is not sound."""
        starts, lengths = self._places[name]
        places = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
        return [self._data[start:end].decode("utf-8", "replace") for start, end in places]

    def array(self, name: str) -> pa.LargeStringArray:
        """The text of a field in every row, null where it is null; every row must be sound."""
        starts, lengths = self._places[name]
        edges = np.stack([starts, starts + lengths], axis=1).ravel()
        both = max(0, len(edges) - 1)  # texts and, between them, what is not theirs
        texts = pa.LargeStringArray.from_buffers(both, pa.py_buffer(edges), pa.py_buffer(self._bytes))
        own = texts.take(pa.array(np.arange(0, both, 2)))
        return own if name not in self.present else pc.if_else(pa.array(self.present[name]), own, None)

    def filled(self, names: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each row has text, and not an empty one, in all of these fields."""
        return np.logical_and.reduce([self._places[name][1] > 0 for name in names])

    def _walk(self, node: Any, rows: Rows, path: str) -> None:
        """Steps over a value in these rows; `path` says where in the record it is."""
        kind = node if isinstance(node, str) else "union" if isinstance(node, list) else node["type"]
        if kind in self._named:
            node = self._named[kind]
            kind = node["type"]
        if isinstance(node, Mapping) and "name" in node:
            self._named[node["name"]] = node
        if kind == "record":
            for field in node["fields"]:
                self._walk(field["type"], rows, f"{path}.{field['name']}")
        elif kind in _FIXED:
            self._fixed(kind, rows, path)
        elif kind in ("int", "long"):
            self._number(rows, path)
        elif kind in ("string", "bytes"):
            self._text(rows, path, check=kind == "string")
        elif kind == "enum":
            symbol = self._varint(rows)
            self._refuse(rows, ~_within(symbol, len(node["symbols"])))
            if path in self._wanted:
                self._keep(path, rows, symbol)
        elif kind == "union":
            self._union(node, rows, path)
        elif kind in ("array", "map"):
            self._items(node, rows, f"{path}[]")
        else:
            self.sound[rows] = False

    def _pick(self, values: Rows, rows: Rows) -> Rows:
        return values if rows is self._everyone else values[rows]

    def _keep(self, path: str, rows: Rows, values: Rows) -> None:
        """Remembers the numbers of a field that is wanted."""
        if rows is self._everyone:
            self.numbers[path] = values
        else:
            self.numbers.setdefault(path, np.zeros(len(self._ends), np.int64))[rows] = values

    def _varint(self, rows: Rows) -> Rows:
        """The zigzag number at each row's place, which moves behind it."""
        at = self._pick(self._at, rows)
        byte = self._bytes[at]
        value = byte.astype(np.int64)
        at = at + 1
        longer = np.flatnonzero(byte > 127)
        if len(longer):
            value[longer] &= 127
        for shift in range(7, 63, 7):  # nine bytes; longer ones are left to fastavro
            if not len(longer):
                break
            self._high_elsewhere += len(longer)
            byte = self._bytes[at[longer]]
            value[longer] |= (byte & 127).astype(np.int64) << shift
            at[longer] += 1
            longer = longer[byte > 127]
        if len(longer):
            self.sound[rows[longer]] = False
        self._move(rows, at)
        return (value >> 1) ^ -(value & 1)

    def _move(self, rows: Rows, at: Rows) -> None:
        ends = self._pick(self._ends, rows)
        over = at > ends
        if over.any():
            self.sound[rows[over]] = False
            at = np.minimum(at, ends)
        if rows is self._everyone:
            self._at = at
        else:
            self._at = self._at.copy() if self._at is self._starts else self._at
            self._at[rows] = at

    def _refuse(self, rows: Rows, wrong: npt.NDArray[np.bool_]) -> None:
        if wrong.any():
            self.sound[rows[wrong]] = False

    def _number(self, rows: Rows, path: str) -> None:
        value = self._varint(rows)
        if path in self._limits:
            least, greatest = self._limits[path]
            self._refuse(rows, (value < least) | (value > greatest))
        if path in self._wanted:
            self._keep(path, rows, value)

    def _fixed(self, kind: str, rows: Rows, path: str) -> None:
        """A value that has the same length in every row."""
        width = _FIXED[kind]
        if not width:
            return
        at = self._pick(self._at, rows)
        cells = self._bytes[at[:, None] + np.arange(width)]  # up to _PAD bytes behind the end there are zeros
        self._high_elsewhere += int(np.count_nonzero(cells > 127))
        if kind == "boolean" and path in self._wanted:
            self._keep(path, rows, (cells[:, 0] != 0).astype(np.int64))
        elif kind != "boolean":
            if self._finite:  # the exponent of what is nan or infinite has all its bits set
                high, low = cells[:, -1] & 0x7F == 0x7F, cells[:, -2] & _EXPONENTS[kind] == _EXPONENTS[kind]
                self._refuse(rows, high & low)
            if path in self._wanted:
                value = cells.view(f"<f{width}").ravel().astype(np.float64)
                if rows is self._everyone:
                    self.reals[path] = value
                else:
                    self.reals.setdefault(path, np.zeros(len(self._ends)))[rows] = value
        self._move(rows, at + width)

    def _text(self, rows: Rows, path: str, check: bool) -> None:
        length = self._varint(rows)
        start = self._pick(self._at, rows)
        wrong = (length < 0) | (length > self._pick(self._ends, rows) - start)
        if wrong.any():
            self.sound[rows[wrong]] = False
            length = np.where(wrong, 0, length)
        if check:
            self._unchecked.append((rows, start, length))
        else:
            self._high_elsewhere += len(self._bytes) + 1  # so many there are not: the texts are looked at
        if path in self._wanted:
            if rows is self._everyone:
                self._places[path] = start, length
            else:
                starts, lengths = self._empty_texts(path)
                starts[rows], lengths[rows] = start, length
        self._move(rows, start + length)

    def _empty_texts(self, path: str) -> tuple[Rows, Rows]:
        return self._places.setdefault(path, (self._starts.copy(), np.zeros(len(self._ends), np.int64)))

    def _check_texts(self) -> None:
        """Text with bytes beyond ASCII is decoded to see whether it is UTF-8. Every byte of sound records is in a text,
        a varint or a fixed value. Where the latter two have all the bytes beyond ASCII, there is no such text."""
        beyond = self._bytes > 127
        if self.sound.all() and np.count_nonzero(beyond) == self._high_elsewhere:
            return
        high = np.zeros(len(beyond) + 1, np.int32)
        np.cumsum(beyond, dtype=np.int32, out=high[1:])
        for rows, start, length in self._unchecked:
            for place in np.flatnonzero(high[start + length] > high[start]):
                try:
                    self._data[start[place] : start[place] + length[place]].decode()
                except UnicodeDecodeError:
                    self.sound[rows[place]] = False

    def _union(self, node: Sequence[Any], rows: Rows, path: str) -> None:
        branch = self._varint(rows)
        self._refuse(rows, ~_within(branch, len(node)))
        for place, kind in enumerate(node):
            here = branch == place
            chosen = rows if here.all() else rows[here]
            if path in self._wanted and kind == "null":
                present = self.present.setdefault(path, np.ones(len(self._ends), bool))
                present[chosen] = False
            elif path in self._wanted and kind == "string" and not (len(chosen) and chosen is self._everyone):
                self._empty_texts(path)
            if len(chosen):
                self._walk(kind, chosen, path)

    def _items(self, node: Mapping[str, Any], rows: Rows, path: str) -> None:
        """Blocks of items until an empty one. A block that says its size in bytes is left to fastavro."""
        while len(rows):
            count = self._varint(rows)
            odd = ~_within(count, _MOST_ITEMS)
            self._refuse(rows, odd)
            rows, count = rows[~odd & (count > 0)], count[~odd & (count > 0)]
            for number in range(int(count.max(initial=0))):
                some = rows[count > number]
                if node["type"] == "map":
                    self._text(some, f"{path}{{}}", check=True)
                self._walk(node["items" if node["type"] == "array" else "values"], some, path)
            self._refuse(rows, self._at[rows] >= self._ends[rows])
            rows = rows[self.sound[rows]]


def _within(value: Rows, limit: Any) -> npt.NDArray[np.bool_]:
    return (value >= 0) & (value < limit)
