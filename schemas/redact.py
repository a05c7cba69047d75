"""Cuts a key out of a vendor's words: the whole key and parts of it, plain or encoded, one way within another."""

from __future__ import annotations

import base64
import html
import re
from functools import lru_cache

from schemas.delivery import Account, Answer

PART = 8  # characters of a key that count as a part of it
CUT = "…"
_LAYERS = 3  # encodings within each other that are undone
_ESCAPED = re.compile(
    rb"%(?P<percent>[0-9A-Fa-f]{2})|\\u(?P<unicode>[0-9A-Fa-f]{4})|\\x(?P<hex>[0-9A-Fa-f]{2})"
    rb"|\\(?P<plain>[^ux\r\n])|(?P<html>&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});)"
)
_LONGEST_WORDS, _LONGEST_ID = 500, 128
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ODD = re.compile(r"[^A-Za-z0-9._:/+=@~…-]")
_Span = tuple[int, int]


def clean_answer(answer: Answer, account: Account) -> Answer:
    """The answer as it may be kept, logged and shown: nothing in it quotes the account's key, or parts of it. An id of
    the vendor's has at most 128 letters, digits and `-_.:/+=@~`; other characters become `_`."""
    vendor_id = answer.vendor_id
    if vendor_id is not None:
        safe = redact(vendor_id[: 4 * _LONGEST_ID], account.key)
        vendor_id = _ODD.sub("_", safe)[:_LONGEST_ID] or None
    return answer._replace(
        reason=None if answer.reason is None else clean_words(answer.reason, account.key),
        detail=clean_words(answer.detail, account.key),
        vendor_id=vendor_id,
        rejected={place: clean_words(reason, account.key) for place, reason in answer.rejected.items()},
    )


def clean_words(words: str, key: str) -> str:
    """A vendor's words as one line of at most 500 characters, without the key."""
    safe = redact(words[: 4 * _LONGEST_WORDS], key)
    return _CONTROLS.sub(" ", safe)[:_LONGEST_WORDS]


def redact(text: str, key: str) -> str:
    """The text with … for every part of the key that has 8 characters or more, or for the whole of a shorter key.

    Found are the key as it is, in capitals or not, percent-encoded, escaped as JSON or HTML does, up to three of these
    within each other, and its base64 (with whatever stands before or behind it) and hex.
    """
    if not key or not text:
        return text
    matches: list[_Span] = []
    data, spans = _bytes_of(text)
    for _ in range(_LAYERS):
        matches += [(spans[start][0], spans[end - 1][1]) for start, end in _parts(data.lower(), key)]
        if not _ESCAPED.search(data):
            break
        data, spans = _decoded(data, spans)
    else:
        matches += [(spans[start][0], spans[end - 1][1]) for start, end in _parts(data.lower(), key)]
    return _without(text, matches) if matches else text


def _bytes_of(text: str) -> tuple[bytes, list[_Span]]:
    """The text in UTF-8, and for each byte the place of its character."""
    if text.isascii():
        return text.encode(), [(place, place + 1) for place in range(len(text))]
    pieces = [character.encode("utf-8", "surrogatepass") for character in text]
    return b"".join(pieces), [(place, place + 1) for place, piece in enumerate(pieces) for _ in piece]


def _decoded(data: bytes, spans: list[_Span]) -> tuple[bytes, list[_Span]]:
    """The bytes with one layer of escapes undone, and for each byte the place in the text that it came from."""
    decoded, places, at = bytearray(), list[_Span](), 0
    for match in _ESCAPED.finditer(data):
        start, end = match.span()
        value = _value(match)
        decoded += data[at:start] + value
        places += [*spans[at:start], *[(spans[start][0], spans[end - 1][1])] * len(value)]
        at = end
    return bytes(decoded) + data[at:], places + spans[at:]


def _value(match: re.Match[bytes]) -> bytes:
    kind = str(match.lastgroup)
    if kind in ("percent", "hex"):
        return bytes([int(match[kind], 16)])
    if kind == "unicode":
        return chr(int(match[kind], 16)).encode("utf-8", "surrogatepass")
    return bytes(match[kind]) if kind == "plain" else html.unescape(match[kind].decode()).encode()


def _parts(data: bytes, key: str) -> list[_Span]:
    """The places of the bytes, in small letters, where parts of the key are."""
    matches = []
    for size, grams in _grams(key):
        matches += [(at, at + size) for at in range(len(data) - size + 1) if data[at : at + size] in grams]
    return matches


@lru_cache(maxsize=4096)
def _grams(key: str) -> tuple[tuple[int, frozenset[bytes]], ...]:
    """What to look for, by its length: each run of 8 bytes of the key, and what these are in base64 and hex."""
    raw, *others = (spelling.encode("utf-8", "surrogatepass") for spelling in (key, key.upper(), key.lower()))
    size = min(PART, len(raw))
    plain = {run for spelling in (raw, *others) for run in _runs(spelling, size)}
    if size < PART:  # what a short key is in base64 may be anywhere
        return ((size, frozenset(plain)),)
    forms: dict[int, set[bytes]] = {size: plain, 2 * size: _runs(raw.hex().encode(), 2 * size)}
    for before in range(3):  # the three ways in which the key may stand in what was encoded
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The characters at both ends depend on the neighbours.
            encoded = encode(b"\0" * before + raw).rstrip(b"=")
            inner = encoded[-(-before * 4 // 3) if before else 0 : len(encoded) - (1 if (before + len(raw)) % 3 else 0)]
            length = min(len(inner), PART * 4 // 3)
            forms.setdefault(length, set()).update(_runs(inner, length))
    return tuple((size, frozenset(grams)) for size, grams in forms.items())


def _runs(data: bytes, size: int) -> set[bytes]:
    return {data[at : at + size].lower() for at in range(len(data) - size + 1)}


def _without(text: str, matches: list[_Span]) -> str:
    pieces, at = list[str](), 0
    for start, end in sorted(matches):
        if start > at or not pieces:
            pieces.append(text[at:start])
        at = max(at, end)
    return CUT.join([*pieces, text[at:]])
