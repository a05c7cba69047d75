"""Turns a vendor's HTTP replies into answers: the outcome of a call, when to retry, which recipients failed."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from connectors.vendors.http_client import CannotSend, Headers, HttpClient, NoAnswer, NotSent, Reply, Withdrawn
from connectors.vendors.statuses import meaning
from schemas.delivery import Account, Answer, Begin
from schemas.redact import clean_words

MAX_PAYLOAD = 4_000_000
LONGEST_WAIT_S = 3600.0  # the limits reset on the clock hour, so a longer wait is never needed
_EPOCH = 1e9  # a reset above this is a time, below it is seconds from now
_SHORT = 4  # an id of fewer characters may be a number or a word of the text: it counts only in quotes


class HttpVendor:
    """The base of vendors over HTTP: the clock (epoch seconds) and the connections."""

    name: str

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._http: HttpClient | None = None

    def open(self) -> None:
        """Make ready to connect."""
        self._http = HttpClient()

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()

    def post(self, account: Account, url: str, body: bytes, headers: Headers, begin: Begin) -> Reply | Answer:
        """The reply to a POST of JSON if it is a complete 2xx; else the answer for it, or for the missing reply."""
        assert self._http is not None, "open() comes first"
        if len(body) > MAX_PAYLOAD:
            return Answer("refused", "payload_over_4_mb", f"{len(body):,} bytes", divisible=True)
        headers = {"Content-Type": "application/json", **headers}
        try:
            reply = self._http.post(url, body, headers, account.timeout_s, begin)
        except CannotSend as error:
            return Answer("blocked", "bad_configuration", str(error))
        except NotSent as error:
            return Answer("failed", "no_connection", str(error))
        except Withdrawn as error:
            return Answer("withdrawn", "withdrawn", str(error))
        except NoAnswer as error:
            return Answer("unknown", "no_answer", str(error))
        if reply.to_all and reply.whole and 200 <= reply.status < 300:
            return reply
        return answer_of(self.name, reply, account, self._clock())


def answer_of(vendor: str, reply: Reply, account: Account, now: float) -> Answer:
    """The answer for a reply that is no complete 2xx to a complete request. `now` is epoch seconds."""
    proof = meaning(vendor, reply.status)
    if not reply.to_all and proof.kind == "unknown":
        return Answer("failed", "no_connection", f"status {reply.status} before the request was complete")
    if 200 <= reply.status < 300:
        return Answer("unknown", "no_answer", "the reply broke off")
    detail = mask_key(message_of(read_json(reply.body)) or proof.why, account)
    wait_s = retry_after(reply.headers, now) if proof.kind == "slow_down" else None
    return Answer(proof.kind, f"http_{reply.status}", detail, retry_after_s=wait_s, divisible=proof.divisible)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait before the next call, at most an hour; None when no header says it.

    `retry-after` (seconds, or a date), then `x-ratelimit-retry-after`, then `x-ratelimit-reset` (the vendor's
    documentation has epoch seconds, some of its servers send seconds); the first that can be read counts.
    """
    for name in ("retry-after", "x-ratelimit-retry-after", "x-ratelimit-reset"):
        seconds = _seconds(headers.get(name, "").strip(), now)
        if seconds is not None:
            return min(max(seconds, 0.0), LONGEST_WAIT_S)
    return None


def _seconds(text: str, now: float) -> float | None:
    try:
        number = float(text)
    except ValueError:
        try:
            return parsedate_to_datetime(text).timestamp() - now
        except ValueError:
            return None
    if not math.isfinite(number):
        return None
    return number - now if number > _EPOCH else number


def read_json(body: bytes) -> Any:
    """The JSON value of a body; None when it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def message_of(data: Any) -> str | None:
    """The vendor's `message`, with its errors behind it."""
    if not isinstance(data, dict):
        return None
    message = data.get("message")
    parts = [str(message)] if message is not None else []
    return "; ".join([*parts, *map(error_words, errors_of(data))])


def errors_of(data: Any) -> list[Any]:
    """The `errors` of a reply."""
    errors = data.get("errors") if isinstance(data, dict) else None
    return errors if isinstance(errors, list) else [] if not errors else [errors]


def error_words(error: Any) -> str:
    """An error as text."""
    return error if isinstance(error, str) else msgspec.json.encode(error).decode()


def mask_key(words: str, account: Account) -> str:
    """A vendor's text, shortened, and with … in place of the key."""
    return clean_words(words, account.key)


def find_rejected(errors: Sequence[Any], customers: Sequence[str]) -> dict[int, str]:
    """The places of the recipients that failed, with the reason: an error has an index, or names exactly one of them.
    `customers` are the external ids in the order of the call. An error that names nobody is left out."""
    return {place: "vendor_error" for error in errors if (place := _place(error, customers)) is not None}


def _place(error: Any, customers: Sequence[str]) -> int | None:
    if isinstance(error, dict):
        index = error.get("index")
        ours = error.get("input_array", "recipients") in ("recipients", "events")
        if type(index) is int and ours:
            return index if 0 <= index < len(customers) else None
    words = error_words(error)
    named = [place for place, customer in enumerate(customers) if _names(words, customer)]
    return named[0] if len(named) == 1 else None


def _names(words: str, customer: str) -> bool:
    if not customer or customer not in words:
        return False
    if any(f"{quote}{customer}{quote}" in words for quote in "'\"`"):
        return True
    return len(customer) >= _SHORT and bool(re.search(rf"(?<![\w@.-]){re.escape(customer)}(?![\w@-]|\.\w)", words))
