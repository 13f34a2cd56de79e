"""Metrics from outside, in force until they expire: of several sources the median counts, of `healthy` the worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from schemas.records import Array, InjectedMetric
from streams.core.weights import METRICS

# Values of a primary in force at once; beyond, the earliest to expire goes. Whoever invents sources without end must
# not make a snapshot that the broker refuses.
_IN_FORCE_MAX: Final = 1000
ABOUT_TARGETS: Final = (*METRICS, "healthy", "capacity_ratio")


class Injected:
    """Of one primary: the latest value of each source about each target and metric."""

    def __init__(self, values: dict[str, list[Any]] | None = None) -> None:
        self.values = values or {}  # "target metric source" -> [value, expires_at_ms, observed_at_ms]

    def take(self, metric: InjectedMetric, now_ms: int) -> None:
        """Take one in; what comes late does not replace what is newer."""
        key = f"{metric.target_region or ''} {metric.metric} {metric.source}"
        observed_at_ms = min(metric.observed_at_ms, now_ms)
        known = self.values.get(key)
        if known is None or observed_at_ms >= known[2]:
            self.values[key] = [metric.value, observed_at_ms + metric.ttl_ms, observed_at_ms]
        if len(self.values) > _IN_FORCE_MAX:
            del self.values[min(self.values, key=lambda k: (self.values[k][1], k))]

    def in_force(self, numbers: Mapping[str, int], now_ms: int) -> tuple[dict[str, Array], bool]:
        """By metric (targets,), NaN where nobody says anything; and whether somebody says the primary is unhealthy."""
        self.values = {k: v for k, v in self.values.items() if v[1] > now_ms}
        each: dict[tuple[str, str], list[float]] = {}
        for key in sorted(self.values):
            target, metric, _ = key.split(" ", 2)
            each.setdefault((metric, target), []).append(self.values[key][0])
        said = {metric: np.full(len(numbers), np.nan) for metric in ABOUT_TARGETS}
        for (metric, target), values in each.items():
            if target in numbers:
                said[metric][numbers[target]] = min(values) if metric == "healthy" else float(np.median(values))
        return said, min(each.get(("healthy", ""), [1.0])) == 0
