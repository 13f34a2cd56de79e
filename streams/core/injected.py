"""Metrics from outside, in force until they expire, each with as much of the say as its source's standing gives it.

A source that says nothing of a path has no part in it. What is said of latency, loss, delay variation and bandwidth
shifts the path's impairment (`weights.py`). `capacity_ratio` and `healthy` shift the score itself: by the share of
those who say so, ln(1 - share) at most. So no source moves a path by more than its bound. Only of a path that nothing
fresh is measured of does `healthy = 0` count as it is: there is nobody to contradict it. Of the primary itself it asks
to prepare, as long as its source is believed, or nobody who observes the primary says otherwise.

Which of a source's values counts goes by when it says that it observed them; how long one counts, by that or by when it
came, whichever was first: a clock that is ahead makes nothing live longer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.records import Array, Event, InjectedMetric
from streams.core.trust import SOURCE_SHARE, Trust
from streams.core.weights import INJECTED_SHARE, METRICS, Said

# Values of a primary in force at once. Whoever invents values without end must not make a snapshot that the broker
# refuses, nor push out what others say.
_IN_FORCE_MAX: Final = 1000
_CAPACITY_MIN: Final = 1e-6  # a weight of 0 would have no logarithm
_CONFIDENCE_MIN: Final = 0.5  # of a measurement that a source can be held against


@dataclass(frozen=True, slots=True)
class InForce:
    """What counts at a moment. `unhealthy`, `capacity_ratio`: (targets,). None: nobody says anything."""

    metrics: Said | None = None
    unhealthy: Array | None = None
    capacity_ratio: Array | None = None
    primary_unhealthy_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What is measured at a moment: `impairment` (METRICS, targets), NaN unknown; of paths the rest (targets,).

    `primary_down`: what observers see of the primary itself; None: nobody can say.
    """

    impairment: Array
    confidence: Array
    fresh: Array
    down: Array
    primary_down: bool | None


_NOTHING: Final = InForce()


class _Value(NamedTuple):
    value: float
    expires_at_ms: int
    stated_at_ms: int  # when it was observed, as its source says
    kept_until_ms: int  # after it expired it is remembered as long as a copy of it would live, or of an older one


