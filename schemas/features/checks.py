"""What is wrong with a declaration of features: (place, value, remedy) of every mistake."""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from schemas.features.operations import COMPARISONS, MOST_HALVINGS, MOST_LAST, NUMERIC, OPERATIONS, VALUED
from schemas.features.windows import HOPS, duration_ms, hop_of, window_ms

if TYPE_CHECKING:
    from schemas.features.declarations import Aggregation, FeatureGroup, Where

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def group_mistakes(group: FeatureGroup, types: dict[str, str]) -> list[tuple[str, Any, str]]:
    """(place, value, remedy) of what is wrong. `types` are the columns of the source: long, double, boolean or
    string by name."""
    wrong: list[tuple[str, Any, str]] = []
    if not _NAME.fullmatch(group.name):
        wrong.append(("name", group.name, "a name is a lower-case letter, then letters, digits and _, at most 63"))
    if group.version < 1:
        wrong.append(("version", group.version, "a version is a whole number from 1"))
    wrong += [
        (place, text, fix)
        for place, text in (("max_age", group.max_age), ("lateness", group.lateness))
        if (fix := no_span(text))
    ]
    known = ", ".join(sorted(types))
    for place, column in [*(("key", column) for column in group.key), ("time", group.time)]:
        if column not in types:
            wrong.append((place, column, f"{group.source} has no such column; it has {known}"))
    if types.get(group.time, "long") != "long":
        wrong.append(("time", group.time, "the time of an event is a long: milliseconds since 1970"))
    if not 0 < len(group.key) == len(set(group.key)):
        wrong.append(("key", group.key, "name the columns that say whose features these are, each once"))
    if not group.aggregations:
        wrong.append(("aggregations", (), "name at least one"))
    wrong += [(f"where.{place}", *rest) for place, *rest in _where_mistakes(group.where, types)]
    titles = [one.title for one in group.aggregations]
    windows = {one.title: {*one.windows} for one in group.aggregations if one.operation != "ratio"}
    for number, one in enumerate(group.aggregations):
        place = f"aggregations[{number}]"
        if titles.count(one.title) > 1:
            wrong.append((f"{place}.name", one.title, "each aggregation needs a name of its own"))
        wrong += [(f"{place}.{part}", *rest) for part, *rest in _mistakes(one, types, windows)]
    return wrong


def chain_mistakes(group: FeatureGroup, source: FeatureGroup) -> list[tuple[str, Any, str]]:
    """What is wrong with reading that group's tiles: (place, value, remedy)."""
    hops = {"1s": 0, "1m": 1, "5m": 2, "1h": 3, "1d": 4}
    hop = hops.get(group.every, -1)
    kept = max((window for _, one, window in source.features if not one.exact and hop_of(window) == hop), default=0)
    wrong: list[tuple[str, Any, str]] = []
    if source.every:
        wrong.append(("source", group.source, "is a chained group; name the group that it reads"))
    if group.key != source.key:
        wrong.append(("key", group.key, f"has to be the key of {source.id}: {', '.join(source.key)}"))
    if not kept:
        wrong.append(("every", group.every, f"{source.id} keeps no such tiles; give it a window that is cut so"))
    for name, _, window in group.features if kept else ():
        if window > kept:
            wrong.append(("windows", name, f"{source.id} keeps tiles of {group.every} for {kept // 1000} s only"))
    return wrong


def no_span(text: str) -> str:
    """Why a text is no span of time such as 1d; nothing if it is one."""
    try:
        duration_ms(text)
    except ValueError as error:
        return str(error)
    return ""


_FITS = {"long": (int,), "double": (int, float), "string": (str,), "boolean": (bool, int)}


def fits(value: Any, kind: str) -> bool:
    """Whether a value is one of a type: long, double, boolean or string."""
    boolean = isinstance(value, bool) and kind != "boolean"
    whole = not isinstance(value, int) or -(1 << 63) <= value < 1 << 63
    finite = not isinstance(value, float) or math.isfinite(value)
    return isinstance(value, _FITS.get(kind, (object,))) and not boolean and whole and finite


def _default_fits(one: Aggregation, types: dict[str, str]) -> bool:
    kind, most = one.kind(types)
    if most is None or one.default is None:
        return one.default is None or fits(one.default, kind)
    short = one.operation == "last_k"
    lengths = range(most + 1) if short else (most,)
    return isinstance(one.default, tuple) and len(one.default) in lengths and all(fits(v, kind) for v in one.default)


def _where_mistakes(conditions: tuple[Where, ...], types: dict[str, str]) -> list[tuple[str, Any, str]]:
    wrong: list[tuple[str, Any, str]] = []
    for where in conditions:
        if where.column not in types:
            wrong.append(("column", where.column, f"the source has {', '.join(sorted(types))}"))
        if where.comparison not in COMPARISONS:
            wrong.append(("comparison", where.comparison, f"one of {', '.join(sorted(COMPARISONS))}"))
        if where.comparison == "in" and not isinstance(where.value, tuple):
            wrong.append(("value", where.value, "`in` compares with a tuple of values"))
            continue
        kind = types.get(where.column, "")
        values = {"in": where.value, "is_null": (), "not_null": ()}.get(where.comparison, (where.value,))
        if not all(fits(value, kind) for value in values):
            wrong.append(("value", where.value, f"{where.column} is a {kind}; compare it with one"))
    return wrong


