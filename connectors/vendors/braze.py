"""Braze's REST API: POST /campaigns/trigger/send, up to 50 recipients a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from connectors.vendors.answers import (
    HttpVendor,
    error_words,
    errors_of,
    find_rejected,
    mask_key,
    message_of,
    read_json,
)
from connectors.vendors.message_fields import message_fields
from connectors.vendors.recipients import Recipients, make_recipients
from schemas.delivery import BATCH, Account, Answer, Begin, Call, always

PATH = "/campaigns/trigger/send"


class Braze(HttpVendor):
    """Sends by triggering the vendor campaign. It has no idempotency key: a repeated call sends again. `clock` gives
    epoch seconds."""

    name = "braze"

    def send(self, account: Account, call: Call, begin: Begin = always) -> Answer:
        """The answer to one call. Raises ValueError for more than 50 events, and for a customer with two events: the
        vendor would send one message for both."""
        check_call(call)
        recipients = make_recipients(account.templates, call.events, recipient)
        if not recipients.places:
            return Answer("sent", None, mask_key(recipients.words, account), rejected=recipients.broken)
        body = msgspec.json.encode({"campaign_id": call.vendor_campaign, "recipients": recipients.encoded})
        headers = {"Authorization": f"Bearer {account.key}"}
        url = account.url.rstrip("/") + PATH
        reply = self.post(account, url, body, headers, begin)
        if isinstance(reply, Answer):
            return reply
        return _success(read_json(reply.body), account, call, recipients)


def check_call(call: Call) -> None:
    """Raises ValueError for a call that may not be made."""
    customers = {event["customer_id"] for event in call.events}
    if len(call.events) > BATCH or len(customers) < len(call.events):
        raise ValueError(f"{len(call.events)} events of {len(customers)} customers in one call")


def recipient(event: Mapping[str, Any], content: str | None) -> dict[str, Any]:
    """A recipient for the API. Each has all its properties, also those that the whole call shares: a payload of 50 is
    small, and a message then does not depend on the others."""
    properties = message_fields(event)
    if content is not None:
        properties["content"] = content
    return {"external_user_id": event["customer_id"], "trigger_properties": properties}


def _success(data: Any, account: Account, call: Call, recipients: Recipients) -> Answer:
    """The answer to a 2xx: unless the message is success nothing was sent; errors name single recipients."""
    message = data.get("message") if isinstance(data, dict) else None
    if not isinstance(message, str):
        return Answer("unknown", "unreadable_answer", mask_key(repr(data), account))
    if message.strip().lower() != "success":
        return Answer("refused", "vendor_message", mask_key(message_of(data) or "", account), divisible=True)
    return success_answer(errors_of(data), data.get("dispatch_id"), account, call, recipients)


def success_answer(
    errors: Sequence[Any], vendor_id: object, account: Account, call: Call, recipients: Recipients
) -> Answer:
    """A success, except for the recipients that could not be built or that an error names."""
    reasons = find_rejected(errors, [call.events[place]["customer_id"] for place in recipients.places])
    details = [recipients.words] * bool(recipients.words) + [error_words(error) for error in errors]
    rejected = {**recipients.broken, **{recipients.places[at]: reason for at, reason in reasons.items()}}
    known_id = vendor_id if isinstance(vendor_id, str) else None
    return Answer("sent", None, mask_key("; ".join(details), account), known_id, rejected)
