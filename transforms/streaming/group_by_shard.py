"""GroupByShard: the items of a poll in few lists, each under a key; how many shards a key has follows its load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

import apache_beam as beam

from transforms.streaming.elements import LIST, Items, Keyed, T, in_lists, keyed
from transforms.streaming.engine_traits import Clock

MOST_SHARDS = 16
GROUPS = 16
_GROUP_LIST = 300  # items of small keys in a poll that are enough for a group
_SMALL, _UNNEEDED_S = "\N{ZERO WIDTH SPACE}", 600.0
TextOf = Callable[[T], str]


class Load:
    """The number of shards of each key. Small keys share a group's key; one with more than `per_shard` items a second
    has 2, 4, 8 or 16 shards of its own. The number of groups follows the load of all small keys together: 1 to 16,
    each for `per_group` items a second.

    A poll that brings a whole list a shard shows a backlog, and makes more shards at once. A poll costs a round trip
    to the state for each shard, so a thousand keys must not be a thousand shards, and a trickle not sixteen; and a key
    with most of the traffic must not be one. A rate is a moving average over about `span_s` seconds. Shards only grow:
    an item's shard is its id's hash modulo their number, so a number that went up and down would scatter an item's
    duplicates. Groups halve again after ten minutes in which a quarter of them would do. Duplicates across such a
    change, or read by another worker with another count, meet in no state: a sink must stop them.
    """

    def __init__(
        self, clock: Clock, per_shard: float = 1_000.0, per_group: float = 250.0, span_s: float = 10.0
    ) -> None:
        if min(per_shard, per_group, span_s) <= 0:
            raise ValueError(f"per_shard {per_shard}, per_group {per_group} and span_s {span_s} must be positive")
        self._per_shard, self._per_group, self._span_s, self._clock = per_shard, per_group, span_s, clock
        self._seen: dict[str, tuple[float, float, int]] = {}
        self._needed = clock()  # when the groups were last needed

    def shards(self, key: str, items: int) -> int:
        """The shards of a key of which `items` more have come: a power of two, at most 16."""
        return self._parts(key, items, self._per_shard, LIST, MOST_SHARDS)

    def groups(self, items: int) -> int:
        """The groups of all small keys, of which `items` more have come: a power of two, at most 16."""
        groups = self._parts(_SMALL, items, self._per_group, _GROUP_LIST, GROUPS)
        now, weight, _ = self._seen[_SMALL]
        if weight / self._span_s > groups * self._per_group / 4 or groups == 1:
            self._needed = now
        elif now - self._needed > _UNNEEDED_S:
            self._needed, groups = now, groups // 2
            self._seen[_SMALL] = now, weight, groups
        return groups

    def _parts(self, key: str, items: int, per_part: float, list_length: int, most: int) -> int:
        now = self._clock()
        before, weight, parts = self._seen.get(key, (now, 0.0, 1))
        weight = weight * max(0.0, 1.0 - (now - before) / self._span_s) + items
        while parts < most and (weight / self._span_s > parts * per_part or items > parts * list_length):
            parts *= 2
        self._seen[key] = (now, weight, parts)
        return parts


def group_of(key: str, groups: int = GROUPS) -> str:
    """The key of the group that a small key belongs to; no key of an item is one."""
    return f"{_SMALL}{crc32(key.encode()) % groups}"


def shard_of(item_id: str, shards: int) -> int:
    """The shard of an item: ids are hashes, so their tail spreads evenly; any other text does too."""
    try:
        return int(item_id[-4:], 16) % shards
    except ValueError:
        return sum(item_id.encode()) % shards


def group(items: list[T], load: Load, kind: type[Items[T]], key_of: TextOf[T], id_of: TextOf[T]) -> Iterator[Keyed[T]]:
    """((key or group, shard), items) in lists of at most 1,000 and 4 MB, the order within a key kept."""
    by_key: dict[str, list[T]] = defaultdict(list)
    for key, item in zip(map(key_of, items), items, strict=True):
        by_key[key].append(item)
    by_shard: dict[tuple[str, int], list[T]] = defaultdict(list)
    counts = {key: load.shards(key, len(keyed_items)) for key, keyed_items in by_key.items()}
    groups = load.groups(sum(len(keyed_items) for key, keyed_items in by_key.items() if counts[key] == 1))
    for key, keyed_items in by_key.items():
        shards = counts[key]
        if shards == 1:
            by_shard[group_of(key, groups), 0] += keyed_items
            continue
        for item in keyed_items:
            by_shard[key, shard_of(id_of(item), shards)].append(item)
    for shard, shard_items in by_shard.items():
        for part in in_lists(shard_items):
            yield shard, kind(part)


class _Group(beam.DoFn):
    def __init__(self, kind: type[Items[Any]], key_of: TextOf[Any], id_of: TextOf[Any], clock: Clock) -> None:
        self._kind, self._key_of, self._id_of, self._clock = kind, key_of, id_of, clock

    def setup(self) -> None:
        self._load = Load(self._clock)

    def process(self, element: Items[Any]) -> Iterator[Keyed[Any]]:
        yield from group(element.items, self._load, self._kind, self._key_of, self._id_of)


class GroupByShard(beam.PTransform):
    """Lists keyed by (key or group, shard), of the lists of each poll. `kind` is their class; an item belongs to the
    key that `key_of` gives, and all items with the same `id_of` to one shard of it. `clock` gives seconds, never
    fewer. Steps: Group."""

    def __init__(self, kind: type[Items[T]], key_of: TextOf[T], id_of: TextOf[T], clock: Clock) -> None:
        super().__init__()
        self._group, self._type = _Group(kind, key_of, id_of, clock), keyed(kind)

    def expand(self, lists: beam.PCollection[Items[T]]) -> beam.PCollection[Keyed[T]]:
        return lists | "Group" >> beam.ParDo(self._group).with_output_types(self._type)
