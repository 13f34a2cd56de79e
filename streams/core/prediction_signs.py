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
# By what becomes of them, in this order: saturated logarithms, the rest of them, which are logarithms or shares.
_PARTS: Final = slice(1, 3), slice(3, None), slice(3, 10), slice(10, 13)
_OTHERS_AT: Final = 4
SIGNS: Final = len(BELIEFS)

# Numbers that are arrays here: numpy would make one at every call, and on few paths it is calls that cost.
_ZERO, _ONE, _MICROSECOND = np.array(0.0), np.array(1.0), np.array(1e-3)

# Time constants of what is counted, in horizons; an event counts 1 and fades.
_COUNTED: Final = {"recent": 10.0, "others": 33.0, "past": 300.0, "route": 6.0}
_RECENT, _OTHERS, _PAST, _ROUTE = range(len(_COUNTED))
_COUNTED_AT: Final = np.array([list(BELIEFS).index(name) for name in _COUNTED])
_TAUS: Final = np.array(list(_COUNTED.values()))[:, None]
_DEVIATION_TAUS: Final = 0.5  # slow time constants over which deviations are averaged
# Deviations of ln latency: below the first it is the noise of measuring; beyond the second it says no more.
_NOISE, _NOISE_TWICE, _ENOUGH = np.array(0.001), np.array(0.002), np.array(0.01)
_DAY_MS: Final = 86_400_000
_BINS: Final = 36  # of a day: 40 minutes each
_DAYS: Final = 7.0  # over which a time of day is remembered
# A count becomes the logarithm of it over so much, and 0 when there was nothing.
_SOME: Final = 0.3
_SOME_OTHERS: Final = 0.07  # a path, of its neighbours
_SOME_LOSS: Final = 0.01
_LEAST, _SHARE_MAX = 0.01, np.array(1.0)  # at 1 it is a disruption
_SOME_32: Final = np.array(_SOME, np.float32)
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
        self._units: tuple[Policy | None, Array] = None, np.empty(0)

    def begun(self, begun: Array, policy: Policy, now_ms: int) -> None:
        """Disruptions that have just begun; (targets,) bool."""
        self._turn(now_ms)
        self._fade(policy, now_ms)
        self._counts[:_ROUTE] += begun
        self._today[self._bin % _BINS] += begun

    def overflowed(self, lossy: Array, latency_ms: Array) -> None:
        """Losses have just begun, and what the latency was then; (targets,) bool and ms."""
        known = lossy & (self._base[1] > 0)
        above = np.where(known, np.log(np.maximum(latency_ms, 1e-3)) - _mean(self._base), 0.0)
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
        all_measured = np.count_nonzero(measured) == len(measured)
        # Panes count whole microseconds: a shorter one is 0, and has no logarithm.
        latency_ms = np.maximum(m.latency_ms, _MICROSECOND)
        above, level = np.log(latency_ms / np.maximum(m.slow_latency_ms, _MICROSECOND)), np.log(latency_ms)
        known = np.isfinite(above)
        if not all_measured or np.count_nonzero(known) < len(known):
            above = np.where(measured & known, above, 0.0)
        now = np.abs(above)
        self._average(now, level, None if all_measured else measured, policy, now_ms)
        rows = np.empty((SIGNS, len(now)))
        rows[0] = 1.0
        rows[1] = _mean(self._deviation)
        rows[2] = now
        rows[_COUNTED_AT] = self._counts
        others = rows[_OTHERS_AT]
        np.subtract(np.add.reduce(others), others, others)
        rows[5] = self._hour(policy, now_ms)
        rows[7] = m.loss_ratio
        rows[8] = m.delay_variation_ms
        rows[10] = above
        rows[11] = m.fast_loss_ratio
        rows[12] = m.age_ms
        rows[13] = self._near_brink(level)
        rows /= self._unit(policy, len(now))
        silence = rows[12]
        np.fmax(silence, m.suspicion_ratio, silence)
        deviations, unsaturated, logarithms, shares = (rows[of] for of in _PARTS)
        np.fmax(unsaturated, _ZERO, unsaturated)  # what is not known is no sign
        np.minimum(shares, _SHARE_MAX, out=shares)
        most = deviations / _ENOUGH
        most += _ONE
        most *= _NOISE_TWICE
        deviations += _NOISE
        deviations /= most
        np.log(deviations, deviations)
        np.log1p(logarithms, logarithms)
        others -= _LN_2
        if not all_measured:
            rows[:, ~measured] = np.nan
        return np.ascontiguousarray(rows.T)

    def _unit(self, policy: Policy, targets: int) -> Array:
        """(SIGNS, 1) what each sign is counted in; `hour` has been counted in its own, for it has fewer digits."""
        if self._units[0] is not policy:
            units = dict.fromkeys(BELIEFS, 1.0)
            units["recent"] = units["past"] = _SOME
            units["others"] = _SOME_OTHERS * max(targets - 1, 1)
            units["loss"] = _SOME_LOSS
            units["variation"] = max(policy.disruption_latency_excess_ms, _LEAST)
            units["rise"] = max(math.log(max(policy.disruption_latency_ratio, 1.0)), _LEAST)
            units["partial"] = max(policy.disruption_loss_ratio, _LEAST)
            units["silence"] = policy.stale_after_ms
            self._units = policy, np.array(list(units.values()))[:, None]
        return self._units[1]

    def _near_brink(self, level: Array) -> Array:
        """(targets,) nearness to the brink, of ln latency."""
        if not np.count_nonzero(self._brink):
            return np.zeros(len(level))
        above = np.fmax(level - _mean(self._base), 0.0)
        share = np.minimum(above / np.maximum(self._brink, _BRINK_LEAST), _BRINK_MAX)
        return np.where(self._brink > 0, share**_BRINK_POWER, 0.0)

    def _average(self, deviation: Array, level: Array, measured: Array | None, policy: Policy, now_ms: int) -> None:
        """Take in (targets,) deviations and ln latencies of those that are `measured` (None: of all)."""
        passed_ms = now_ms - self._seen_at_ms if self._seen_at_ms else 0
        self._seen_at_ms = now_ms
        self._deviation = _taken_in(
            self._deviation, deviation, measured, math.exp(-passed_ms / (_DEVIATION_TAUS * policy.slow_tau_ms))
        )
        self._base = _taken_in(
            self._base, level, measured, math.exp(-passed_ms / (_BASE_HORIZONS * policy.prediction_horizon_ms))
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
        """(targets,) disruptions at the middle of the horizon's time of day, by `_SOME`; between two bins a mean."""
        at = (now_ms + policy.prediction_horizon_ms // 2) * _BINS / _DAY_MS - 0.5
        first = int(at // 1)
        share = np.float32(at - first)
        found = self._hours[first % _BINS] * (1 - share)
        found += self._hours[(first + 1) % _BINS] * share
        found /= _SOME_32
        return found  # type: ignore[no-any-return]

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
_LN_2: Final = np.array(math.log(2.0))


def _taken_in(sums: Array, value: Array, measured: Array | None, keep: float) -> Array:
    """(2, targets) fading sums and counts with one more value (targets,), where measured."""
    seen = sums * keep
    seen[0] += value
    seen[1] += _ONE
    return seen if measured is None else np.where(measured, seen, sums)