class Injected:
    """Of one primary: the latest value of each source about each target and metric."""

    def __init__(self, values: dict[str, list[Any]] | None = None, trust: Mapping[str, Any] | None = None) -> None:
        # By "target metric source". Before engine version 6 nothing was remembered after it had expired.
        self.values = {key: _Value(*(*each, each[1])[:4]) for key, each in (values or {}).items()}
        self.trust = Trust(trust)

    def take(self, metric: InjectedMetric, now_ms: int) -> bool:
        """Take one in, unless its source is above its rate; what is older, or the same again, replaces nothing."""
        if not self.trust.admits(metric.source, now_ms):
            return False
        key, stated_at_ms = _key(metric), metric.observed_at_ms
        known = self.values.get(key)
        if known is None or (stated_at_ms, metric.value != known.value) > (known.stated_at_ms, False):
            expires_at_ms = min(stated_at_ms, now_ms) + metric.ttl_ms
            self.values[key] = _Value(metric.value, expires_at_ms, stated_at_ms, stated_at_ms + metric.ttl_ms)
        if len(self.values) > _IN_FORCE_MAX:
            self._make_room()
        return True

    def said(self, metric: InjectedMetric, now_ms: int) -> float | None:
        """What its source says of the same path and metric by now; None: nothing."""
        known = self.values.get(_key(metric))
        return known.value if known is not None and known.expires_at_ms > now_ms else None

    def _make_room(self) -> None:
        """Of those that have agreed least with what is measured, the loudest loses what would end first.

        Not simply the loudest: a thousand names that say one thing each would push out whoever says two.
        """
        many = Counter(key.rpartition(" ")[2] for key in self.values)
        agreed = self.trust.agreed
        first = min(many, key=lambda source: (agreed(source), -many[source], source))
        its = (key for key in self.values if key.rpartition(" ")[2] == first)
        del self.values[min(its, key=lambda k: (self.values[k].expires_at_ms, k))]

    def until_ms(self, now_ms: int) -> float:
        """When, after this moment, the first of them expires, is forgotten, or is reviewed; infinity: never."""
        ends_ms = (at_ms for v in self.values.values() for at_ms in (v.expires_at_ms, v.kept_until_ms))
        first = min((at_ms for at_ms in ends_ms if at_ms > now_ms), default=math.inf)
        return min(first, self.trust.next_ms(now_ms)) if self.values else first

    def is_due(self, now_ms: int) -> bool:
        """Whether what is in force has to be held against what is measured."""
        return self.trust.is_due(now_ms) and any(v.expires_at_ms > now_ms for v in self.values.values())

    def review(self, seen: Seen, numbers: Mapping[str, int], now_ms: int, scale_of: Any) -> list[Event]:
        """Hold every value in force against what is measured; `scale_of` gives impairments of (METRICS, 1) values."""
        found: dict[tuple[str, str], float] = {}
        for key in sorted(self.values):
            value, expires_at_ms, *_ = self.values[key]
            target, metric, source = _parts(key)
            number = numbers.get(target)
            if expires_at_ms <= now_ms or (target and number is None):
                continue
            contradiction = _contradiction(metric, value, seen, number, scale_of)
            if not math.isnan(contradiction):
                found[source, target] = max(contradiction, found.get((source, target), 0.0))
        return self.trust.review(found, now_ms)

    def in_force(
        self,
        numbers: Mapping[str, int],
        now_ms: int,
        fixed: Array | None = None,
        *,
        primary_down: bool | None = None,
    ) -> InForce:
        """What counts at this moment for these targets; `fixed` (targets,) bool: their capacity does not matter.

        `primary_down` as in `Seen`: against observers who reach it only those count that are believed.
        """
        if self.values:
            self.values = {k: v for k, v in self.values.items() if v.kept_until_ms > now_ms}
        counting = [key for key in sorted(self.values) if self.values[key].expires_at_ms > now_ms]
        if not counting:
            return _NOTHING
        keys = [(*_parts(key), self.values[key].value) for key in counting]
        about = [each for each in keys if each[0] in numbers]
        unwell = (s for t, m, s, v in keys if t == "" and m == "healthy" and v == 0)
        by = tuple(s for s in unwell if primary_down is not False or self.trust.believes(s, ""))
        if not about:
            return InForce(primary_unhealthy_by=by)
        sources = tuple(sorted({source for _, _, source, _ in about}))
        row = {source: i for i, source in enumerate(sources)}
        column = {metric: i for i, metric in enumerate((*METRICS, "healthy", "capacity_ratio"))}
        said = np.full((len(sources), len(column), len(numbers)), np.nan)
        share = np.zeros_like(said)
        for target, metric, source, value in about:
            place = row[source], column[metric], numbers[target]
            said[place], share[place] = value, self.trust.share(source, target)
        new = np.array([not self.trust.agreed(source) for source in sources])
        share[new] *= _within(share[new], SOURCE_SHARE)
        share *= _within(share, INJECTED_SHARE)
        count = len(METRICS)
        sick = share[:, count] * (said[:, count] == 0)
        lost = share[:, count + 1] * (1 - np.nan_to_num(said[:, count + 1], nan=1.0))
        if fixed is not None:
            lost = lost * ~fixed
        return InForce(
            metrics=Said(sources, said[:, :count], share[:, :count], _split(sick), _split(lost)),
            unhealthy=(said[:, count] == 0).any(axis=0),
            capacity_ratio=np.maximum(1 - lost.sum(axis=0), _CAPACITY_MIN),
            primary_unhealthy_by=by,
        )


def _within(share: Array, most: float) -> Array:
    """What shares (sources, ...) are to be multiplied with so that their sum is `most` at most."""
    return np.asarray(np.minimum(1.0, most / np.maximum(share.sum(axis=0), most)))


def _key(metric: InjectedMetric) -> str:
    return f"{metric.target_region or ''} {metric.metric} {metric.source}"


def _parts(key: str) -> tuple[str, str, str]:
    target, metric, source = key.split(" ", 2)
    return target, metric, source


def _split(shares: Array) -> Array:
    """(sources, targets): ln(1 - all shares), as much of it to each as its share is of them all."""
    total = shares.sum(axis=0)
    return np.where(total > 0, np.log1p(-total) * shares / np.where(total > 0, total, 1.0), 0.0)


def _contradiction(metric: str, value: float, seen: Seen, number: int | None, scale_of: Any) -> float:
    """0 to 1; NaN where nothing measured can say. `number` None: the primary itself, of which `healthy` is heard."""
    if number is None:
        can_say = metric == "healthy" and seen.primary_down is not None
        return float((value == 0) != seen.primary_down) if can_say else math.nan
    if not seen.fresh[number] and not seen.down[number]:
        return math.nan
    if metric == "healthy":
        return float((value == 0) != bool(seen.down[number]))
    if metric not in METRICS or seen.confidence[number] < _CONFIDENCE_MIN:
        return math.nan
    row = METRICS.index(metric)
    values = np.full((len(METRICS), 1), np.nan)
    values[row] = value
    return float(abs(scale_of(values)[row, 0] - seen.impairment[row, number]))