def _no_window(text: str) -> str:
    try:
        window_ms(text)
    except ValueError as error:
        return str(error)
    return ""


def _mistakes(one: Aggregation, types: dict[str, str], windows: dict[str, set[str]]) -> list[tuple[str, Any, str]]:
    wrong = [(f"where.{place}", value, fix) for place, value, fix in _where_mistakes(one.where, types)]
    if one.operation not in OPERATIONS:
        return [*wrong, ("operation", one.operation, f"one of {', '.join(sorted(OPERATIONS))}")]
    if not _NAME.fullmatch(one.title):
        wrong.append(("name", one.title, "a name is a lower-case letter, then letters, digits and _, at most 63"))
    if not one.windows:
        wrong.append(("windows", (), "name at least one window, such as 1h or 7d"))
    wrong += [("windows", text, fix) for text in one.windows if (fix := _no_window(text))]
    if len(set(one.windows)) < len(one.windows):
        wrong.append(("windows", one.windows, "name each window once"))
    if one.operation in VALUED and one.column not in types:
        wrong.append(("column", one.column, f"the source has {', '.join(sorted(types))}"))
    if one.operation in NUMERIC and types.get(one.column) == "string":
        wrong.append(("column", one.column, f"{one.operation} needs numbers, this is text"))
    if one.operation == "last_k" and not 1 <= one.k <= MOST_LAST:
        wrong.append(("k", one.k, f"last_k keeps 1 to {MOST_LAST} values"))
    if one.operation == "count_by" and not 1 <= len(set(one.values)) == len(one.values) <= 50:
        wrong.append(("values", one.values, "count_by counts 1 to 50 different values"))
    if one.operation == "quantiles" and not (one.quantiles and all(0 <= part <= 1 for part in one.quantiles)):
        wrong.append(("quantiles", one.quantiles, "name at least one quantile, from 0 to 1"))
    if one.operation == "ratio" and not all(windows.get(title, set()) >= {*one.windows} for title in one.of):
        wrong.append(("of", one.of, "the names of two aggregations of this group, no ratios, that have its windows"))
    if one.operation == "ratio" and one.exact:
        wrong.append(("exact", True, "a ratio is as exact as what it divides; leave this out"))
    if not _default_fits(one, types):
        kind, most = one.kind(types)
        wrong.append(
            ("default", one.default, f"the feature is a {kind}" if most is None else f"a tuple of {most} {kind}")
        )
    if one.operation == "count_by" and not all(fits(value, types.get(one.column, "")) for value in one.values):
        wrong.append(("values", one.values, f"{one.column} is a {types.get(one.column)}; name such values"))
    if not 1 <= one.width <= 64:
        wrong.append(("width", one.width, "1 to 64 bytes"))
    if one.operation == "decayed_sum":
        if fix := no_span(one.half_life):
            return [*wrong, ("half_life", one.half_life, fix)]
        hops = [HOPS[hop_of(window_ms(text))] for text in one.windows if not one.exact and not _no_window(text)]
        if hops and duration_ms(one.half_life) * MOST_HALVINGS < max(hops):
            least = -(-max(hops) // MOST_HALVINGS)
            wrong.append(
                ("half_life", one.half_life, f"must be at least {least / 1000:g} s with tiles of these windows")
            )
    return wrong


def type_mistakes(declared: Any, place: str = "") -> list[tuple[str, Any, str]]:
    """What in a declaration is not of the type of its field, such as a list, or ("7d") without its comma, for a tuple:
    (place, value, remedy). Other checks may rely on the types."""
    hints, wrong = get_type_hints(type(declared)), list[tuple[str, Any, str]]()
    for one in fields(declared):
        value, hint = getattr(declared, one.name), hints[one.name]
        where = f"{place}.{one.name}" if place else one.name
        if get_origin(hint) is not tuple:
            wrong += _type_mistake(where, value, hint)
        elif not isinstance(value, tuple):
            wrong.append((where, value, "write a tuple: (…,), with a comma also behind a single one"))
        else:
            item, *more = get_args(hint)
            if more != [...] and len(value) != 1 + len(more):
                wrong.append((where, value, f"needs {1 + len(more)} values"))
            for number, element in enumerate(value):
                wrong += _type_mistake(f"{where}[{number}]", element, item)
    return wrong


def _type_mistake(place: str, value: Any, hint: Any) -> list[tuple[str, Any, str]]:
    if hint is Any:
        return []
    if isinstance(hint, type) and is_dataclass(hint):
        return type_mistakes(value, place) if isinstance(value, hint) else [(place, value, f"write {hint.__name__}(…)")]
    wanted = {float: (int, float)}.get(hint, (hint,))
    if isinstance(value, wanted) and isinstance(value, bool) == (hint is bool):
        return []
    names = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}
    return [(place, value, f"must be {names.get(hint, hint)}")]
