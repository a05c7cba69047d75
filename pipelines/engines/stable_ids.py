"""Ids of a pipeline's parts that stay the same when a step is added."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import ComponentIdMap


class StableIds(ComponentIdMap):
    """Ids made of labels. Beam numbers the parts of a pipeline in their order, and on Flink a pending timer knows its
    step by that id: with one more step in front of it the timers of a savepoint would have no receiver, and the job
    could not resume."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: set[str] = set()

    def _unique_ref(self, obj: Any = None, obj_type: Any = None, label: str | None = None) -> str:
        if isinstance(obj, pvalue.PCollection) and obj.producer is not None:
            label = f"{obj.producer.full_label}.{obj.tag}"
        if label is None:
            return str(super()._unique_ref(obj, obj_type, label))
        name = unique = self._normalize(f"{self.namespace}_{obj_type.__name__}_{label}")
        count = 1
        while unique in self._taken:
            count += 1
            unique = f"{name}_{count}"
        self._taken.add(unique)
        return unique


def new_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """An empty pipeline whose parts will have stable ids."""
    pipeline = beam.Pipeline(options=options)
    pipeline.component_id_map = StableIds()
    return pipeline
