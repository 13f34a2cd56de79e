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

from schemas.records import Array, Flip
from streams.core.numbers import normal_cdf, significant
from streams.core.views import PathMetrics
from streams.core.weights import METRICS, NetworkWeight

# Both scores and the value to reach are rounded to six significant digits, each by up to 5e-6 of itself: a lead below
# this could be rounded away.
_ABOVE: Final = 2e-5
_LATENCY: Final = METRICS.index("latency_ms")


def log_score_error(network: NetworkWeight, m: PathMetrics) -> Array:
    """(paths,) standard error of ln score; infinite where the spread is not known yet."""
    per_log = 1 / np.log(network.scale.bad[_LATENCY, 0] / network.scale.good[_LATENCY, 0])
    error = network.gain[_LATENCY] * per_log * m.log_latency_error
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


def flips(order: Array, eligible: Array, log_score: Array, network: NetworkWeight) -> list[Flip | None]:
    """Of each path the smallest change of one metric that would put it first; None: it is first, or none would."""
    found: list[Flip | None] = [None] * len(order)
    if not eligible[order[0]]:
        return found
    lacking = log_score[order[0]] - log_score + _ABOVE
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        size = lacking / network.gain  # of the impairment; infinite where nobody knows the metric
    size = np.where(size <= np.nan_to_num(network.impairment), size, np.inf)
    smallest, path = size.argmin(axis=0), np.arange(len(order))
    able = eligible & np.isfinite(size[smallest, path])
    able[order[0]] = False
    metric, path = smallest[able], path[able]
    # Bounded for the sake of those that no change would lift: theirs is thrown away.
    to = network.scale.at_impairment(np.minimum(np.maximum(network.impairment - size, 0.0), 1.0))
    values = significant(np.array((network.values[metric, path], to[metric, path]))).tolist()
    for i, row, before, after in zip(path.tolist(), metric.tolist(), *values, strict=True):
        found[i] = Flip(METRICS[row], before, after)
    return found
