"""Features: the events of each type, folded into the rows of its feature groups.

    read events of a type, partition by partition | fold into the rows of its groups

There is no state in the engine and no shuffle: a row says which events it holds (docs/decisions/017).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

import apache_beam as beam

from pipelines.features.sources import TypeSource
from stores.features.open import open_store
from transforms.features.fold_events import Fold, FoldEvents, Folding, Scan
from transforms.features.layout import Layout
from transforms.streaming.engine_traits import Clock
from transforms.streaming.read_partitions import ReadPartitions


def build(
    p: beam.Pipeline,
    sources: Sequence[TypeSource],
    layouts: Mapping[str, list[Layout]],
    scans: Mapping[str, Scan],
    clock: Clock,
) -> None:
    """Builds the pipeline. `layouts` and `scans` are by type: the layouts of its groups, and how its events become
    columns. `clock` says how old events are. A failure of the store or of the log fails the bundle, and the engine
    repeats it."""
    for source in sources:
        name = source.type
        folding = Folding(layouts[name], scans[name], partial(open_store, source.store), source.read_range)
        fold, read = Fold(folding, clock), partial(ReadPartitions, source.make_reader, time.time)
        if source.together:
            _ = p | f"Fold_{name}" >> read(source.linger_s, fold.open)
        else:
            _ = p | f"Read_{name}" >> read() | f"Fold_{name}" >> FoldEvents(fold)
