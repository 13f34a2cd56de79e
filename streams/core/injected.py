"""Metrics from outside, in force until they expire: of several sources the median counts, of `healthy` the worst."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas.records import Array, InjectedMetric
from streams.core.weights import METRICS

# Values of a primary in force at once; beyond, the earliest to expire goes. Whoever invents sources without end must
# not make a snapshot that the broker refuses.
_IN_FORCE_MAX: Final = 1000
_CAPACITY_MIN: Final = 1e-6  # a weight of 0 would have no logarithm


@dataclass(frozen=True, slots=True)
class InForce:
    """`metrics` is (METRICS, targets), NaN where nobody says anything; the rest (targets,). None: nobody at all."""

    metrics: Array | None = None
    unhealthy: Array | None = None
    capacity_ratio: Array | None = None
    primary_unhealthy: bool = False


_NOTHING: Final = InForce()


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

    def until_ms(self, now_ms: int) -> float:
        """When, after this moment, the first of them expires; infinity: never."""
        return min((v[1] for v in self.values.values() if v[1] > now_ms), default=math.inf)

    def in_force(self, numbers: Mapping[str, int], now_ms: int) -> InForce:
        """What counts at this moment for these targets."""
        if self.values:
            self.values = {k: v for k, v in self.values.items() if v[1] > now_ms}
        if not self.values:
            return _NOTHING
        each: dict[tuple[str, str], list[float]] = {}
        for key in sorted(self.values):
            target, metric, _ = key.split(" ", 2)
            each.setdefault((metric, target), []).append(self.values[key][0])
        said = {metric: np.full(len(numbers), np.nan) for metric in (*METRICS, "healthy", "capacity_ratio")}
        for (metric, target), values in each.items():
            if target in numbers:
                said[metric][numbers[target]] = min(values) if metric == "healthy" else float(np.median(values))
        return InForce(
            metrics=np.stack([said[metric] for metric in METRICS]),
            unhealthy=said["healthy"] == 0,
            capacity_ratio=np.maximum(np.nan_to_num(said["capacity_ratio"], nan=1.0), _CAPACITY_MIN),
            primary_unhealthy=min(each.get(("healthy", ""), [1.0])) == 0,
        )
