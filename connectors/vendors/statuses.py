"""The meaning of an HTTP status for a call, by vendor: data, each entry with its reason.

The default is conservative: only a status of which the vendor's documentation, or HTTP itself, says that nothing was
sent counts as not sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Meaning(NamedTuple):
    """The kind of the answer (schemas/delivery.Answer), why, and whether one bad recipient may be the cause."""

    kind: Literal["refused", "blocked", "slow_down", "failed", "unknown"]
    why: str
    divisible: bool = False


ANY_VENDOR: Mapping[int, Meaning] = {
    400: Meaning("refused", "the request was not understood: nothing was sent", divisible=True),
    401: Meaning("blocked", "the key is wrong: it says nothing about recipients"),
    403: Meaning("blocked", "the key may not send: it says nothing about recipients"),
    404: Meaning("blocked", "the address is wrong: it says nothing about recipients"),
    408: Meaning("unknown", "the server gave up waiting: a proxy may have passed the request on"),
    409: Meaning("unknown", "a call with the same idempotency key is under way, and may succeed"),
    413: Meaning("refused", "the payload is too large: nothing was sent", divisible=True),
    422: Meaning("refused", "the content was refused: nothing was sent", divisible=True),
    429: Meaning("slow_down", "over the rate limit: nothing was sent"),
}
BY_VENDOR: Mapping[str, Mapping[int, Meaning]] = {
    # Braze documents no 5xx as "not sent": a gateway in front of it may answer so for a request that went through.
    "braze": {},
    "webhook": {
        503: Meaning("failed", "docs/delivery.md: a receiver answers 503 only when it has taken nothing"),
    },
}
_REDIRECT = Meaning("blocked", "redirects are not followed: the address is wrong")
_OTHER_4XX = Meaning("blocked", "no recipient is known to be the cause: the workspace waits")
_OTHER = Meaning("unknown", "the request went out, and the status does not prove that nothing was sent")


def meaning(vendor: str, status: int) -> Meaning:
    """The meaning of a status other than 2xx from this vendor."""
    known = BY_VENDOR.get(vendor, {}).get(status) or ANY_VENDOR.get(status)
    if known is not None:
        return known
    if 300 <= status < 400:
        return _REDIRECT
    return _OTHER_4XX if 400 <= status < 500 else _OTHER
