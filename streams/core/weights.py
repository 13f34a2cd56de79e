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
class Said:
    """What sources say of paths, and how far each counts; `share` of all sources together is INJECTED_SHARE at most.

    Shapes: `values`, NaN where it says nothing, and `share` (sources, metrics, paths); `sick` and `lost`, logarithms of
    what their saying that a region is not healthy, or has less capacity, multiplies the score and the baseline with,
    (sources, paths).
    """

    sources: tuple[str, ...]
    values: Array
    share: Array
    sick: Array
    lost: Array

    @classmethod
    def by_one(cls, values: Array, share: float = INJECTED_SHARE) -> Said:
        """Of one nameless source: (metrics, paths) values."""
        shares = np.where(np.isnan(values), 0.0, share)
        nothing = np.zeros((1, values.shape[1]))
        return cls(("somebody",), values[None], shares[None], nothing, nothing)

    def tiled(self, moments: int) -> Said:
        """The same at several moments."""
        if moments == 1:
            return self
        values, share = (np.tile(each, (1, 1, moments)) for each in (self.values, self.share))
        return Said(self.sources, values, share, np.tile(self.sick, moments), np.tile(self.lost, moments))


@dataclass(frozen=True, slots=True)
class NetworkWeight:
    """ln of the network weight in parts.

    `contributions` (metrics, paths) of what is measured, `uncertainty` (paths,) and what each of the `sources` moved,
    `moved` (sources, paths), sum to ln N. `impairment` is that of the measured `values`. `gain` says how much ln N
    rises when an impairment falls by 1; 0 where nobody knows the metric.
    """

    scale: Scale
    contributions: Array
    uncertainty: Array
    values: Array
    impairment: Array
    gain: Array
    sources: tuple[str, ...] = ()
    moved: Array | None = None  # None: nobody says anything

    @property
    def log_weight(self) -> Array:
        """(paths,) ln N."""
        found: Array = self.contributions.sum(axis=0) + self.uncertainty
        return found if self.moved is None else found + self.moved.sum(axis=0)

    def part(self, paths: slice) -> NetworkWeight:
        """Of some of the paths."""
        rows = (self.contributions, self.values, self.impairment, self.gain)
        contributions, values, impairment, gain = (each[:, paths] for each in rows)
        moved = None if self.moved is None else self.moved[:, paths]
        uncertainty = self.uncertainty[paths]
        return NetworkWeight(self.scale, contributions, uncertainty, values, impairment, gain, self.sources, moved)


def network_weight(
    measured: Array, said: Said | None, confidence: Array, policy: Policy, scale: Scale
) -> NetworkWeight:
    """The weighted geometric mean of the metrics' utilities, in parts.

    `measured` is (metrics, paths), NaN where unknown; `said` None: nobody says anything. What is said has less than
    half a say: a liar shifts a path within that bound. A metric that nobody knows of a path is left out of that path's
    mean; one that is only said stands, for the rest of its say, where the measured ones of that path stand on average:
    so the bound of the mean is that of each metric. What confidence lacks is filled with the pessimistic utility.
    """
    own = scale.impairment(measured)
    unknown = np.isnan(own)
    if said is not None:
        unknown = unknown & ~(said.share > 0).any(axis=0)
    weight = np.where(unknown, 0.0, scale.exponent)
    total = weight.sum(axis=0)
    some = total > 0
    certain = np.where(some, confidence, 0.0)
    gain = weight * (certain / np.where(some, total, 1.0)) * -math.log(policy.utility_floor)
    uncertainty = (1 - certain) * math.log(policy.pessimistic_utility)
    if said is None:
        counts = np.where(unknown, 0.0, own)
        return NetworkWeight(scale, -gain * counts, uncertainty, measured, own, gain)
    is_own = ~np.isnan(own)
    own_weight = np.where(is_own, scale.exponent, 0.0)
    own_total = own_weight.sum(axis=0)
    own_part = own_weight / np.where(own_total > 0, own_total, 1.0)
    mean = np.where(own_total > 0, (own_part * np.where(is_own, own, 0.0)).sum(axis=0), 1.0)
    counts = np.where(is_own, own, np.where(unknown, 0.0, mean))
    sources, metrics, paths = said.values.shape
    side_by_side = said.values.transpose(1, 0, 2).reshape(metrics, sources * paths)
    theirs = scale.impairment(side_by_side).reshape(metrics, sources, paths).transpose(1, 0, 2)
    apart = np.nan_to_num(theirs - counts)
    # What a change of what is measured changes: the rest of the say, and that of the metrics which it stands in for.
    left = gain * (1 - said.share.sum(axis=0))
    return NetworkWeight(
        scale=scale,
        contributions=-gain * counts,
        uncertainty=uncertainty,
        values=measured,
        impairment=own,
        gain=np.where(is_own, left + own_part * np.where(is_own, 0.0, left).sum(axis=0), 0.0),
        sources=said.sources,
        moved=-(gain * said.share * apart).sum(axis=1),
    )
