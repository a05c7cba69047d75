"""Renders a retailer's own Liquid template for each message, within limits, in place of the vendor's template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from liquid.exceptions import LiquidError

from connectors.vendors.liquid_limits import OverLimit
from connectors.vendors.liquid_parse import Mistake, describe_error, parse_template
from connectors.vendors.message_fields import message_fields

REJECTED = "template_error"
_MOST_OVER = 3  # messages of a call that a template may run over its limits with, before the others are not tried


class TemplateError(ValueError):
    """A template that cannot be used, at all or for this message; the text has line and problem."""


class TemplateOverLimit(TemplateError):
    """A template that takes too much time or memory for this message."""


class Contents(NamedTuple):
    """The texts by the places of their events (None: the vendor's template is used), the places that failed with the
    reason, and the text of the first failure."""

    texts: dict[int, str | None]
    broken: dict[int, str]
    words: str


def render(text: str, event: Mapping[str, Any]) -> str:
    """A template's text for an event: its message_fields and customer_id, retailer_id and recipient. Values are escaped
    for HTML on the channel email. Raises TemplateError."""
    template = parse_template(text, event["channel"] == "email")
    if isinstance(template, Mistake):
        raise TemplateError(str(template))
    identity = {name: event[name] for name in ("customer_id", "retailer_id", "recipient")}
    try:
        return template.render(message_fields(event) | identity)
    except OverLimit as error:
        raise TemplateOverLimit(str(describe_error(error, text))) from error
    except LiquidError as error:
        raise TemplateError(str(describe_error(error, text))) from error


def render_all(templates: Mapping[str, str], events: Sequence[Mapping[str, Any]]) -> Contents:
    """The texts of a call's events; a template that fails for one event does not stop the others. A template that was
    over its limits for three events of the call is not rendered for the rest."""
    texts: dict[int, str | None] = {}
    broken: dict[int, str] = {}
    over: Counter[str] = Counter()
    for place, event in enumerate(events):
        name = event["template"] or ""
        template = templates.get(name)
        try:
            if over[name] >= _MOST_OVER:
                raise TemplateError("was over its limits for others of this call")
            texts[place] = None if template is None else render(template, event)
        except TemplateError as error:
            over[name] += isinstance(error, TemplateOverLimit)
            broken[place] = f"template {event['template']}: {error}"
    return Contents(texts, dict.fromkeys(broken, REJECTED), next(iter(broken.values()), ""))
