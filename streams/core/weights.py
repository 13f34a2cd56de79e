"""Utilities of what is measured, and the network weight: their weighted geometric mean.

A utility is anchored in the operator's objectives ("good", "bad"), never in the other candidates, so a candidate that
joins or leaves reorders nobody. Everything is kept as natural logarithms: a ranking's explanation is then a sum.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.records import Array, Policy

METRICS: Final = ("latency_ms", "loss_ratio", "delay_variation_ms", "bandwidth_bps")


def log_utility(metric: str, values: Array, policy: Policy) -> Array:
    """ln of a metric's utility: 0 at `good` or better, ln(utility_floor) at `bad` or worse.

    Between, it is linear in the metric's logarithm (impairment goes with ratios of delay and bandwidth), for loss in
    the ratio itself (a retransmission costs the same at 1 % as at 10 %). Shapes: (paths,) in and out; NaN stays NaN.
    """
    good, bad = _anchors(metric, policy)
    if metric == "loss_ratio":
        impairment = (values - good) / (bad - good)
    else:
        with np.errstate(divide="ignore"):
            impairment = (np.log(values) - np.log(good)) / (np.log(bad) - np.log(good))
    return np.clip(impairment, 0.0, 1.0) * np.log(policy.utility_floor)  # type: ignore[no-any-return]


def network_contributions(
    measured: dict[str, Array], injected: dict[str, Array], confidence: Array, policy: Policy
) -> dict[str, Array]:
    """ln of each metric's share of the network weight, by metric, and `uncertainty`; each (paths,), they sum to ln N.

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
    logs, total = {}, np.zeros_like(confidence)
    for metric, exponent in exponents.items():
        own = log_utility(metric, measured[metric], policy)
        said = log_utility(metric, injected[metric], policy)
        both = (1 - INJECTED_SHARE) * own + INJECTED_SHARE * said
        log = np.where(np.isnan(said), own, np.where(np.isnan(own), said, both))
        known = ~np.isnan(log)
        logs[metric] = np.where(known, log, 0.0) * exponent
        total += known * exponent
    divisor = np.where(total > 0, total, 1.0)
    certain = np.where(total > 0, confidence, 0.0)
    found = {metric: certain * log / divisor for metric, log in logs.items()}
    found["uncertainty"] = (1 - certain) * np.log(policy.pessimistic_utility)
    return found


INJECTED_SHARE: Final = 0.45


def _anchors(metric: str, policy: Policy) -> tuple[float, float]:
    return {
        "latency_ms": (policy.latency_good_ms, policy.latency_bad_ms),
        "loss_ratio": (policy.loss_good_ratio, policy.loss_bad_ratio),
        "delay_variation_ms": (policy.delay_variation_good_ms, policy.delay_variation_bad_ms),
        "bandwidth_bps": (policy.bandwidth_good_bps, policy.bandwidth_bad_bps),
    }[metric]
