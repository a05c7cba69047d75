"""Braze's REST API: POST /campaigns/trigger/send, up to 50 recipients a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from connectors.vendors.answers import HttpVendor, attributed, error_words, errors_of, message_of, post, read_json, told
from connectors.vendors.message_fields import message_fields
from connectors.vendors.recipients import Recipients, make_recipients
from schemas.delivery import BATCH, Account, Answer, Begin, Call, always

PATH = "/campaigns/trigger/send"


class Braze(HttpVendor):
    """Sends by triggering the vendor campaign. It has no idempotency key: a repeated call sends again.

    `clock` gives epoch seconds.
    """

    name = "braze"

    def send(self, account: Account, call: Call, begin: Begin = always) -> Answer:
        """The answer to one call. Raises ValueError for more than 50 events, or a customer who is there twice: the
        vendor would make one message of the two."""
        assert self._http is not None, "open() comes first"
        check_call(call)
        made = make_recipients(account.templates, call.events, recipient)
        if not made.places:
            return Answer("sent", None, told(made.words, account), rejected=made.broken)
        body = msgspec.json.encode({"campaign_id": call.vendor_campaign, "recipients": made.encoded})
        headers = {"Authorization": f"Bearer {account.key}"}
        url = account.url.rstrip("/") + PATH
        reply = post(self._http, self.name, account, url, body, headers, self._clock, begin)
        if isinstance(reply, Answer):
            return reply
        return _success(read_json(reply.body), account, call, made)


def check_call(call: Call) -> None:
    """Raises ValueError for a call that may not be made."""
    customers = {event["customer_id"] for event in call.events}
    if len(call.events) > BATCH or len(customers) < len(call.events):
        raise ValueError(f"{len(call.events)} events of {len(customers)} customers in one call")


def recipient(event: Mapping[str, Any], content: str | None) -> dict[str, Any]:
    """A recipient as the API takes it. Each has all its properties, also those that are the same for the whole call:
    a payload of 50 is small, and a message then does not depend on its neighbours."""
    properties = message_fields(event)
    if content is not None:
        properties["content"] = content
    return {"external_user_id": event["customer_id"], "trigger_properties": properties}


def _success(data: Any, account: Account, call: Call, made: Recipients) -> Answer:
    """The answer to a 2xx: the message must be success, or nothing was sent; errors concern some recipients."""
    message = data.get("message") if isinstance(data, dict) else None
    if not isinstance(message, str):
        return Answer("unknown", "unreadable_answer", told(repr(data), account))
    if message.strip().lower() != "success":
        return Answer("refused", "vendor_message", told(message_of(data) or "", account), divisible=True)
    return sent(errors_of(data), data.get("dispatch_id"), account, call, made)


def sent(errors: Sequence[Any], vendor_id: object, account: Account, call: Call, made: Recipients) -> Answer:
    """A success, but for the recipients that could not be made or that an error is about."""
    found = attributed(errors, [call.events[place]["customer_id"] for place in made.places])
    words = told("; ".join([made.words] * bool(made.words) + [error_words(error) for error in errors]), account)
    rejected = {**made.broken, **{made.places[at]: reason for at, reason in found.items()}}
    return Answer("sent", None, words, vendor_id if isinstance(vendor_id, str) else None, rejected)
