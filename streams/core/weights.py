"""Utilities of what is measured, and the network weight: their weighted geometric mean.

A utility is anchored in the operator's objectives ("good", "bad"), never in the other candidates, so a candidate that
joins or leaves reorders nobody. Everything is kept as natural logarithms: a ranking's explanation is then a sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.records import Array, Policy

METRICS: Final = ("latency_ms", "loss_ratio", "delay_variation_ms", "bandwidth_bps")


@dataclass(frozen=True, slots=True)
class NetworkWeight:
    """ln of the network weight in parts. Every array is (paths,).

    `contributions`: by metric, and `uncertainty`; they sum to ln N. `impairment`: by metric, of the value that counts,
    on the policy's scale from 0 (good) to 1 (bad). `gain`: by metric, how much ln N rises for a fall of the impairment
    by 1; 0 where nobody knows the metric. `values`: the values that count: measured, else injected.
    """

    contributions: dict[str, Array]
    impairment: dict[str, Array]
    gain: dict[str, Array]
    values: dict[str, Array]


def impairment(metric: str, values: Array, policy: Policy) -> Array:
    """How bad a metric is on the policy's scale: 0 at `good` or better, 1 at `bad` or worse.

    Between, it is linear in the metric's logarithm (harm goes with ratios of delay and bandwidth), for loss in the
    ratio itself (a retransmission costs the same at 1 % as at 10 %). Shapes: (paths,) in and out; NaN stays NaN.
    """
    good, bad = _anchors(metric, policy)
    if metric == "loss_ratio":
        return np.clip((values - good) / (bad - good), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        return np.clip((np.log(values) - np.log(good)) / (np.log(bad) - np.log(good)), 0.0, 1.0)  # type: ignore[no-any-return]


def at_impairment(metric: str, impairments: Array, policy: Policy) -> Array:
    """The values of a metric at these impairments: the inverse of `impairment` between `good` and `bad`."""
    good, bad = _anchors(metric, policy)
    if metric == "loss_ratio":
        return good + impairments * (bad - good)
    return good * (bad / good) ** impairments


def log_utility(metric: str, values: Array, policy: Policy) -> Array:
    """ln of a metric's utility: 0 at `good` or better, ln(utility_floor) at `bad` or worse; (paths,), NaN stays NaN."""
    return impairment(metric, values, policy) * math.log(policy.utility_floor)


def network_weight(
    measured: dict[str, Array], injected: dict[str, Array], confidence: Array, policy: Policy
) -> NetworkWeight:
    """The weighted geometric mean of the metrics' utilities, in parts.

    `measured` and `injected` hold the metrics (NaN: unknown). An injected metric has less than half a say beside a
    measurement: a liar shifts a path within that bound. A metric that nobody knows of a path is left out of that
    path's mean. What confidence lacks is filled with the pessimistic utility.
    """
    exponents = {
        "latency_ms": policy.latency_exponent,
        "loss_ratio": policy.loss_exponent,
        "delay_variation_ms": policy.delay_variation_exponent,
        "bandwidth_bps": policy.bandwidth_exponent,
    }
    log_floor = math.log(policy.utility_floor)
    harm, share, total = {}, {}, np.zeros_like(confidence)
    impairments = {}
    for metric, exponent in exponents.items():
        own = impairment(metric, measured[metric], policy)
        said = impairment(metric, injected[metric], policy)
        only_own, only_said = np.isnan(said), np.isnan(own)
        both = (1 - INJECTED_SHARE) * own + INJECTED_SHARE * said
        mixed = np.where(only_own, own, np.where(only_said, said, both))
        known = ~np.isnan(mixed)
        harm[metric] = np.where(known, mixed, 0.0) * exponent
        # What a change of the value that counts changes: beside an injected one, the measured has the rest of the say.
        share[metric] = known * exponent * np.where(only_own | only_said, 1.0, 1 - INJECTED_SHARE)
        impairments[metric] = np.where(only_said, said, own)
        total += known * exponent
    certain = np.where(total > 0, confidence, 0.0) / np.where(total > 0, total, 1.0)
    contributions = {metric: certain * h * log_floor for metric, h in harm.items()}
    doubt = 1 - np.where(total > 0, confidence, 0.0)
    return NetworkWeight(
        contributions=contributions | {"uncertainty": doubt * math.log(policy.pessimistic_utility)},
        impairment=impairments,
        gain={metric: -certain * s * log_floor for metric, s in share.items()},
        values={m: np.where(np.isnan(measured[m]), injected[m], measured[m]) for m in exponents},
    )


INJECTED_SHARE: Final = 0.45


def _anchors(metric: str, policy: Policy) -> tuple[float, float]:
    return {
        "latency_ms": (policy.latency_good_ms, policy.latency_bad_ms),
        "loss_ratio": (policy.loss_good_ratio, policy.loss_bad_ratio),
        "delay_variation_ms": (policy.delay_variation_good_ms, policy.delay_variation_bad_ms),
        "bandwidth_bps": (policy.bandwidth_good_bps, policy.bandwidth_bad_bps),
    }[metric]
