"""What replies mean, as tables: when to come again, and whom an error is about."""

from __future__ import annotations

from typing import Any

import pytest
from support.vendor_calls import KEY, any_account

from connectors.vendors.answers import find_rejected, mask_key, message_of, read_json, retry_after

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30),
        ({"x-ratelimit-retry-after": "8"}, 8),
        ({"x-ratelimit-reset": str(NOW + 90)}, 90),
        ({"x-ratelimit-reset": "90"}, 90),
        ({"retry-after": "7", "x-ratelimit-retry-after": "8", "x-ratelimit-reset": "9"}, 7),
        ({"x-ratelimit-retry-after": "8", "x-ratelimit-reset": "9"}, 8),
        ({"retry-after": "soon", "x-ratelimit-reset": "9"}, 9),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf", "x-ratelimit-reset": ""}, None),
        ({}, None),
        ({"x-ratelimit-reset": str(NOW - 5)}, 0),
        ({"retry-after": "-3"}, 0),
        ({"x-ratelimit-reset": str(NOW * 1000)}, 3600),
    ],
)
def test_the_wait_is_read_from_the_first_header_that_can_be_read(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, NOW) == pytest.approx(seconds) if seconds is not None else True
    assert (retry_after(headers, NOW) is None) == (seconds is None)


CUSTOMERS = ["cust-1", "cust-12", "7", "ann@example.com", "cust-1-b"]


@pytest.mark.parametrize(
    ("error", "place"),
    [
        ({"type": "bad", "input_array": "recipients", "index": 1}, 1),
        ({"type": "bad", "index": 3}, 3),
        ({"type": "bad", "input_array": "attributes", "index": 1}, None),
        ({"type": "bad", "index": 50}, None),
        ({"type": "bad", "index": True}, None),
        ({"external_user_id": "cust-12", "message": "unknown"}, 1),
        ("user cust-12 is unknown", 1),
        ("user cust-1 is unknown", 0),
        ("ann@example.com bounced.", 3),
        ("unknown: cust-1-b.", 4),
        ("cust-1 and cust-12 are unknown", None),
        ("7 recipients are unknown", None),
        ("the recipient '7' is unknown", 2),
        ("something is wrong", None),
        (None, None),
        (17, None),
    ],
)
def test_an_error_is_about_a_recipient_that_it_points_at_or_names_alone(error: Any, place: int | None) -> None:
    assert find_rejected([error], CUSTOMERS) == ({} if place is None else {place: "vendor_error"})


def test_the_key_is_cut_out_of_what_the_vendor_says_and_long_words_are_cut() -> None:
    assert mask_key(f"no such key {KEY}!", any_account("http://x")) == "no such key …!"
    assert len(mask_key("x" * 10_000, any_account("http://x", key=""))) == 500


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"message": "bad", "errors": ["one", {"two": 2}]}', 'bad; one; {"two":2}'),
        (b'{"message": "bad", "errors": "one"}', "bad; one"),
        (b'{"errors": null}', ""),
        (b"[]", None),
        (b"<html>", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
    ],
)
def test_any_body_at_all_is_read(body: bytes, words: str | None) -> None:
    assert message_of(read_json(body)) == words
