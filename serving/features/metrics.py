"""The metrics of a feature server, for Prometheus; of all its workers together when there are several.

With several workers PROMETHEUS_MULTIPROC_DIR must name an empty folder before this is imported.
"""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from serving.features.reader import GroupValues

_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_AGES = (1.0, 10.0, 60.0, 600.0, 3_600.0, 6 * 3_600.0, 86_400.0, 7 * 86_400.0, 30 * 86_400.0)


class FeatureMetrics:
    """Counts of requests and values."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        # Requests by call (feast, compact, grpc) and outcome (ok, mistake, error, late, overloaded).
        self.requests = Counter(
            "features_requests", "Requests by call and outcome.", ["call", "outcome"], registry=registry
        )
        # From a request's arrival to its answer.
        self.seconds = Histogram(
            "features_request_seconds", "Time to answer.", ["call"], buckets=_SECONDS, registry=registry
        )
        # Values by group, feature and quality (fresh, stale, default, error).
        self.values = Counter(
            "features_values", "Values by quality.", ["group", "feature", "quality"], registry=registry
        )
        # The time since the newest event of each entity that was read and is known.
        self.age = Histogram("features_age_seconds", "Age at read.", ["group"], buckets=_AGES, registry=registry)
        self._children: dict[tuple[str, ...], Any] = {}

    def note_request(self, call: str, outcome: str, seconds: float) -> None:
        """Counts a request."""
        self._child(self.requests, call, outcome).inc()
        self._child(self.seconds, call).observe(seconds)

    def note_values(self, read: Sequence[GroupValues]) -> None:
        """Counts what was read."""
        for one in read:
            for feature, qualities in zip(one.features, one.qualities, strict=True):
                for quality, count in Tally(qualities).items():
                    self._child(self.values, one.group, feature, quality.value).inc(count)
            age = self._child(self.age, one.group)
            for known in one.ages_ms:
                if known is not None:
                    age.observe(known / 1_000)

    def page(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)

    def _child(self, metric: Any, *labels: str) -> Any:
        """The metric of some labels; finding it in the library takes longer than counting."""
        key = (metric._name, *labels)
        if key not in self._children:
            self._children[key] = metric.labels(*labels)
        return self._children[key]
