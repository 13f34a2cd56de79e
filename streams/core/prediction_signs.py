"""What may announce a disruption: a row of signs for each path, and what is believed of each before anything is learnt.

Every sign is without a unit, 0 on a path of which nothing is known, and larger the worse it looks. What is small on a
good path and may be anything on a bad one counts by its logarithm, for it takes a multiple to mean something else:

    deviation   how far latency has been from its own slow average lately
    shock       how far it is from it now
    recent      the path's own disruptions of the last horizons: they come in clusters
    others      those of the primary's other paths: what befalls one befalls its neighbours, and soon
    hour        those at this time of day, in the days before: congestion keeps hours
    past        those of the last hours or days: the path's own usual rate
    loss        of the long memory
    variation   of delay, by the amount that would be a disruption
    route       changes of its routes in the last minutes
    brink       how near the queue is to where the path's own losses began before: a buffer is as large as it is

What approaches the threshold at which it is a disruption itself counts in shares of it: `rise` of latency, `partial`
loss, and `silence`.

Beliefs are by structure: all weights are positive, a disruption's own traces (`recent`, `hour`) weigh most, signs of
which recorded weeks say little have the widest spread, and the rest a narrow one, for a hundred disruptions a week do
not suffice to fit a dozen weights (docs/prediction.md).
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.records import Array, Policy
from streams.core.views import PathMetrics


class Belief(NamedTuple):
    """Prior of a sign's weight, in log odds."""

    weight: float
    deviation: float


BELIEFS: Final = {
    "usual": Belief(-5.2, 0.15),  # the sign is 1: of a path that shows nothing, one in 180
    "deviation": Belief(0.3, 0.1),
    "shock": Belief(0.3, 0.1),
    "recent": Belief(0.5, 0.1),
    "others": Belief(0.4, 0.1),
    "hour": Belief(0.5, 0.1),
    "past": Belief(0.03, 0.03),
    "loss": Belief(0.1, 0.1),
    "variation": Belief(0.2, 0.5),
    "route": Belief(1.0, 0.5),
    "rise": Belief(2.0, 2.0),
    "partial": Belief(2.0, 1.0),
    "silence": Belief(0.5, 0.5),
    "brink": Belief(2.0, 2.0),
}
# By what becomes of them, in this order: saturated logarithms, logarithms, shares.
_SATURATED, _LOGARITHMS, _OTHERS_AT, _SHARES = slice(1, 3), slice(3, 10), 4, slice(10, 12)
SIGNS: Final = len(BELIEFS)

# Time constants of what is counted, in horizons; an event counts 1 and fades.
_COUNTED: Final = {"recent": 10.0, "others": 33.0, "past": 300.0, "route": 6.0}
_RECENT, _OTHERS, _PAST, _ROUTE = range(len(_COUNTED))
_TAUS: Final = np.array(list(_COUNTED.values()))[:, None]
_DEVIATION_TAUS: Final = 0.5  # slow time constants over which deviations are averaged
# Deviations of ln latency: below the first it is the noise of measuring; beyond the second it says no more.
_NOISE, _ENOUGH = 0.001, 0.01
_DAY_MS: Final = 86_400_000
_BINS: Final = 36  # of a day: 40 minutes each
_DAYS: Final = 7.0  # over which a time of day is remembered
# A count becomes the logarithm of it over so much, and 0 when there was nothing.
_SOME: Final = 0.3
_SOME_OTHERS: Final = 0.07  # a path, of its neighbours
_SOME_LOSS: Final = 0.01
_LEAST, _SHARE_MAX = 0.01, 1.0  # at 1 it is a disruption
_BASE_HORIZONS: Final = 33.0  # time constant of the level above which a queue is counted
_BRINK_LEAST: Final = 0.05  # of ln latency: losses that begin with less of a queue have another cause
_BRINK_KEEP: Final = 0.7  # of the mean of the earlier onsets, at each
_BRINK_MAX, _BRINK_POWER = 1.2, 6  # half of the way there is nothing yet


