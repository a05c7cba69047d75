"""Numbers as people read them, bars that keep within their box, colours that can be read."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.operations.report.charts import bar, duration, moment, number, p_value, percent, stack, whiskers

CSS = resources.files("pipelines.operations.report").joinpath("page.css").read_text("utf-8")
COUNTS = st.integers(0, 10**9)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (2460, "2,460"), (1893.4, "1,893"), (0.82, "0.82"), (4.53, "4.5"), (0.000123, "0.00012"), (None, "–")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "–"),
        (0, 10, "0%"),
        (10, 10, "100%"),
        (1, 3, "33.3%"),
        (1, 10**6, "<0.1%"),
        (10**6 - 1, 10**6, ">99.9%"),
        (12, 10, "120.0%"),
    ],
)
def test_shares(part: float, whole: float, text: str) -> None:
    assert percent(part, whole) == text


@given(part=COUNTS, rest=COUNTS)
def test_only_nothing_is_0_percent_and_only_all_is_100(part: int, rest: int) -> None:
    text = percent(part, part + rest)
    assert (text in ("0%", "0.0%")) == (part == 0 and rest > 0)
    assert (text in ("100%", "100.0%")) == (rest == 0 and part > 0)


@pytest.mark.parametrize(
    ("p", "text"), [(None, "not tested"), (0.905, "p = 0.91"), (0.0123, "p = 0.012"), (1e-5, "p < 0.0001")]
)
def test_p_values(p: float | None, text: str) -> None:
    assert p_value(p) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.514, "0.51 s"), (12.3, "12.3 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [
        ("2026-04-01T13:00:00Z", "1 April 2026, 13:00:00 UTC"),
        ("2026-04-01T15:00:00+02:00", "1 April 2026, 13:00:00 UTC"),
        ("soon", "soon"),
        (None, "–"),
    ],
)
def test_times(time: str | None, text: str) -> None:
    assert moment(time) == text


def places(svg: str) -> list[tuple[float, float]]:
    found = re.findall(r'x="([\d.]+)%" width="([\d.]+)%"', svg)
    return [(float(x), float(width)) for x, width in found]


@given(sizes=st.lists(COUNTS, min_size=1, max_size=8), more=COUNTS)
def test_a_stack_keeps_within_its_box_and_shows_all_that_is_there(sizes: list[int], more: int) -> None:
    svg = stack([("emitted", size) for size in sizes], sum(sizes) + more, "label")
    drawn = places(svg)
    assert len(drawn) == sum(size > 0 for size in sizes)
    assert all(width > 0.3 and x >= 0 and x + width <= 100.011 for x, width in drawn)


def test_a_bar_of_nothing_is_empty_and_one_that_is_too_long_is_cut() -> None:
    assert places(bar([("passed", 0, 5)], 0, "of nothing")) == []
    assert places(bar([("passed", 0, 30)], 20, "too long")) == [(0, 100)]
    assert places(bar([("held_out", -4, 2)], 20, "below nothing")) == [(0, 10)]


def test_a_label_is_text() -> None:
    assert 'aria-label="&lt;b&gt;&#34;"' in bar([], 1, '<b>"')


SHARES = st.floats(0, 1)


@given(shares=st.lists(st.tuples(SHARES, SHARES, SHARES, SHARES), min_size=1, max_size=6))
def test_whiskers_keep_within_the_picture(shares: list[tuple[float, float, float, float]]) -> None:
    rows = [dict(zip(("weight", "low", "share", "high"), row, strict=True)) | {"key": "a"} for row in shares]
    svg = whiskers(rows, "label")
    found = [float(x) for x in re.findall(r'(?:x|x1|x2|cx)="([\d.-]+)%"', svg)]
    assert svg.count("<circle") == svg.count("<path") == len(rows)
    assert all(0 <= x <= 100 for x in found)
    assert svg.count('class="tick"') >= 2


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


LIGHT, DARK = (colours(block) for block in CSS.split("}\n}")[0].split("@media", 1))


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["ground", "panel", "bad-ground", "warn-ground"])
@pytest.mark.parametrize("colour", ["text", "muted", "link", "bad", "warn", "good"])
def test_text_can_be_read(scheme: dict[str, str], ground: str, colour: str) -> None:
    assert contrast(scheme[colour], scheme[ground]) >= 4.5


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("kind", ["passed", "emitted", "held", "outside", "suppressed", "dead"])
def test_bars_can_be_seen(scheme: dict[str, str], kind: str) -> None:
    assert contrast(scheme[kind], scheme["ground"]) >= 3


def test_paper_is_never_dark() -> None:
    assert re.findall(r"@media ([^{]*)\(prefers-color-scheme: dark\)", CSS) == ["screen and "]
