"""The filters of retailers' Liquid: each refuses what is too much before it makes it, and counts what it handles."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from liquid import RenderContext
from liquid.exceptions import LiquidError, LiquidTypeError
from liquid.filter import sequence_filter, string_filter, with_environment
from markupsafe import Markup, escape

from connectors.vendors.liquid_limits import MAX_ITEMS, MAX_TEXT, OverLimit, budget_of, check_weight, weight

_MAX_DATE = 100  # characters of a date and of its format
_WIDE = re.compile(r"%[^A-Za-z%]*\d{3}")
_MAX_URL = 20_000  # characters that are percent-encoded: each may become twelve


def limited(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that refuses what is too much before it makes it."""
    real = OWN.get(name, real)
    check, cost = CHECKS.get(name), COSTS.get(name)
    needs_environment = getattr(real, "with_environment", False)

    @wraps(real)
    def apply(value: object, *arguments: object, context: RenderContext, **named: object) -> Any:
        weights = [weight(value), *map(weight, arguments)]
        if named:
            weights += map(weight, named.values())
        total = sum(weights)
        if total > MAX_TEXT:
            check_weight(total)
        budget_of(context).spend(total if cost is None else cost(weights, value))
        if check is not None:
            check(value, *arguments)
        if needs_environment:
            named["environment"] = context.env
        try:
            result = real(value, *arguments, **named)
        except (LiquidError, TypeError):
            raise
        except Exception as error:  # overflow, no such date, not UTF-8: the filter's place is added to it
            raise LiquidTypeError(f"{name}: {error}", token=None) from error
        check_weight(weight(result))
        return result

    apply.with_context = True  # type: ignore[attr-defined]
    apply.with_environment = False  # type: ignore[attr-defined]
    return apply


def _search(weights: list[int], value: object) -> int:
    """A search takes up to the product of both lengths, but for long needles, which have a faster way."""
    return sum(weights) + weights[0] * min(max(weights[1:], default=0), 128) // 8


def _each(weights: list[int], value: object) -> int:
    """Each item is compared with the arguments, or searched for them."""
    items = len(value) if isinstance(value, list | tuple | range) else 1
    return _search(weights, value) + items * sum(weights[1:])


def _ordered(weights: list[int], value: object) -> int:
    return 16 * _each(weights, value)


def _text(value: object) -> str:
    """A text as the filters take it; in one that is marked as safe the arguments are escaped."""
    return "" if value is None else value if isinstance(value, str) else str(value)


def _check_replace(value: object, old: object = "", new: object = "") -> None:
    text, sought, replacement = _text(value), _text(old), _text(new)
    if isinstance(text, Markup):
        sought, replacement = str(escape(sought)), str(escape(replacement))
    check_weight(len(text) + str.count(text, sought) * len(replacement))


def _check_join(value: object, separator: object = " ") -> None:
    items = len(value) if isinstance(value, list | tuple | range) else 1
    check_weight(weight(value) + items * len(_text(separator)))


def _check_split(value: object, separator: object = None) -> None:
    text, between = _text(value), "" if separator is None else _text(separator)
    parts = len(text) if between == "" else len(text.split()) if between == " " else text.count(between) + 1
    if parts > MAX_ITEMS:
        raise OverLimit(f"an array of more than {MAX_ITEMS:,} items")


def _check_date(value: object, form: object = "") -> None:
    if (isinstance(value, str) and len(value) > _MAX_DATE) or len(_text(form)) > _MAX_DATE:
        raise OverLimit(f"a date, or a form of it, of more than {_MAX_DATE} characters")
    if _WIDE.search(_text(form)):
        raise OverLimit("a date with a width of more than 99")


def _check_url(value: object) -> None:
    if weight(value) > _MAX_URL:
        raise OverLimit(f"more than {_MAX_URL:,} characters to encode")


@sequence_filter
def _uniq(sequence: Any, key: object = None) -> list[object]:
    """The items without those that were there before; the library compares each with every other."""
    seen: set[object] = set()
    odd: list[object] = []
    result = []
    for item in sequence:
        value = item if key is None else item.get(key, _MISSING) if isinstance(item, Mapping) else item[key]
        try:
            known = value in seen
            seen.add(value)
        except TypeError:  # not hashable: an array or a mapping
            known = value in odd
            if not known:
                odd.append(value)
            if len(odd) > 100:
                raise OverLimit("more than 100 mappings to compare with each other") from None
        if not known:
            result.append(item)
    return result


_MISSING = object()
_OPENS = re.compile(r"<(?=[A-Za-z/!?])")
_ENDS = {"<!--": "-->", "<script": "</script", "<style": "</style"}


@with_environment
@string_filter
def _strip_html(text: str, *, environment: Any) -> str:
    """The text without tags, comments, scripts and styles; the library's parser takes the square of its length."""
    parts, at = [], 0
    lower = text.translate(_LOWER)
    while opening := _OPENS.search(text, at):
        parts.append(str(text[at : opening.start()]))
        start = opening.start()
        ends = [end for begin, end in _ENDS.items() if lower.startswith(begin, start)]
        at = _behind(lower, ends, start)
    parts.append(str(text[at:]))
    stripped = "".join(parts)
    return Markup(stripped) if environment.autoescape and isinstance(text, Markup) else stripped


def _behind(lower: str, ends: list[str], start: int) -> int:
    """The place behind what begins at a place; the end of the text when it has no end."""
    end = lower.find(ends[0], start) if ends else start
    if end >= 0:
        end = end + 3 if ends == ["-->"] else lower.find(">", end) + 1
    return end if end > 0 else len(lower)


_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

OWN: dict[str, Callable[..., Any]] = {"uniq": _uniq, "strip_html": _strip_html}
CHECKS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(("replace", "replace_first", "replace_last"), _check_replace),
    "join": _check_join,
    "split": _check_split,
    "date": _check_date,
    "url_encode": _check_url,
}
COSTS: dict[str, Callable[[list[int], object], int]] = {
    **dict.fromkeys(("replace", "replace_first", "replace_last", "remove", "remove_first", "remove_last"), _search),
    "split": _search,
    **dict.fromkeys(("where", "reject", "find", "find_index", "has", "map", "compact", "sum"), _each),
    **dict.fromkeys(("sort", "sort_natural", "uniq"), _ordered),
}
LINEAR = frozenset(
    "abs append at_least at_most base64_decode base64_encode base64_url_safe_decode base64_url_safe_encode capitalize "
    "ceil concat date default divided_by downcase escape escape_once escapejs first floor join last lstrip minus "
    "modulo newline_to_br plus prepend reverse round rstrip safe size slice squish strip strip_html strip_newlines "
    "times truncate truncatewords upcase url_decode url_encode".split()
)
"""The filters whose time and memory are in proportion to what they are given, at most sixfold; looked at one by one."""
FILTERS = LINEAR | COSTS.keys()
"""What a template may use. Another filter of a newer library is left out until somebody has looked at it."""