class Signs:
    """What has to be remembered of a primary's paths to tell their signs; arrays end with (..., targets)."""

    def __init__(self, targets: int) -> None:
        self._counts = np.zeros((len(_COUNTED), targets))
        self._counted_at_ms = 0
        self._deviation = np.zeros((2, targets))  # fading sums: of deviations, of how many
        self._base = np.zeros((2, targets))  # the same of ln latency
        self._brink = np.zeros(targets)  # above the base, of ln latency, where losses began; 0: not known
        self._seen_at_ms = 0
        # Disruptions by time of day; those of the last half day wait, else each would be told twice.
        self._hours = np.zeros((_BINS, targets), np.float32)
        self._today = np.zeros((_BINS, targets), np.float32)
        self._bin = -1

    def begun(self, begun: Array, policy: Policy, now_ms: int) -> None:
        """Disruptions that have just begun; (targets,) bool."""
        self._turn(now_ms)
        self._fade(policy, now_ms)
        self._counts[:_ROUTE] += begun
        self._today[self._bin % _BINS] += begun

    def overflowed(self, lossy: Array, latency_ms: Array) -> None:
        """Losses have just begun, and what the latency was then; (targets,) bool and ms."""
        above = np.where(lossy, np.log(np.maximum(latency_ms, 1e-3)) - _mean(self._base), 0.0)
        before = np.where(self._brink > 0, self._brink, above)
        self._brink = np.where(above > _BRINK_LEAST, _BRINK_KEEP * before + (1 - _BRINK_KEEP) * above, self._brink)

    def route_changed(self, targets: list[int], policy: Policy, now_ms: int) -> None:
        """The routes to these targets are others than before."""
        self._fade(policy, now_ms)
        self._counts[_ROUTE, targets] += 1

    def rows(self, m: PathMetrics, measured: Array, policy: Policy, now_ms: int) -> Array:
        """(targets, SIGNS) as they are now; NaN in the rows of targets that are not `measured`."""
        self._turn(now_ms)
        self._fade(policy, now_ms)
        # Panes count whole microseconds: a shorter one is 0, and has no logarithm.
        above = np.log(np.maximum(m.latency_ms, 1e-3) / np.maximum(m.slow_latency_ms, 1e-3))
        level = np.log(np.maximum(m.latency_ms, 1e-3))
        above = np.where(measured & ~np.isnan(above), above, 0.0)
        now = np.abs(above)
        self._average(now, level, measured, policy, now_ms)
        recent, others, past, route = self._counts
        rows = np.empty((SIGNS, len(recent)))
        rows[0] = 1.0
        rows[1] = _mean(self._deviation)
        rows[2] = now
        np.divide(recent, _SOME, out=rows[3])
        np.divide(others.sum() - others, _SOME_OTHERS * max(len(recent) - 1, 1), out=rows[4])
        np.divide(self._hour(policy, now_ms), _SOME, out=rows[5])
        np.divide(past, _SOME, out=rows[6])
        np.divide(m.loss_ratio, _SOME_LOSS, out=rows[7])
        np.divide(m.delay_variation_ms, max(policy.disruption_latency_excess_ms, _LEAST), out=rows[8])
        rows[9] = route
        np.divide(above, max(math.log(max(policy.disruption_latency_ratio, 1.0)), _LEAST), out=rows[10])
        np.divide(m.fast_loss_ratio, max(policy.disruption_loss_ratio, _LEAST), out=rows[11])
        np.fmax(np.minimum(m.age_ms / policy.stale_after_ms, 1.0), m.suspicion_ratio, out=rows[12])
        rows[13] = self._near_brink(level)
        np.fmax(rows[3:], 0.0, out=rows[3:])  # what is not known is no sign
        np.minimum(rows[_SHARES], _SHARE_MAX, out=rows[_SHARES])
        deviations = rows[_SATURATED]
        np.log((deviations + _NOISE) / ((1 + deviations / _ENOUGH) * (2 * _NOISE)), out=deviations)
        np.log1p(rows[_LOGARITHMS], out=rows[_LOGARITHMS])
        rows[_OTHERS_AT] -= _LN_2
        if np.count_nonzero(measured) < len(measured):
            rows[:, ~measured] = np.nan
        return np.ascontiguousarray(rows.T)

    def _near_brink(self, level: Array) -> Array:
        """(targets,) nearness to the brink, of ln latency."""
        above = np.fmax(level - _mean(self._base), 0.0)
        share = np.minimum(above / np.maximum(self._brink, _BRINK_LEAST), _BRINK_MAX)
        return np.where(self._brink > 0, share**_BRINK_POWER, 0.0)

    def _average(self, deviation: Array, level: Array, measured: Array, policy: Policy, now_ms: int) -> None:
        """Take in (targets,) deviations and ln latencies."""
        passed_ms = now_ms - self._seen_at_ms if self._seen_at_ms else 0
        self._seen_at_ms = now_ms
        taus_ms = _DEVIATION_TAUS * policy.slow_tau_ms, _BASE_HORIZONS * policy.prediction_horizon_ms
        self._deviation, self._base = (
            np.where(measured, sums * math.exp(-passed_ms / tau_ms) + np.array((value, np.ones(len(value)))), sums)
            for sums, value, tau_ms in zip((self._deviation, self._base), (deviation, level), taus_ms, strict=True)
        )

    def _fade(self, policy: Policy, now_ms: int) -> None:
        if self._counted_at_ms and now_ms > self._counted_at_ms and np.count_nonzero(self._counts):
            self._counts *= np.exp((self._counted_at_ms - now_ms) / (_TAUS * policy.prediction_horizon_ms))
        self._counted_at_ms = now_ms

    def _turn(self, now_ms: int) -> None:
        """Another time of day has begun: what happened half a day ago joins the days before."""
        number = now_ms * _BINS // _DAY_MS
        if number == self._bin:
            return
        passed = min(number - self._bin, _BINS) if self._bin >= 0 else 0
        self._bin = number
        if passed <= 0 or not (np.count_nonzero(self._hours) or np.count_nonzero(self._today)):
            return
        self._hours *= np.float32(np.exp(-passed / (_BINS * _DAYS)))
        joins = np.arange(number - passed + 1, number + 1) + _BINS // 2
        self._hours[joins % _BINS] += self._today[joins % _BINS]
        self._today[joins % _BINS] = 0

    def _hour(self, policy: Policy, now_ms: int) -> Array:
        """(targets,) disruptions at the middle of the horizon's time of day; between two bins' middles a mean."""
        at = (now_ms + policy.prediction_horizon_ms // 2) * _BINS / _DAY_MS - 0.5
        first = int(at // 1)
        share = np.float32(at - first)
        return self._hours[first % _BINS] * (1 - share) + self._hours[(first + 1) % _BINS] * share  # type: ignore[no-any-return]

    def renumber(self, place: dict[int, int], targets: int) -> Signs:
        """The same where targets have new numbers."""
        found = Signs(targets)
        for name in _ARRAYS:
            after, before = getattr(found, f"_{name}"), getattr(self, f"_{name}")
            for old, new in place.items():
                after[..., new] = before[..., old]
        for name in _SCALARS:
            setattr(found, f"_{name}", getattr(self, f"_{name}"))
        return found

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        return {n: getattr(self, f"_{n}") for n in _SCALARS}, {n: getattr(self, f"_{n}") for n in _ARRAYS}

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array]) -> Signs:
        """The state again."""
        signs = cls(arrays["counts"].shape[-1])
        for name in _SCALARS:
            setattr(signs, f"_{name}", scalars[name])
        for name in _ARRAYS:
            setattr(signs, f"_{name}", arrays[name].copy())
        return signs


def _mean(sums: Array) -> Array:
    """(targets,) of (2, targets) fading sums of values and of how many."""
    return sums[0] / np.maximum(sums[1], 1.0)  # type: ignore[no-any-return]


_SCALARS: Final = ("counted_at_ms", "seen_at_ms", "bin")
_ARRAYS: Final = ("counts", "deviation", "hours", "today", "base", "brink")
_LN_2: Final = math.log(2.0)
