"""What a template and a vendor see of an event: flat, with the launch's own names on top."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def message_fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event's properties by their names, and beside them event_id, launch_id, campaign_id, channel, template,
    variant, experiment and offers, which win over properties of the same names. Times are ISO 8601 in UTC."""
    experiment = event["experiment"] or {}
    return {
        **event["properties"],
        "event_id": event["event_id"],
        "launch_id": event["launch_id"],
        "campaign_id": event["campaign_id"],
        "channel": event["channel"],
        "template": event["template"],
        "experiment": experiment.get("key"),
        "variant": experiment.get("variant"),
        "offers": [{**offer, "expires_at": iso(offer["expires_at"])} for offer in event["offers"]],
    }


def iso(milliseconds: int | None) -> str | None:
    """A time as ISO 8601 in UTC, to the second."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
