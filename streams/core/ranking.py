"""Gates, scores and order of a primary's candidates, and why.

    score = baseline^beta x network x readiness        (each contribution is a logarithm; they sum to ln score)

Gates come first: a candidate that fails one is not eligible, with the reason, however good its score. The order is by
eligibility, then score (rounded to 6 digits), then region id.

Modes: THIN when too small a share of the candidates has fresh data (the target in use is kept), else PANIC when fewer
are eligible than there should be (the least bad is ranked, never a known-dead one), else NORMAL.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from schemas.records import Array, Candidate, Mode, Policy
from streams.core.numbers import significant
from streams.core.sensitivity import flips, log_score_error, order_confidence
from streams.core.views import PathMetrics
from streams.core.weights import METRICS, NetworkWeight, network_weight

# Gates in order: the first that holds is the reason.
UNKNOWN_REGION: Final = "UNKNOWN_REGION"
DRAINED: Final = "DRAINED"
UNHEALTHY: Final = "UNHEALTHY"
DOWN: Final = "DOWN"
VETOED: Final = "VETOED"
EJECTED: Final = "EJECTED"
STALE: Final = "STALE"
NO_DATA: Final = "NO_DATA"
GATES: Final = (UNKNOWN_REGION, DRAINED, UNHEALTHY, DOWN, VETOED, EJECTED, STALE, NO_DATA)
# Never chosen, not even in PANIC: known to be dead, or ruled out by an operator.
DEAD: Final = frozenset((UNKNOWN_REGION, DRAINED, UNHEALTHY, DOWN))


@dataclass(frozen=True)
class Ranked:
    """Candidates of a primary at a moment, in the configuration's order; `order` indexes them, best first."""

    regions: list[str]
    score: Array
    normalized: Array
    baseline: Array
    network: Array
    contributions: dict[str, Array]
    reasons: list[str | None]
    eligible: Array
    order: Array
    mode: Mode
    metrics: PathMetrics
    parts: NetworkWeight
    policy: Policy

    @cached_property
    def error(self) -> Array:
        """(regions,) standard error of ln score."""
        return log_score_error(self.parts, self.metrics, self.policy)

    @property
    def order_confidence(self) -> float:
        """Probability that the first is really the best (see `sensitivity.py`)."""
        return order_confidence(self.order, self.eligible, self.score, self.error)

    def best(self, barred: Array | None = None) -> str | None:
        """First choice: the best eligible; in PANIC the least bad that is not known to be dead; None: nobody.

        `barred` (regions,) bool: not to be chosen while another is eligible.
        """
        free = self.order if barred is None else self.order[~barred[self.order]]
        first = int(free[0]) if len(free) and self.eligible[free[0]] else int(self.order[0])
        if self.eligible[first] or (self.mode is Mode.PANIC and self.reasons[first] not in DEAD):
            return self.regions[first]
        return None

    def usable(self, region: str | None) -> bool:
        """Whether a target in use may stay: eligible; in THIN, or PANIC with nobody eligible, not known to be dead."""
        if region not in self.regions:
            return False
        reason = self.reasons[self.regions.index(region)]
        may = self.mode is Mode.THIN or (self.mode is Mode.PANIC and not self.eligible.any())
        return reason is None or (may and reason not in DEAD)

    def candidates(self, predicted: dict[str, float], waits: Array | None = None) -> list[Candidate]:
        """In order of rank; `waits` (regions,) bool: held back by the failback policy."""
        log_score = np.log(self.score)
        flip = flips(self.order, self.eligible, log_score, self.parts, self.policy)
        confidence = significant(self.metrics.confidence).tolist()
        suspicion = significant(self.metrics.suspicion_ratio).tolist()
        contributions = {name: value.tolist() for name, value in self.contributions.items()}
        return [
            Candidate(
                region_id=self.regions[i],
                rank=rank,
                score=float(self.score[i]),
                normalized_score=float(self.normalized[i]),
                baseline_weight=float(self.baseline[i]),
                network_weight=float(self.network[i]),
                readiness=0.0 if self.reasons[i] == UNHEALTHY else 1.0,
                confidence=confidence[i],
                eligible=self.reasons[i] is None,
                predicted_disruption=predicted.get(self.regions[i]),
                ineligible_reason=self.reasons[i],
                suspicion_ratio=suspicion[i],
                waits=waits is not None and bool(waits[i]),
                contributions={name: value[i] for name, value in contributions.items()},
                flip=flip[i],
            )
            for rank, i in enumerate(self.order.tolist(), start=1)
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
    drained: Array | None = None,
    ejected: Array | None = None,
    name_order: Array | None = None,
) -> Ranked:
    """Score and order the candidates.

    Shapes: all arrays (regions,). `baseline` in (0, 1]; `known`: bool, in the catalogue or given a weight;
    `bandwidth_bps` and `injected` (by metric, and `healthy`) NaN where nobody said so; `drained`, `ejected`: bool;
    `name_order`: each region's place in alphabetical order, if the caller knows it already.
    """
    measured = {
        "latency_ms": metrics.latency_ms,
        "loss_ratio": metrics.loss_ratio,
        "delay_variation_ms": metrics.delay_variation_ms,
        "bandwidth_bps": bandwidth_bps,
    }
    parts = network_weight(measured, {m: injected[m] for m in METRICS}, metrics.confidence, policy)
    logs = {"baseline": policy.baseline_exponent * np.log(baseline), **parts.contributions}
    contributions = dict(zip(logs, significant(np.stack(list(logs.values()))), strict=True))
    log_network = np.sum(list(parts.contributions.values()), axis=0)
    score, network, shown_baseline = significant(
        np.stack((np.exp(contributions["baseline"] + log_network), np.exp(log_network), baseline))
    )
    no = np.zeros(len(regions), bool)
    gates = {
        UNKNOWN_REGION: ~known,
        DRAINED: no if drained is None else drained,
        UNHEALTHY: injected["healthy"] == 0,
        DOWN: metrics.down,
        VETOED: metrics.vetoed,
        EJECTED: no if ejected is None else ejected,
        STALE: ~np.isnan(metrics.age_ms) & ~_fresh(metrics, policy),
        NO_DATA: np.isnan(metrics.age_ms),
    }
    reasons = np.full(len(regions), None, object)
    for name in reversed(GATES):
        reasons[gates[name]] = name
    eligible = ~np.any(list(gates.values()), axis=0)
    dead = np.any([gates[name] for name in DEAD], axis=0)
    names = np.argsort(np.argsort(regions)) if name_order is None else name_order
    order = np.lexsort((names, -score, dead, ~eligible))
    best = score[eligible].max() if eligible.any() else 1.0
    return Ranked(
        regions=regions,
        score=score,
        normalized=np.where(eligible, significant(score / best), 0.0),
        baseline=shown_baseline,
        network=network,
        contributions=contributions,
        reasons=reasons.tolist(),
        eligible=eligible,
        order=order,
        mode=_mode(_fresh(metrics, policy), eligible, policy),
        metrics=metrics,
        parts=parts,
        policy=policy,
    )


