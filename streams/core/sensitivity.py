"""How sure an order is, and what would change it.

*Sure.* ln score is taken as normal about its value, with the standard error of the mean of ln latency, measured by the
differences of neighbouring panes. Loss needs no error of its own: it counts only as far as the probes prove it. Delay
variation, bandwidth and baseline are taken as exact, paths as independent. The probability that the first is really the
best is the product, over the other eligible, of the probability to be better than that one. All these comparisons share
the first's own error, so they are positively correlated, and the product is a lower bound (Slepian 1962).

*Flip.* A score rises steadily as one metric of its path improves, so the change that lifts a candidate just above the
first can be solved for. Changes of different metrics are compared on the policy's own scale from good to bad.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.records import Array, Flip, Policy
from streams.core.numbers import normal_cdf, significant
from streams.core.views import PathMetrics
from streams.core.weights import METRICS, NetworkWeight, at_impairment

# Both scores and the value to reach are rounded to six significant digits, each by up to 5e-6 of itself: a lead below
# this could be rounded away.
_ABOVE: Final = 2e-5


def log_score_error(network: NetworkWeight, m: PathMetrics, policy: Policy) -> Array:
    """(paths,) standard error of ln score; infinite where the spread is not known yet."""
    per_log = 1 / np.log(policy.latency_bad_ms / policy.latency_good_ms)
    error = network.gain["latency_ms"] * per_log * m.log_latency_error
    return np.where(np.isnan(error), np.inf, error)


def better_probability(lead: Array, error: Array, other_error: Array) -> Array:
    """Probability that a score is really above another, by the lead of its logarithm; shapes as given."""
    spread = np.hypot(error, other_error)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = np.where(spread > 0, lead / spread, np.where(lead == 0, 0.0, np.sign(lead) * np.inf))
    return normal_cdf(np.where(np.isnan(z), 0.0, z))


def order_confidence(order: Array, eligible: Array, score: Array, error: Array) -> float:
    """Probability that the first is really the best of the eligible; 0 when none is, 1 when it is the only one."""
    first = order[0]
    if not eligible[first]:
        return 0.0
    others = order[1:][eligible[order[1:]]]
    lead = np.log(score[first]) - np.log(score[others])
    return float(significant(better_probability(lead, error[first], error[others]).prod()))


def flips(order: Array, eligible: Array, log_score: Array, network: NetworkWeight, policy: Policy) -> list[Flip | None]:
    """Of each path the smallest change of one metric that would put it first; None: it is first, or none would."""
    found: list[Flip | None] = [None] * len(order)
    if not eligible[order[0]]:
        return found
    lacking = log_score[order[0]] - log_score + _ABOVE
    size = np.full((len(METRICS), len(order)), np.inf)
    for row, metric in enumerate(METRICS):
        gain, room = network.gain[metric], network.impairment[metric]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            change = np.where(gain > 0, lacking / gain, np.inf)
        size[row] = np.where(change <= np.nan_to_num(room), change, np.inf)
    smallest = size.argmin(axis=0)
    change = size[smallest, np.arange(len(order))]
    able = eligible & np.isfinite(change)
    able[order[0]] = False
    for row, metric in enumerate(METRICS):
        mine = np.flatnonzero(able & (smallest == row))
        to = at_impairment(metric, network.impairment[metric][mine] - change[mine], policy)
        for i, before, after in zip(
            mine.tolist(), significant(network.values[metric][mine]).tolist(), significant(to).tolist(), strict=True
        ):
            found[i] = Flip(metric, before, after)
    return found
