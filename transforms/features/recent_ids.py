"""RecentIds: the ids that stand shortly before a position of a partition, to drop duplicates by the log alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

REMEMBERED = 100_000  # positions


class RecentIds:
    """The ids of the last `span` positions before `position`. Whether an event is a duplicate depends on the log alone,
    so every worker, at any time, decides alike. `position` is that of the next event."""

    def __init__(self, position: int, span: int = REMEMBERED) -> None:
        self.position, self._span = position, span
        self._order: deque[tuple[int, str]] = deque()
        self._last: dict[str, int] = {}

    def first_seen(self, positions: Iterable[int], ids: Iterable[str]) -> list[bool]:
        """Whether each id does not stand among the span before its position. Positions ascend, from `position` on."""
        first = list[bool]()
        last, order, span = self._last, self._order, self._span
        for position, name in zip(positions, ids, strict=True):
            first.append(position - last.get(name, -span - 1) > span)
            last[name] = position
            order.append((position, name))
            self.position = position + 1
        while order and order[0][0] < self.position - span:
            position, name = order.popleft()
            if last.get(name) == position:
                del last[name]
        return first
