"""Builds the recipients of a call as JSON: an event that fails does not keep the others from being sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from connectors.vendors.liquid_text import Contents, render_all

UNUSABLE = "unusable_event"
_MOST_WORDS = 500
Event = Mapping[str, Any]
Build = Callable[[Event, str | None], Any]
T = TypeVar("T")
_json = msgspec.json.Encoder().encode


class Recipients(NamedTuple):
    """The recipients of a call as a JSON array, and the places of their events; the places of the events that failed,
    with the reason; and the text of these failures."""

    encoded: msgspec.Raw
    places: list[int]
    broken: dict[int, str]
    words: str


def make_recipients(templates: Mapping[str, str], events: Sequence[Event], build: Build) -> Recipients:
    """The recipients that `build` returns for each event and its text (None: the vendor's template is used). An event
    whose template fails is left out as `template_error`, any other that fails as `unusable_event`."""
    texts = _texts(templates, events)
    try:
        encoded = _json([build(events[at], text) for at, text in texts.texts.items()])
        return Recipients(msgspec.Raw(encoded), list(texts.texts), texts.broken, texts.words)
    except Exception:  # whatever it is, it is some event's: one by one they show whose
        places = list(texts.texts)
        recipients, broken, detail = make_each(places, lambda at: _json(build(events[at], texts.texts[at])), events)
    encoded = b"[" + b",".join(recipients.values()) + b"]"
    detail = "; ".join(filter(None, (texts.words, detail)))[:_MOST_WORDS]
    return Recipients(msgspec.Raw(encoded), list(recipients), {**texts.broken, **broken}, detail)


def make_each(
    places: Sequence[int], make: Callable[[int], T], events: Sequence[Event]
) -> tuple[dict[int, T], dict[int, str], str]:
    """The results of `make` for each place of these events; the places where it raises, each with `unusable_event`; and
    the text of these failures."""
    results: dict[int, T] = {}
    failures: dict[int, str] = {}
    for place in places:
        try:
            results[place] = make(place)
        except Exception as error:  # whatever is wrong with an event is that event's
            failures[place] = f"event {events[place].get('event_id')}: {type(error).__name__}: {error}"
    return results, dict.fromkeys(failures, UNUSABLE), "; ".join(failures.values())[:_MOST_WORDS]


def _texts(templates: Mapping[str, str], events: Sequence[Event]) -> Contents:
    """The texts of all events; if rendering them together raises, one by one."""
    try:
        return render_all(templates, events)
    except Exception:
        results, failed, detail = make_each(range(len(events)), lambda at: render_all(templates, [events[at]]), events)
    texts = {at: result.texts[0] for at, result in results.items() if result.texts}
    broken = {at: result.broken[0] for at, result in results.items() if result.broken}
    details = [detail, *(result.words for result in results.values())]
    return Contents(texts, {**failed, **broken}, "; ".join(filter(None, details))[:_MOST_WORDS])
