"""Format numbers, and draw charts as inline SVG with positions in per cent, which fit every width without a script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

DASH = "–"
_SLIVER = 0.004
_ROW, _TOP, _AXIS = 46, 8, 26
_LONGEST = 38
_SHADES = 6


def number(value: float | None) -> str:
    """A count with thousands separated; a rate with at most one decimal below 100."""
    if value is None:
        return DASH
    if value != int(value) and abs(value) < 100:
        return f"{value:,.1f}" if abs(value) >= 1 else f"{value:.2g}"
    return f"{round(value):,}"


def percent(part: float, whole: float = 1) -> str:
    """A share with one decimal; never 0% for something, nor 100% for less than all."""
    if not whole:
        return DASH
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1%"
    if 99.9 < share < 100:
        return ">99.9%"
    return f"{share:.0f}%" if share in (0, 100) else f"{share:.1f}%"


def p_value(p: float | None) -> str:
    """`p = 0.42`, or `p < 0.0001` for the smallest."""
    if p is None:
        return "not tested"
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def duration(seconds: float) -> str:
    """Seconds in everyday units: `0.51 s`, `12.3 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment(text: str | None) -> str:
    """A time of ISO 8601 as `1 April 2026, 13:00:00 UTC`; any other text as it is."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return text or DASH
    time = time.astimezone(UTC) if time.tzinfo else time
    return f"{time.day} {time:%B %Y, %H:%M:%S}{' UTC' if time.tzinfo else ''}"


def bar(parts: Iterable[tuple[str, float, float]], whole: float, label: str) -> Markup:
    """A horizontal bar; a part is (kind, start, size) in the unit of `whole`, and what is not zero can be seen."""
    drawn = [_part(kind, start / whole, size / whole) for kind, start, size in parts if whole and size > 0]
    picture = Markup('<svg class="bar" role="img" aria-label="{}"><rect class="k-track" {}/>{}</svg>')
    return picture.format(label, Markup('width="100%" height="100%"'), Markup("").join(drawn))


def stack(parts: Sequence[tuple[str, float]], whole: float, label: str) -> Markup:
    """A horizontal bar of parts (kind, size) one after the other."""
    starts = [sum(size for _, size in parts[:place]) for place in range(len(parts))]
    return bar([(kind, start, size) for (kind, size), start in zip(parts, starts, strict=True)], whole, label)


def shades(sizes: Mapping[str, float]) -> list[tuple[str, float]]:
    """Parts for `stack`, in shades that differ from their neighbours in print too."""
    return [(f"shade-{place % _SHADES}", size) for place, size in enumerate(sizes.values())]


def _part(kind: str, start: float, size: float) -> Markup:
    width = min(max(size, _SLIVER), 1.0)
    start = min(max(start, 0.0), 1 - width)
    rect = Markup('<rect class="k-{}" x="{}" width="{}" height="100%"/>')
    return rect.format(kind, _place(start), _place(width))


def _place(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def whiskers(variants: Sequence[Mapping[str, Any]], label: str) -> Markup:
    """Each variant's observed share as a dot with its interval as a whisker, and its expected share as a diamond.

    A variant is a mapping with key, weight, share, low, high (shares of 1; the last three None where nobody was
    assigned). The scale runs over what is drawn, not from 0 to 1.
    """
    values = [v[name] for v in variants for name in ("weight", "share", "low", "high") if v[name] is not None]
    low, high, step = _scale(min(values, default=0.0), max(values, default=1.0))
    bottom = _TOP + _ROW * len(variants)

    def place(share: float) -> str:
        return _place(0.02 + 0.96 * (share - low) / (high - low))

    ticks = [low + step * n for n in range(round((high - low) / step) + 1)]
    tick = Markup(
        '<line class="grid" x1="{x}" x2="{x}" y1="{top}" y2="{end}"/>'
        '<text class="tick" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
    )
    anchors = ["start", *["middle"] * (len(ticks) - 2), "end"]
    axis = Markup("").join(
        tick.format(x=place(t), top=_TOP, end=bottom, y=bottom + 17, anchor=side, text=f"{100 * t:.{_digits(step)}f}%")
        for t, side in zip(ticks, anchors, strict=True)
    )
    rows = Markup("").join(_whisker(v, _TOP + _ROW * n, place) for n, v in enumerate(variants))
    svg = Markup('<svg class="whiskers" role="img" aria-label="{}" height="{}">{}{}</svg>')
    return svg.format(label, bottom + _AXIS, axis, rows)


def _whisker(variant: Mapping[str, Any], top: int, place: Any) -> Markup:
    name = variant["key"]
    name = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    y = top + 31
    parts = [Markup('<text class="arm" x="2%" y="{}">{}</text>').format(top + 15, name)]
    if variant["low"] is not None and variant["high"] is not None:
        left, right = place(variant["low"]), place(variant["high"])
        line = Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
        parts.append(line.format("whisker", left, right, y, y))
        parts += [line.format("cap", x, x, y - 6, y + 6) for x in (left, right)]
    diamond = Markup('<svg x="{}" y="{}" overflow="visible"><path class="expected" d="M0-8 6 0 0 8-6 0Z"/></svg>')
    parts.append(diamond.format(place(variant["weight"]), y))
    if variant["share"] is not None:
        parts.append(Markup('<circle class="observed" cx="{}" cy="{}" r="4.5"/>').format(place(variant["share"]), y))
    return Markup("").join(parts)


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Round ends and a round step around an interval of shares: 3 to 7 ticks."""
    span = max(high - low, 0.002)
    low, high = max(low - span * 0.1, 0.0), min(high + span * 0.1, 1.0)
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step


def _digits(step: float) -> int:
    """The decimals that a step of shares needs, written as per cent."""
    return max(0, -math.floor(math.log10(step * 100) + 1e-9))
