"""Gates, scores and order of a primary's candidates, and why.

    score = baseline^beta x network x readiness        (each contribution is a logarithm; they sum to ln score)

Gates come first: a candidate that fails one is not eligible, with the reason, however good its score. The order is by
eligibility, then score (rounded to 6 digits), then region id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas.records import Array, Candidate, Mode, Policy
from streams.core.numbers import normal_cdf, significant
from streams.core.paths import PathMetrics
from streams.core.weights import METRICS, network_contributions

# Gates in order: the first that holds is the reason. A known-dead candidate is not ranked even in PANIC.
UNKNOWN_REGION: Final = "UNKNOWN_REGION"
UNHEALTHY: Final = "UNHEALTHY"
NO_DATA: Final = "NO_DATA"
STALE: Final = "STALE"
DOWN: Final = "DOWN"
DEAD: Final = frozenset((DOWN, UNHEALTHY, UNKNOWN_REGION))


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates of a primary at a moment, in the configuration's order; `order` indexes them, best first."""

    regions: list[str]
    score: Array
    normalized: Array
    baseline: Array
    network: Array
    contributions: dict[str, Array]
    reasons: list[str | None]
    order: list[int]
    mode: Mode
    order_confidence: float
    metrics: PathMetrics

    def best(self) -> str | None:
        """First choice: the best eligible; in PANIC the least bad that is not known to be dead; None: nobody."""
        first = self.order[0]
        if self.reasons[first] is None or (self.mode is Mode.PANIC and self.reasons[first] not in DEAD):
            return self.regions[first]
        return None

    def usable(self, region: str | None) -> bool:
        """Whether a target in use may stay: eligible, or in THIN and PANIC not known to be dead."""
        if region not in self.regions:
            return False
        reason = self.reasons[self.regions.index(region)]
        return reason is None or (self.mode is not Mode.NORMAL and reason not in DEAD)

    def candidates(self, predicted: dict[str, float]) -> list[Candidate]:
        """In order of rank."""
        m = self.metrics
        return [
            Candidate(
                region_id=self.regions[i],
                rank=rank,
                score=float(self.score[i]),
                normalized_score=float(self.normalized[i]),
                baseline_weight=float(self.baseline[i]),
                network_weight=float(self.network[i]),
                readiness=0.0 if self.reasons[i] == UNHEALTHY else 1.0,
                confidence=float(significant(m.confidence[i])),
                eligible=self.reasons[i] is None,
                predicted_disruption=predicted.get(self.regions[i]),
                ineligible_reason=self.reasons[i],
                contributions={name: float(value[i]) for name, value in self.contributions.items()},
            )
            for rank, i in enumerate(self.order, start=1)
        ]


def rank(
    regions: list[str],
    metrics: PathMetrics,
    policy: Policy,
    *,
    baseline: Array,
    known: Array,
    bandwidth_bps: Array,
    injected: dict[str, Array],
) -> Ranked:
    """Score and order the candidates.

    Shapes: all arrays (regions,). `baseline` in (0, 1]; `known`: bool, in the catalogue or given a weight;
    `bandwidth_bps` and `injected` (by metric, and `healthy`) NaN where nobody said so.
    """
    measured = {
        "latency_ms": metrics.latency_ms,
        "loss_ratio": metrics.loss_ratio,
        "delay_variation_ms": metrics.delay_variation_ms,
        "bandwidth_bps": bandwidth_bps,
    }
    logs = network_contributions(measured, {m: injected[m] for m in METRICS}, metrics.confidence, policy)
    log_network = sum(logs.values(), np.zeros(len(regions)))
    contributions = {"baseline": policy.baseline_exponent * np.log(baseline), **logs}
    contributions = {name: significant(value) for name, value in contributions.items()}
    score = significant(np.exp(contributions["baseline"] + log_network))
    reasons = _gates(known, metrics, injected["healthy"], policy)
    eligible = np.array([r is None for r in reasons])
    dead = np.array([r in DEAD for r in reasons])
    order = sorted(range(len(regions)), key=lambda i: (not eligible[i], bool(dead[i]), -score[i], regions[i]))
    fresh = int((metrics.age_ms <= policy.stale_after_ms).sum())  # NaN, never heard, is not
    mode = Mode.NORMAL if eligible.any() else Mode.PANIC if fresh else Mode.THIN
    best = score[eligible].max() if eligible.any() else 1.0
    return Ranked(
        regions=regions,
        score=score,
        normalized=np.where(eligible, significant(score / best), 0.0),
        baseline=significant(baseline),
        network=significant(np.exp(log_network)),
        contributions=contributions,
        reasons=reasons,
        order=order,
        mode=mode,
        order_confidence=_order_confidence(order, eligible, score, metrics),
        metrics=metrics,
    )


def path_weights(ranked: Ranked, bandwidth_bps: Array) -> dict[str, list[Any]]:
    """Columns of PathWeights: every path as published at a tick."""
    m = ranked.metrics
    published = {
        "weight": np.exp(sum(ranked.contributions.values(), np.zeros(len(ranked.regions)))),
        "baseline_weight": ranked.baseline,
        "network_weight": ranked.network,
        "confidence": m.confidence,
        "latency_ms": m.latency_ms,
        "loss_ratio": m.loss_ratio,
        "delay_variation_ms": m.delay_variation_ms,
        "bandwidth_bps": bandwidth_bps,
        "age_ms": m.age_ms,
    }
    rounded = {name: significant(column) for name, column in published.items()}
    return {name: _or_none(column) for name, column in rounded.items()}


def _or_none(column: Array) -> list[float | None]:
    found = column.astype(object)
    found[~np.isfinite(column)] = None
    return found.tolist()  # type: ignore[no-any-return]


def _gates(known: Array, metrics: PathMetrics, healthy: Array, policy: Policy) -> list[str | None]:
    reasons = np.full(len(known), None, object)
    # Later lines win, so they stand in reverse order of importance.
    reasons[np.isnan(metrics.age_ms)] = NO_DATA
    with np.errstate(invalid="ignore"):
        reasons[metrics.age_ms > policy.stale_after_ms] = STALE
    reasons[metrics.down] = DOWN
    reasons[healthy == 0] = UNHEALTHY
    reasons[~known] = UNKNOWN_REGION
    return list(reasons)


def _order_confidence(order: list[int], eligible: Array, score: Array, m: PathMetrics) -> float:
    """Probability that the first is really better than the second, given how much their measurements spread.

    ln score is taken as normal: its standard deviation is that of the mean latency (delay variation's 95th percentile
    over 1.645 and the latency, over the root of the samples) plus what confidence lacks.
    """
    if len(order) < 2 or not eligible[order[1]]:
        return 1.0 if eligible[order[0]] else 0.0
    pair = np.array(order[:2])
    latency_ms = np.maximum(m.latency_ms[pair], 1e-3)  # panes count whole microseconds: a shorter one is 0
    relative = np.nan_to_num(m.delay_variation_ms[pair] / latency_ms) / 1.645
    deviation = relative / np.sqrt(np.maximum(m.samples[pair], 1.0)) + (1.0 - m.confidence[pair])
    spread = float(np.sqrt((deviation**2).sum()))
    lead = float(np.log(score[pair[0]] / score[pair[1]]))
    return float(significant(normal_cdf(lead / spread) if spread > 0 else 0.5 if lead == 0 else 1.0))
