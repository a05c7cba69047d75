"""Windows and hops: how far back a feature looks, and in what steps its tiles are cut."""

from __future__ import annotations

import re

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
_UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_TEXT = re.compile(r"([1-9][0-9]{0,6})([smhd])")
LEAST, MOST = MINUTE, 90 * DAY
HOPS = (SECOND, MINUTE, 5 * MINUTE, HOUR, DAY)
"""The lengths of tiles in ms. A tile's code holds the place of its hop in here, so places never change."""


def duration_ms(text: str) -> int:
    """The milliseconds of a text such as `90s`, `5m`, `1h` or `7d`. Raises ValueError."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no span of time such as 5m, 1h or 7d")
    return int(found[1]) * _UNITS[found[2]]


def window_ms(text: str) -> int:
    """The milliseconds of a window, 1m to 90d. Raises ValueError."""
    window = duration_ms(text)
    if not LEAST <= window <= MOST:
        raise ValueError(f"the window {text} must be between 1m and 90d")
    return window


def hop_of(window: int) -> int:
    """The place in HOPS of a window's tiles: the longer the window (ms), the longer the tiles, at most 300 a window.

    The scale is Chronon's (docs/source/Tiled_Architecture.md), with a minute and a second below.
    """
    limits = (5 * MINUTE, HOUR, 12 * HOUR - 1, 12 * DAY - 1)
    return sum(window > limit for limit in limits)
