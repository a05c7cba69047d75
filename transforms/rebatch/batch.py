"""BatchByRetailer: batches of 50 of one retailer and vendor campaign, no customer twice in one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam

from schemas.delivery import BATCH, Batch, Message
from transforms.rebatch.elements import ADDRESSED, SINGLE, Addressed, Batches, Keyed

LANES = 64  # queues a retailer: a backlog is spread over so many keys, each with a small state
_FULL, _REST = "full", "rest"
Target = tuple[str, str]  # retailer, vendor campaign


def lane_of(batch: Batch) -> int:
    """The lane of a batch: it follows its first event's id, so that a batch that comes again keeps its lane."""
    return sum(batch.messages[0].event_id.encode()) % LANES


def cut(messages: list[Message]) -> tuple[list[Batch], list[Message]]:
    """Full batches, and what is left over, of messages of one retailer and vendor campaign.

    A customer who stands in the messages more than once is never twice in one batch.
    """
    full: list[Batch] = []
    layers: list[list[Message]] = []
    times: dict[str, int] = defaultdict(int)
    for message in messages:
        layer = times[message.customer_id]
        times[message.customer_id] += 1
        if layer == len(layers):
            layers.append([])
        layers[layer].append(message)
    rest: list[Message] = []
    for layered in layers:
        whole = len(layered) // BATCH * BATCH
        full += [Batch(layered[at : at + BATCH]) for at in range(0, whole, BATCH)]
        rest += layered[whole:]
    return full, rest


def pack(messages: list[Message]) -> list[Batch]:
    """Batches of all the messages, the last ones not full."""
    full, rest = cut(messages)
    while rest:
        seen: set[str] = set()
        batch: list[Message] = []
        later: list[Message] = []
        for message in rest:
            fits = message.customer_id not in seen and len(batch) < BATCH
            seen.add(message.customer_id)
            (batch if fits else later).append(message)
        full.append(Batch(batch))
        rest = later
    return full


class _Cut(beam.DoFn):
    def process(self, element: Keyed) -> Iterator[Any]:
        targets: dict[Target, list[Message]] = defaultdict(list)
        for message in element[1].items:
            targets[message.retailer_id, message.vendor_campaign].append(message)
        for target, own in targets.items():
            full, rest = cut(own)
            if full:
                yield (target[0], lane_of(full[0])), Batches(full)
            for message in rest:
                yield beam.pvalue.TaggedOutput(_REST, (target, message))


def _packed(element: tuple[Target, Any]) -> tuple[tuple[str, int], Batches]:
    (retailer, _), messages = element
    batches = pack(list(messages))
    return (retailer, lane_of(batches[0])), Batches(batches)


class BatchByRetailer(beam.PTransform):
    """Lists of batches, keyed by (retailer, lane). What fills a batch in its own list leaves at once; the rest meets
    the rest of other lists, and leaves when 50 are together or after `wait_s` seconds."""

    def __init__(self, wait_s: float, clock: Callable[[], float]) -> None:
        super().__init__()
        if wait_s <= 0:
            raise ValueError(f"wait_s {wait_s} must be positive")
        self._wait_s, self._clock = wait_s, clock

    def expand(self, lists: beam.PCollection[Keyed]) -> beam.PCollection[Addressed]:
        cuts = lists | "Cut" >> beam.ParDo(_Cut()).with_outputs(_REST, main=_FULL)
        cuts[_FULL].element_type = ADDRESSED
        cuts[_REST].element_type = SINGLE
        packed = (
            cuts[_REST]
            | "GroupIntoBatches" >> beam.GroupIntoBatches(BATCH, self._wait_s, self._clock)
            | "Pack" >> beam.Map(_packed).with_output_types(ADDRESSED)
        )
        return (cuts[_FULL], packed) | "Batches" >> beam.Flatten()
