"""A retailer's own Liquid text in place of the vendor's template: parsed once, rendered for each message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from liquid import BoundTemplate, Environment
from liquid.exceptions import LiquidError, LiquidTypeError
from liquid.filter import string_filter
from liquid.token import Token

from stores.vendors.message_fields import message_fields

MAX_TEXT = 256 << 10  # bytes of a rendered text, and of what a template may keep in variables
MAX_LOOPS = 10_000
_FORBIDDEN = ("include", "render")  # there are no other files
REJECTED = "template_error"


class TemplateError(ValueError):
    """A template that cannot be used, or not for this message; says line and problem."""


class Contents(NamedTuple):
    """The texts by the places of their events (None: the vendor's template holds), the places without any and the
    reason, and what the first of these failed by."""

    texts: dict[int, str | None]
    broken: dict[int, str]
    words: str


class _Sandboxed(Environment):
    """Liquid without other files, and with limits. A name that is not there renders as nothing, as at the vendor."""

    loop_iteration_limit = MAX_LOOPS
    output_stream_limit = MAX_TEXT
    local_namespace_limit = MAX_TEXT

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        super().setup_tags_and_filters(extra=False)
        for name in _FORBIDDEN:
            self.tags.pop(name, None)
        self.filters["replace"] = _replace(self.filters["replace"])

    def error(self, exc: type[LiquidError] | LiquidError, msg: str | None = None, token: Token | None = None) -> None:
        """Raises; an error at the end of an expression is given the place of that expression."""
        if isinstance(exc, LiquidError) and exc.token is not None and exc.token.start_index < 0:
            exc.token = token
        super().error(exc, msg, token)


def _replace(real: Any) -> Any:
    """The filter, but it refuses a text that would be over the limit before it makes it."""

    @string_filter
    def replace(value: str, old: object, new: object = "") -> Any:
        if value.count(str(old)) * len(str(new)) > MAX_TEXT:
            raise LiquidTypeError("the text is too long", token=None)
        return real(value, old, new)

    return replace


_PLAIN, _HTML = _Sandboxed(), _Sandboxed(autoescape=True)


def check_template(text: str) -> str | None:
    """What is wrong with a template, with the line, or None: its syntax, tags and filters."""
    template = _parsed(text, False)
    if isinstance(template, str):
        return template
    for name, places in template.analyze().filters.items():
        if name not in _PLAIN.filters:
            return f"line {text.count(chr(10), 0, places[0].index) + 1}: unknown filter {name!r}"
    return None


def render(text: str, event: Mapping[str, Any]) -> str:
    """A template's text for an event: its message_fields and customer_id, retailer_id and recipient.

    Values are escaped for HTML on the channel email. Raises TemplateError.
    """
    template = _parsed(text, event["channel"] == "email")
    if isinstance(template, str):
        raise TemplateError(template)
    own = {name: event[name] for name in ("customer_id", "retailer_id", "recipient")}
    try:
        return template.render(message_fields(event) | own)
    except LiquidError as error:
        raise TemplateError(_words(error, text)) from error
    except Exception as error:  # a template can provoke anything: overflow, recursion, too large a number
        raise TemplateError(f"{type(error).__name__}: {error}") from error


def contents(templates: Mapping[str, str], events: Sequence[Mapping[str, Any]]) -> Contents:
    """The texts of a call's events; one whose template fails does not keep the others."""
    texts: dict[int, str | None] = {}
    broken: dict[int, str] = {}
    for place, event in enumerate(events):
        template = templates.get(event["template"] or "")
        try:
            texts[place] = None if template is None else render(template, event)
        except TemplateError as error:
            broken[place] = f"template {event['template']}: {error}"
    return Contents(texts, dict.fromkeys(broken, REJECTED), next(iter(broken.values()), ""))


@lru_cache(maxsize=1024)
def _parsed(text: str, html: bool) -> BoundTemplate | str:
    """The template, or what is wrong with it; neither is worked out twice."""
    try:
        return (_HTML if html else _PLAIN).from_string(text)
    except LiquidError as error:
        return _words(error, text)
    except RecursionError:
        return "line 1: nested too deeply"


def _words(error: LiquidError, text: str) -> str:
    """The line and the problem; an error without a place is one at the end."""
    context = error.context()
    return f"line {context[0] if context else text.count(chr(10)) + 1}: {error.message}"
