"""A key is cut out of a vendor's words in every spelling; words that do not quote it stay."""

from __future__ import annotations

import base64
import html
import json
import logging
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plain_server import says, server
from support.vendor_calls import KEY, any_account, any_call, opened

from connectors.vendors.answers import mask_key
from connectors.vendors.braze import Braze
from connectors.vendors.open import make_vendor
from schemas.delivery import Answer
from schemas.redact import clean_answer, redact

ODD = 'ab/C+d="f&g<h-0123456789-ümlaut-xyz'
ENCODINGS: dict[str, Callable[[str], str]] = {
    "whole": str,
    "capitals": str.upper,
    "bearer": lambda key: f"Bearer {key}",
    "percent": lambda key: quote(key, safe=""),
    "percent, in part": quote,
    "percent, small": lambda key: quote_plus(key).lower(),
    "percent, all": lambda key: "".join(f"%{byte:02X}" for byte in key.encode()),
    "json": json.dumps,
    "json in UTF-8": lambda key: json.dumps(key, ensure_ascii=False),
    "json in json": lambda key: json.dumps(json.dumps(key)),
    "json, all": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "json, slashes": lambda key: key.replace("/", "\\/"),
    "html": html.escape,
    "html, all": lambda key: "".join(f"&#{ord(character)};" for character in key),
    "percent in percent": lambda key: quote(quote(key, safe=""), safe=""),
    "json in percent": lambda key: quote(json.dumps(key), safe=""),
    "hex": lambda key: key.encode().hex(),
    "python": repr,
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("key", [KEY, ODD])
def test_a_key_is_cut_out_in_every_spelling(name: str, key: str) -> None:
    cut = redact(f"before {ENCODINGS[name](key)} behind", key)
    assert cut.startswith("before ")
    assert cut.endswith(" behind")
    assert leaked(cut, key) == set()
    assert len(cut) < 40


@pytest.mark.parametrize("before", ["", "B", "Bearer ", "user:", "x:y:"])
@pytest.mark.parametrize("behind", ["", "z", "zz", ":password"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_key_is_cut_out_whatever_stands_around_it(
    before: str, behind: str, encode: Callable[[bytes], bytes]
) -> None:
    for key in (KEY, ODD):
        encoded = encode((before + key + behind).encode()).decode()
        for text in (encoded, quote(encoded, safe=""), json.dumps(encoded)):
            left = redact(text, key)
            assert longest_common(unquote(left), encode(key.encode()).decode()) < 8
            assert len(left) < len(text) - len(key)


def leaked(text: str, key: str) -> set[str]:
    """The parts of a key of 8 characters that a text has."""
    shown = (text + html.unescape(text) + unquote(text)).lower()
    return {key[at : at + 8] for at in range(len(key) - 7) if key[at : at + 8].lower() in shown}


def longest_common(one: str, other: str) -> int:
    """The length of the longest run that both have."""
    runs = (one[at : at + size] for size in range(len(one), 0, -1) for at in range(len(one) - size + 1))
    return next((len(run) for run in runs if run in other), 0)


@given(st.integers(0, 30), st.integers(8, 36), st.sampled_from(sorted(ENCODINGS)), st.text(max_size=20))
def test_parts_of_a_key_of_8_characters_and_more_are_cut_out(start: int, size: int, name: str, around: str) -> None:
    part = ODD[start : start + size]
    if len(part) >= 8:
        assert leaked(redact(f"{around} {ENCODINGS[name](part)} {around}", ODD), ODD) == set()


@pytest.mark.parametrize("text", ["", "no such campaign", "key-tha is short", "Näme %41 & \\n", "…", "😀" * 10])
def test_words_that_do_not_quote_the_key_stay_as_they_are(text: str) -> None:
    assert redact(text, KEY) == text
    assert redact(text, "") == text


def test_a_short_key_is_cut_out_as_a_whole() -> None:
    assert redact("the key abc is not good", "abc") == "the key … is not good"
    assert redact("0123456789abcdef-35-61", "z") == "0123456789abcdef-35-61"


def test_no_part_of_an_answer_quotes_the_key() -> None:
    account = any_account("http://x")
    answer = Answer("sent", f"x-{KEY}", f"it says {KEY[:12]}", f"id-{KEY[3:]}", {1: f"bad {KEY}", 2: "vendor_error"})
    cleaned = clean_answer(answer, account)
    assert leaked(repr(cleaned), KEY) == set()
    assert cleaned == Answer("sent", "x-…", "it says …", "id-…", {1: "bad …", 2: "vendor_error"})


def test_an_answer_without_secrets_stays_as_it_is() -> None:
    answer = Answer("slow_down", "http_429", "come again", None, {}, 7.5, divisible=True)
    assert clean_answer(answer, any_account("http://x")) == answer
    assert clean_answer(Answer("sent", vendor_id="0123-abc.avro"), any_account("http://x")).vendor_id == "0123-abc.avro"


@pytest.mark.parametrize(
    ("given_id", "kept"),
    [
        ("a" * 1_000_000, "a" * 128), ("a\r\nINFO forged", "a__INFO_forged"), ("\x1b[31mred", "__31mred"), ("", None),
        ("<script>", "_script_"), ("5f3c:a/b+c=", "5f3c:a/b+c="),
    ],
)  # fmt: skip
def test_a_vendors_id_is_short_and_of_plain_characters(given_id: str, kept: str | None) -> None:
    assert clean_answer(Answer("sent", vendor_id=given_id), any_account("http://x")).vendor_id == kept


def test_the_vendors_words_make_no_lines_of_their_own() -> None:
    assert mask_key("a\nERROR forged\x1b[2J\u2028b", any_account("http://x")) == "a ERROR forged [2J b"


def replies() -> Iterator[bytes]:
    """Replies of vendors that quote the key wherever they can."""
    for status in ("200 OK", "400 Bad", "401 No", "429 Slow", "500 Broken", "302 Found"):
        bodies = [
            {"message": "success", "dispatch_id": KEY, "id": KEY, "errors": [f"bad: {KEY}"]},
            {"message": f"Bearer {KEY}", "errors": [{"index": 0, "message": quote(KEY, safe="")}]},
            {"message": {"key": KEY}},
            KEY,
        ]
        for body in bodies:
            data = json.dumps(body).encode()
            head = f"HTTP/1.1 {status} {KEY}\r\nx-key: {KEY}\r\nlocation: http://{KEY}/\r\ncontent-length: {len(data)}\r\n\r\n"
            yield head.encode() + data
    yield f"HTTP/1.1 2{KEY}\r\n\r\n".encode()
    yield f"{KEY}\r\n\r\n".encode()


@pytest.mark.parametrize("reply", [*replies()])
@pytest.mark.parametrize("name", ["braze", "webhook"])
def test_the_answer_of_a_vendor_that_quotes_the_key_is_clean(
    name: str, reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with server(says(reply, ends=True)) as url, caplog.at_level(logging.DEBUG):
        account = any_account(url)
        vendor = opened(make_vendor(name))
        answer = clean_answer(vendor.send(account, any_call()), account)
        vendor.close()
    assert leaked(repr(answer), KEY) == set()
    assert leaked(caplog.text, KEY) == set()


def test_a_key_that_no_header_can_hold_is_in_no_error() -> None:
    key = f"{KEY}\nx"
    account = any_account("http://127.0.0.1:9/", key=key)
    answer = clean_answer(opened(Braze()).send(account, any_call()), account)
    assert answer.reason == "bad_configuration"
    assert leaked(repr(answer), key) == set()
