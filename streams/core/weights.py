"""Utilities of what is measured, and the network weight: their weighted geometric mean.

A utility is anchored in the operator's objectives ("good", "bad"), never in the other candidates, so a candidate that
joins or leaves reorders nobody. Everything is kept as natural logarithms: a ranking's explanation is then a sum.

    impairment   how bad a metric is on the policy's scale, 0 (good or better) to 1 (bad or worse). Between, it is
                 linear in the metric's logarithm (harm goes with ratios of delay and bandwidth), for loss in the ratio
                 itself (a retransmission costs the same at 1 % as at 10 %)
    utility      utility_floor to the power of the impairment

Metrics come in rows in the order of `METRICS`; arrays are (metrics, paths).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.records import Array, Policy

METRICS: Final = ("latency_ms", "loss_ratio", "delay_variation_ms", "bandwidth_bps")
INJECTED_SHARE: Final = 0.45
_LINEAR: Final = METRICS.index("loss_ratio")


@dataclass(frozen=True, slots=True)
class Scale:
    """A policy's scale for every metric, as columns (metrics, 1): what is worked out once a policy."""

    good: Array
    bad: Array
    exponent: Array
    _zero: Array  # of the metric made straight, and how far it is from there to 1
    _span: Array

    @classmethod
    def of(cls, policy: Policy) -> Scale:
        """The scale of a policy."""
        good = [policy.latency_good_ms, policy.loss_good_ratio, policy.delay_variation_good_ms]
        bad = [policy.latency_bad_ms, policy.loss_bad_ratio, policy.delay_variation_bad_ms]
        exponent = [policy.latency_exponent, policy.loss_exponent, policy.delay_variation_exponent]
        ends = np.array([[*good, policy.bandwidth_good_bps]]).T, np.array([[*bad, policy.bandwidth_bad_bps]]).T
        zero, one = map(_straight, ends)
        return cls(*ends, np.array([[*exponent, policy.bandwidth_exponent]]).T, zero, one - zero)

    def impairment(self, values: Array) -> Array:
        """(metrics, paths) in [0, 1] of the metrics' values; NaN stays NaN."""
        return np.minimum(np.maximum((_straight(values) - self._zero) / self._span, 0.0), 1.0)

    def at_impairment(self, impairments: Array) -> Array:
        """(metrics, paths) values at these impairments: the inverse of `impairment` between good and bad."""
        found = self.good * (self.bad / self.good) ** impairments
        found[_LINEAR] = self.good[_LINEAR] + impairments[_LINEAR] * (self.bad[_LINEAR] - self.good[_LINEAR])
        return found


def _straight(values: Array) -> Array:
    """(metrics, paths) as they enter the impairment: logarithms, but for the loss."""
    with np.errstate(divide="ignore"):
        found = np.log(values)
    found[_LINEAR] = values[_LINEAR]
    return found


@dataclass(frozen=True, slots=True)
class NetworkWeight:
    """ln of the network weight in parts.

    `contributions` (metrics, paths) and `uncertainty` (paths,) sum to ln N. `impairment` is that of the `values` that
    count: measured, else injected. `gain` says how much ln N rises when an impairment falls by 1; 0 where nobody knows
    the metric.
    """

    scale: Scale
    contributions: Array
    uncertainty: Array
    values: Array
    impairment: Array
    gain: Array

    def part(self, paths: slice) -> NetworkWeight:
        """Of some of the paths."""
        rows = (self.contributions, self.values, self.impairment, self.gain)
        contributions, values, impairment, gain = (each[:, paths] for each in rows)
        return NetworkWeight(self.scale, contributions, self.uncertainty[paths], values, impairment, gain)


def network_weight(
    measured: Array, injected: Array | None, confidence: Array, policy: Policy, scale: Scale
) -> NetworkWeight:
    """The weighted geometric mean of the metrics' utilities, in parts.

    `measured` and `injected` (None: nothing is) are (metrics, paths), NaN where unknown. An injected metric has less
    than half a say beside a measurement: a liar shifts a path within that bound. A metric that nobody knows of a path
    is left out of that path's mean. What confidence lacks is filled with the pessimistic utility.
    """
    values, own = measured, scale.impairment(measured)
    counts, share = own, np.ones(1)
    if injected is not None:
        said = scale.impairment(injected)
        only_own, only_said = np.isnan(said), np.isnan(own)
        both = (1 - INJECTED_SHARE) * own + INJECTED_SHARE * said
        counts = np.where(only_own, own, np.where(only_said, said, both))
        # What a change of the value that counts changes: beside an injected one, the measured has the rest of the say.
        share = np.where(only_own | only_said, 1.0, 1 - INJECTED_SHARE)
        values, own = np.where(only_said, injected, measured), np.where(only_said, said, own)
    unknown = np.isnan(counts)
    weight = np.where(unknown, 0.0, scale.exponent)
    total = weight.sum(axis=0)
    some = total > 0
    certain = np.where(some, confidence, 0.0)
    gain = weight * (certain / np.where(some, total, 1.0)) * -math.log(policy.utility_floor)
    return NetworkWeight(
        scale=scale,
        contributions=-gain * np.where(unknown, 0.0, counts),
        uncertainty=(1 - certain) * math.log(policy.pessimistic_utility),
        values=values,
        impairment=own,
        gain=gain * share,
    )
