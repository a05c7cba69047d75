"""Decode: the envelopes of a poll become items of a pipeline; those that cannot become dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam

from schemas.contracts import DeadLetter
from schemas.transport import Envelope
from transforms.streaming.counters import Counters
from transforms.streaming.elements import Envelopes, Items, T, body_bytes
from transforms.streaming.engine_traits import Clock

DEAD = "dead"
DecodeEnvelopes = Callable[[list[Envelope], int], list[T | DeadLetter]]
"""The item or the dead letter of each envelope of a list, which arrived at a time (epoch ms). Never raises."""


class _Decode(beam.DoFn):
    def __init__(self, decode: DecodeEnvelopes[Any], kind: type[Items[Any]], clock: Clock, counters: Counters) -> None:
        self._decode, self._kind, self._clock = decode, kind, clock
        self._read, self._dead = counters.counter("read"), counters.counter("dead_lettered")

    def process(self, element: Envelopes) -> Iterator[Any]:
        decoded = self._decode(element.items, int(self._clock() * 1000))
        items = [item for item in decoded if not isinstance(item, DeadLetter)]
        letters = [letter for letter in decoded if isinstance(letter, DeadLetter)]
        self._read.inc(len(element.items), body_bytes(element.items))
        self._dead.inc(len(letters), sum([len(letter.data) for letter in letters]))
        if items:
            yield self._kind(items, element.source_resumes)
        for letter in letters:
            yield beam.pvalue.TaggedOutput(DEAD, letter)


class Decode(beam.PTransform):
    """(lists of items, dead letters) of Envelopes. `kind` is the class of the lists; `clock` gives seconds since the
    epoch. Counts `read`, `dead_lettered`. Steps: Read."""

    def __init__(self, decode: DecodeEnvelopes[T], kind: type[Items[T]], clock: Clock, counters: Counters) -> None:
        super().__init__()
        self._decode, self._kind = _Decode(decode, kind, clock, counters), kind

    def expand(self, envelopes: beam.PCollection[Envelopes]) -> tuple[beam.PCollection[Any], ...]:
        decoded = envelopes | "Read" >> beam.ParDo(self._decode).with_outputs(DEAD, main="good")
        decoded["good"].element_type, decoded[DEAD].element_type = self._kind, DeadLetter
        return decoded["good"], decoded[DEAD]
