"""GroupByRetailer: a poll's messages in few lists, each under a key; how many keys a retailer has follows its load."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from zlib import crc32

import apache_beam as beam

from schemas.delivery import Message
from transforms.streaming.elements import KEYED, LIST, Keyed, Messages, in_lists

MOST_SHARDS = 16
GROUPS = 16
_GROUP_LIST = 300  # messages of small retailers in a poll that are enough for a group
_SMALL, _UNNEEDED_S = "\N{ZERO WIDTH SPACE}", 600.0


class Load:
    """The keys of each retailer: small ones share a group's key, one with more than `per_shard` messages a second
    has 2, 4, 8 or 16 of its own. The groups follow the load of the small ones together: 1 to 16, each for `per_group`
    messages a second.

    A poll that brings a whole list a part shows a backlog, and makes more parts at once. What a poll costs is a
    round trip to the state for each key, so a thousand retailers must not be a thousand keys, and a trickle not
    sixteen; and a retailer with most of the traffic must not be one. A rate is a moving average over about
    `span_s` seconds. Shards only grow: an event's shard is its id's hash modulo their number, so a number that
    went up and down would scatter an event's repeats. Groups halve again after ten minutes in which a quarter of
    them would do. What repeats across such a change, or was read by another worker with another count, is for the
    delivery ledger to stop.
    """

    def __init__(
        self,
        per_shard: float = 1_000.0,
        per_group: float = 250.0,
        span_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if min(per_shard, per_group, span_s) <= 0:
            raise ValueError(f"per_shard {per_shard}, per_group {per_group} and span_s {span_s} must be positive")
        self._per_shard, self._per_group, self._span_s, self._clock = per_shard, per_group, span_s, clock
        self._seen: dict[str, tuple[float, float, int]] = {}
        self._needed = clock()  # when the groups were last needed

    def shards(self, retailer: str, messages: int) -> int:
        """The shards of a retailer of which `messages` more have come: a power of two, at most 16."""
        return self._parts(retailer, messages, self._per_shard, LIST, MOST_SHARDS)

    def groups(self, messages: int) -> int:
        """The groups of all small retailers, of which `messages` more have come: a power of two, at most 16."""
        groups = self._parts(_SMALL, messages, self._per_group, _GROUP_LIST, GROUPS)
        now, weight, _ = self._seen[_SMALL]
        if weight / self._span_s > groups * self._per_group / 4 or groups == 1:
            self._needed = now
        elif now - self._needed > _UNNEEDED_S:
            self._needed, groups = now, groups // 2
            self._seen[_SMALL] = now, weight, groups
        return groups

    def _parts(self, name: str, messages: int, each: float, long: int, most: int) -> int:
        now = self._clock()
        before, weight, parts = self._seen.get(name, (now, 0.0, 1))
        weight = weight * max(0.0, 1.0 - (now - before) / self._span_s) + messages
        while parts < most and (weight / self._span_s > parts * each or messages > parts * long):
            parts *= 2
        self._seen[name] = (now, weight, parts)
        return parts


def group_of(retailer: str, groups: int = GROUPS) -> str:
    """The group whose key small retailers share; no retailer's name is one."""
    return f"{_SMALL}{crc32(retailer.encode()) % groups}"


def shard_of(event_id: str, shards: int) -> int:
    """The shard of an event: event ids are hashes, so their tail spreads evenly; any other text does too."""
    try:
        return int(event_id[-4:], 16) % shards
    except ValueError:
        return sum(event_id.encode()) % shards


def group(messages: list[Message], load: Load) -> Iterator[Keyed]:
    """((retailer or group, shard), messages) in lists of at most 1,000 and 4 MB, the order within a key kept."""
    retailers: dict[str, list[Message]] = defaultdict(list)
    for message in messages:
        retailers[message.retailer_id].append(message)
    keyed: dict[tuple[str, int], list[Message]] = defaultdict(list)
    counts = {retailer: load.shards(retailer, len(own)) for retailer, own in retailers.items()}
    groups = load.groups(sum(len(own) for retailer, own in retailers.items() if counts[retailer] == 1))
    for retailer, own in retailers.items():
        shards = counts[retailer]
        if shards == 1:
            keyed[group_of(retailer, groups), 0] += own
            continue
        for message in own:
            keyed[retailer, shard_of(message.event_id, shards)].append(message)
    for key, items in keyed.items():
        for some in in_lists(items):
            yield key, Messages(some)


class _Group(beam.DoFn):
    def setup(self) -> None:
        self._load = Load()

    def process(self, element: Messages) -> Iterator[Keyed]:
        yield from group(element.items, self._load)


class GroupByRetailer(beam.PTransform):
    """Lists keyed by (retailer or group, shard), of the Messages of each poll."""

    def expand(self, messages: beam.PCollection[Messages]) -> beam.PCollection[Keyed]:
        return messages | "Group" >> beam.ParDo(_Group()).with_output_types(KEYED)
