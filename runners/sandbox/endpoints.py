"""The vendor's endpoints: check a body as its API does, and reply with the messages that are sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

Json = Any
LIMIT = 50  # recipients, or objects, in one call
IDENTIFIERS = ("external_user_id", "user_alias", "email", "braze_id")
TRACKED = ("attributes", "events", "purchases")


class Verdict(NamedTuple):
    """The vendor's reply to a body, and what it sends: the event ids (None: a message without one)."""

    status: int
    reply: dict[str, Json]
    accepted: Sequence[str | None] = ()
    rejected: int = 0
    collapsed: int = 0


def refusal(status: int, message: str) -> Verdict:
    """Nothing is sent."""
    return Verdict(status, {"message": message})


def campaign_of(body: Json) -> str:
    """The campaign a body is for; empty when it names none."""
    found = body.get("campaign_id", body.get("campaign", "")) if isinstance(body, dict) else ""
    return found if isinstance(found, str) else ""


def recipients_of(body: Json) -> list[str]:
    """The external user ids a body names, whichever endpoint it is for."""
    if not isinstance(body, dict):
        return []
    lists = [body.get(name) for name in ("recipients", *TRACKED)]
    objects = [item for items in lists if isinstance(items, list) for item in items if isinstance(item, dict)]
    ids = [one.get("external_user_id", one.get("external_id", one.get("customer_id"))) for one in objects]
    return [one for one in ids if isinstance(one, str)]


def event_ids_of(body: Json) -> list[str]:
    """The event ids that a body of a send or of a webhook names."""
    if not isinstance(body, dict):
        return []
    objects = [one for name in ("recipients", "events") if isinstance(body.get(name), list) for one in body[name]]
    ids = [_event_id(one.get("trigger_properties", one), None) for one in objects if isinstance(one, dict)]
    return [one for one in ids if one is not None]


def trigger_send(body: Json, bad: Collection[str] = (), form: str = "named") -> Verdict:
    """The reply to POST /campaigns/trigger/send; recipients in `bad` get an error of that form and no message."""
    if not isinstance(body, dict) or not campaign_of(body):
        return refusal(400, "The campaign_id is required")
    recipients, broadcast = body.get("recipients"), body.get("broadcast") is True
    if broadcast and not recipients:
        return Verdict(201, {"dispatch_id": uuid4().hex, "message": "success"})
    if broadcast or not isinstance(recipients, list) or not recipients:
        return refusal(400, "Give recipients, or broadcast without any")
    if len(recipients) > LIMIT:
        return refusal(400, f"At most {LIMIT} recipients are allowed")
    for place, one in enumerate(recipients):
        if wrong := _wrong_recipient(one):
            return refusal(400, f"recipients[{place}]: {wrong}")
    common = body.get("trigger_properties")
    seen, accepted, errors = set(), [], []
    for place, one in enumerate(recipients):
        identity = next((name, str(one[name])) for name in IDENTIFIERS if name in one)
        if identity[1] in bad and form != "vague":
            errors.append(_error(place, identity[1], form))
        elif identity not in seen:
            seen.add(identity)
            accepted.append(_event_id(one.get("trigger_properties"), common))
    listed = ["Some recipients could not be reached"] if bad and form == "vague" else errors
    reply: dict[str, Json] = {"dispatch_id": uuid4().hex, "message": "success"}
    collapsed = len(recipients) - len(accepted) - len(errors)
    return Verdict(201, {**reply, "errors": listed} if listed else reply, accepted, len(errors), collapsed)


def _wrong_recipient(one: Json) -> str | None:
    if not isinstance(one, dict):
        return "no object"
    if sum(name in one for name in IDENTIFIERS) != 1:
        return f"exactly one of {', '.join(IDENTIFIERS)} is needed"
    if "external_user_id" in one and not (isinstance(one["external_user_id"], str) and one["external_user_id"]):
        return "external_user_id must be a text"
    if one.get("send_to_existing_only") is False and ("user_alias" in one or "attributes" not in one):
        return "send_to_existing_only false needs attributes, and no user_alias"
    if not isinstance(one.get("trigger_properties", {}), dict):
        return "trigger_properties must be an object"
    return None


def _error(place: int, name: str, form: str) -> Json:
    if form == "indexed":
        return {"type": "the recipient cannot be reached", "input_array": "recipients", "index": place}
    return f"The recipient with external_user_id '{name}' cannot be reached"


def _event_id(own: Json, common: Json) -> str | None:
    for properties in (own, common):
        if isinstance(properties, Mapping) and isinstance(properties.get("event_id"), str):
            return str(properties["event_id"])
    return None


def users_track(body: Json, bad: Collection[str] = (), form: str = "named") -> Verdict:
    """The reply to POST /users/track; sound objects are processed also when others are not."""
    if not isinstance(body, dict) or not any(body.get(name) for name in TRACKED):
        return refusal(400, "Give attributes, events or purchases")
    lists = {name: body[name] for name in TRACKED if name in body}
    if not all(isinstance(objects, list) for objects in lists.values()):
        return refusal(400, "attributes, events and purchases are lists")
    if sum(map(len, lists.values())) > LIMIT:
        return refusal(400, f"At most {LIMIT} objects are allowed")
    reply: dict[str, Json] = {"message": "success"}
    errors = []
    for name, objects in lists.items():
        wrong = [(index, _wrong_object(name, one, bad)) for index, one in enumerate(objects)]
        found = [{"type": text, "input_array": name, "index": index} for index, text in wrong if text]
        reply[f"{name}_processed"] = len(objects) - len(found)
        errors += found
    return Verdict(201, {**reply, "errors": errors} if errors else reply, rejected=len(errors))


def _wrong_object(kind: str, one: Json, bad: Collection[str]) -> str | None:
    if not isinstance(one, dict):
        return "no object"
    if sum(name in one for name in ("external_id", "user_alias", "email", "braze_id")) != 1:
        return "exactly one identifier is needed"
    needed = {"attributes": (), "events": ("name", "time"), "purchases": ("product_id", "currency", "price", "time")}
    missing = [name for name in needed[kind] if name not in one]
    if missing:
        return f"{', '.join(missing)} is missing"
    return "the user is unknown" if one.get("external_id") in bad else None


def webhook(body: Json, bad: Collection[str] = (), form: str = "named") -> Verdict:
    """The reply of a generic receiver of events."""
    events = body.get("events") if isinstance(body, dict) else None
    if not isinstance(events, list) or not all(isinstance(one, dict) and "event_id" in one for one in events):
        return refusal(400, "Give events, each with an event_id")
    places = [place for place, one in enumerate(events) if one.get("customer_id") in bad and form != "vague"]
    errors: list[Json] = [_error(place, str(events[place]["customer_id"]), form) for place in places]
    if bad and form == "vague":
        errors = ["Some recipients could not be reached"]
    accepted: list[str | None] = [str(one["event_id"]) for place, one in enumerate(events) if place not in places]
    return Verdict(200, {"errors": errors} if errors else {}, accepted, len(places))


ENDPOINTS: dict[str, Callable[[Json, Collection[str], str], Verdict]] = {
    "/campaigns/trigger/send": trigger_send,
    "/users/track": users_track,
    "/webhook": webhook,
}
SEND = "/campaigns/trigger/send"
WEBHOOK = "/webhook"
