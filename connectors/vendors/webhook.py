"""A retailer's own endpoint: events as JSON, signed, with an idempotency key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import msgspec

from connectors.vendors.answers import HttpVendor, errors_of, mask_key, read_json
from connectors.vendors.braze import check_call, success_answer
from connectors.vendors.recipients import make_recipients
from schemas.delivery import Account, Answer, Begin, Call, always


class Webhook(HttpVendor):
    """Posts batches to the account's URL. The receiver drops repeats by the header Idempotency-Key, the batch id, and
    checks the signature; the key itself is never sent. `clock` gives epoch seconds."""

    name = "webhook"

    def send(self, account: Account, call: Call, begin: Begin = always) -> Answer:
        """The answer to one call; any 2xx is success. Raises ValueError as Braze.send."""
        check_call(call)
        recipients = make_recipients(account.templates, call.events, _with_content)
        if not recipients.places:
            return Answer("sent", None, mask_key(recipients.words, account), rejected=recipients.broken)
        about = {"batch_id": call.batch_id, "retailer": account.retailer_id, "campaign": call.vendor_campaign}
        body = msgspec.json.encode({**about, "events": recipients.encoded})
        signed = sign(account.key, body, int(self._clock()))
        headers = {"Idempotency-Key": call.batch_id, "X-Campaigns-Signature": signed}
        reply = self.post(account, account.url, body, headers, begin)
        if isinstance(reply, Answer):
            return reply
        data = read_json(reply.body)
        vendor_id = data.get("id") if isinstance(data, dict) else None
        return success_answer(errors_of(data), vendor_id, account, call, recipients)


def _with_content(event: Mapping[str, Any], content: str | None) -> Mapping[str, Any]:
    return event if content is None else {**event, "content": content}


def sign(key: str, body: bytes, now: int) -> str:
    """The signature header: `t=` epoch seconds, `v1=` HMAC-SHA256 over t, a point and the body, in hex."""
    digest = hmac.new(key.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"