def _fresh(metrics: PathMetrics, policy: Policy) -> Array:
    """(regions,) bool: somebody who is not suspect measured it lately; never heard is not fresh."""
    return metrics.trusted & (metrics.age_ms <= policy.stale_after_ms)


def _mode(fresh: Array, eligible: Array, policy: Policy) -> Mode:
    if not fresh.any() or fresh.mean() < policy.fresh_ratio_min:
        return Mode.THIN
    return Mode.PANIC if eligible.sum() < policy.eligible_min else Mode.NORMAL


def path_weights(ranked: Ranked, bandwidth_bps: Array) -> dict[str, list[Any]]:
    """Columns of PathWeights: every path as published at a tick."""
    m = ranked.metrics
    measured = {
        "confidence": m.confidence,
        "latency_ms": m.latency_ms,
        "loss_ratio": m.loss_ratio,
        "delay_variation_ms": m.delay_variation_ms,
        "bandwidth_bps": bandwidth_bps,
        "age_ms": m.age_ms,
    }
    rounded = dict(zip(measured, significant(np.stack(list(measured.values()))), strict=True))
    return {
        "weight": ranked.score.tolist(),
        "baseline_weight": ranked.baseline.tolist(),
        "network_weight": ranked.network.tolist(),
        **{name: _or_none(column) for name, column in rounded.items()},
    }


def _or_none(column: Array) -> list[float | None]:
    found = column.astype(object)
    found[~np.isfinite(column)] = None
    return found.tolist()  # type: ignore[no-any-return]
