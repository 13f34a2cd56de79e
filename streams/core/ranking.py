"""Scores and order of a primary's candidates, and the mode that they are ranked in.

    score = baseline^beta x network x readiness x (1 - prediction) x (1 - shared risk)

Gates come first: a candidate that fails one is not eligible, however good its score. The order is by eligibility, then
score (rounded to 6 digits), then region id.

Modes: THIN when too small a share of the candidates has fresh data (the target in use is kept), else PANIC when fewer
are eligible than there should be (the least bad is ranked, never a known-dead one), else NORMAL.
"""

from __future__ import annotations

import numpy as np

from schemas.records import Array, Mode, Policy
from streams.core.gates import (
    DOWN,
    DRAINED,
    EJECTED,
    NO_CAPACITY,
    NO_DATA,
    NO_ROUTE,
    NOT_READY,
    STALE,
    UNHEALTHY,
    UNKNOWN_REGION,
    VETOED,
    passed,
)
from streams.core.numbers import significant
from streams.core.ranked import Ranked, Ranks
from streams.core.reports import Standing
from streams.core.verdicts import Shared
from streams.core.views import PathMetrics
from streams.core.weights import Said, Scale, network_weight


def rank(
    regions: list[str],
    metrics: PathMetrics,
    policy: Policy,
    *,
    baseline: Array,
    known: Array,
    bandwidth_bps: Array,
    injected: Said | None = None,
    unhealthy: Array | None = None,
    drained: Array | None = None,
    no_route: Array | None = None,
    standing: Standing | None = None,
    ejected: Array | None = None,
    full: Array | None = None,
    demotion: Array | None = None,
    shared: Shared | None = None,
    name_order: Array | None = None,
    scale: Scale | None = None,
) -> Ranked:
    """Score and order the candidates.

    Shapes: all arrays (regions,). `injected`: what sources say; their part of the capacity is in the baseline already.
    `baseline` in (0, 1];
    `known`: in the catalogue or given a weight; `unhealthy`, `drained`,
    `no_route`, `ejected`: bool; `standing`: what is known of their readiness. `name_order`, each region's
    place in alphabetical order, and `scale` are the policy's and regions', if the caller knows them already.
    """
    return rank_at(
        regions,
        metrics,
        [metrics.suspects],
        policy,
        baseline=baseline,
        known=known,
        bandwidth_bps=bandwidth_bps,
        injected=injected,
        unhealthy=unhealthy,
        drained=drained,
        no_route=no_route,
        standing=standing or Standing(),
        ejected=ejected,
        full=full,
        demotion=demotion,
        shared=shared,
        name_order=np.argsort(np.argsort(regions)) if name_order is None else name_order,
        scale=scale or Scale.of(policy),
    ).at(0)


def rank_at(
    regions: list[str],
    metrics: PathMetrics,
    suspects: list[tuple[str, ...]],
    policy: Policy,
    *,
    baseline: Array,
    known: Array,
    bandwidth_bps: Array,
    injected: Said | None,
    unhealthy: Array | None,
    drained: Array | None,
    no_route: Array | None,
    standing: Standing,
    ejected: Array | None,
    full: Array | None,
    demotion: Array | None,
    shared: Shared | None,
    name_order: Array,
    scale: Scale,
) -> Ranks:
    """The same at several moments, whose suspects are given.

    Shapes: `metrics`, `ejected`, `unhealthy`, `demotion` (moments * regions,), moment by moment; the rest as `rank` has
    it, all the time.
    """
    moments, count = len(suspects), len(regions)
    readiness, not_ready = standing.log_factor, standing.not_ready
    if moments > 1:
        baseline, known, bandwidth_bps, name_order = (
            np.tile(each, moments) for each in (baseline, known, bandwidth_bps, name_order)
        )
        drained, no_route, readiness, not_ready, full = (
            None if each is None else np.tile(each, moments) for each in (drained, no_route, readiness, not_ready, full)
        )
    injected = None if injected is None else injected.tiled(moments)
    measured = np.array((metrics.latency_ms, metrics.loss_ratio, metrics.delay_variation_ms, bandwidth_bps))
    parts = network_weight(measured, injected, metrics.confidence, policy, scale)
    log_network = parts.log_weight
    log_score = policy.baseline_exponent * np.log(baseline) + log_network
    if injected is not None:
        log_score = log_score + injected.sick.sum(axis=0)
    if readiness is not None:
        log_score = log_score + readiness
    if demotion is not None:
        log_score = log_score + demotion
    fresh = is_fresh(metrics, policy)
    silent = np.isnan(metrics.age_ms)
    gates = {
        UNKNOWN_REGION: ~known,
        DRAINED: drained,
        UNHEALTHY: unhealthy,
        NO_ROUTE: no_route,
        DOWN: metrics.down,
        VETOED: metrics.vetoed,
        NOT_READY: not_ready,
        EJECTED: ejected,
        NO_CAPACITY: full,
        STALE: ~fresh & ~silent,
        NO_DATA: silent,
    }
    reasons, eligible, dead = passed(gates, len(log_score))
    keys, shape = (name_order, dead, ~eligible), (moments, count)
    risk = among = None
    if shared is not None:
        risk = np.tile(np.log1p(-policy.shared_risk_weight * shared.with_primary), moments)
        before = _order(significant(np.exp(log_score + risk)), *keys, shape)
        among = _shared_among(shared, before, eligible.reshape(shape), policy.shared_risk_weight)
        risk = risk + among
        log_score = log_score + risk
    score = significant(np.exp(log_score))
    order = _order(score, *keys, shape)
    return Ranks(
        regions=regions,
        score=score,
        log_network=log_network,
        baseline=baseline,
        reasons=reasons,
        eligible=eligible,
        order=order,
        modes=_modes(fresh.reshape(moments, count), eligible.reshape(moments, count), policy),
        metrics=metrics,
        suspects=suspects,
        parts=parts,
        policy=policy,
        readiness=readiness,
        why=standing.why,
        demotion=demotion,
        risk=risk,
        risk_among=among,
        said=injected,
    )


def _order(score: Array, name_order: Array, dead: Array, ineligible: Array, shape: tuple[int, int]) -> Array:
    """(moments, regions) which is first, second ...; the rest is (moments * regions,)."""
    keys, (moments, count) = (name_order, -score, dead, ineligible), shape
    if moments == 1:
        return np.lexsort(keys)[None]
    begin = np.arange(0, len(score), count)
    return np.lexsort((*keys, np.repeat(begin, count))).reshape(shape) - begin[:, None]


def _shared_among(shared: Shared, order: Array, eligible: Array, weight: float) -> Array:
    """(moments * regions,) what it costs each to share with one that is eligible and ahead; both (moments, regions)."""
    place = np.argsort(order, axis=1)
    better = (place[:, shared.other] < place[:, shared.one]) & eligible[:, shared.other]
    return shared.penalty(better, weight).reshape(-1)


def is_fresh(metrics: PathMetrics, policy: Policy) -> Array:
    """(regions,) bool: somebody who is not suspect measured it lately; never heard is not fresh."""
    return metrics.trusted & (metrics.age_ms <= policy.stale_after_ms)


def _modes(fresh: Array, eligible: Array, policy: Policy) -> list[Mode]:
    """Of each moment; both (moments, regions)."""
    wanted = policy.fresh_ratio_min * fresh.shape[1]
    counts = zip(map(np.count_nonzero, fresh), map(np.count_nonzero, eligible), strict=True)
    return [
        Mode.THIN if not new or new < wanted else Mode.PANIC if able < policy.eligible_min else Mode.NORMAL
        for new, able in counts
    ]
