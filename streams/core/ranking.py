"""Gates, scores and order of a primary's candidates, and why.

    score = baseline^beta x network x readiness x (1 - prediction) x (1 - shared risk)

Each contribution is a logarithm; they sum to ln score. Those of readiness, of a prediction, and of a risk that is
shared with the primary or with a better candidate, are there where they count.

Gates come first: a candidate that fails one is not eligible, with the reason, however good its score. The order is by
eligibility, then score (rounded to 6 digits), then region id.

Modes: THIN when too small a share of the candidates has fresh data (the target in use is kept), else PANIC when fewer
are eligible than there should be (the least bad is ranked, never a known-dead one), else NORMAL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.records import Array, Candidate, Mode, Policy
from streams.core.numbers import significant
from streams.core.reports import Standing
from streams.core.sensitivity import flips, log_score_error, order_confidence
from streams.core.verdicts import Shared
from streams.core.views import PathMetrics
from streams.core.weights import METRICS, NetworkWeight, Said, Scale, network_weight

# Gates in order: the first that holds is the reason.
UNKNOWN_REGION: Final = "UNKNOWN_REGION"
DRAINED: Final = "DRAINED"
UNHEALTHY: Final = "UNHEALTHY"
NO_ROUTE: Final = "NO_ROUTE"
NO_CAPACITY: Final = "NO_CAPACITY"
DOWN: Final = "DOWN"
VETOED: Final = "VETOED"
NOT_READY: Final = "NOT_READY"
EJECTED: Final = "EJECTED"
STALE: Final = "STALE"
NO_DATA: Final = "NO_DATA"
GATES: Final = (
    UNKNOWN_REGION, DRAINED, UNHEALTHY, NO_ROUTE, DOWN, VETOED, NOT_READY, EJECTED, NO_CAPACITY, STALE, NO_DATA
)  # fmt: skip
SOURCES_SHOWN: Final = 8  # of those that inject, in a ranking's contributions
# Never chosen, not even in PANIC: known to be dead, or ruled out by an operator.
DEAD: Final = frozenset((UNKNOWN_REGION, DRAINED, UNHEALTHY, NO_ROUTE, DOWN))


@dataclass(frozen=True)
class Ranked:
    """Candidates of a primary at a moment, in the configuration's order; `order` indexes them, best first.

    Arrays are (regions,). What is compared or published is rounded to 6 digits: `score` at once, the rest when asked.
    """

    regions: list[str]
    score: Array
    reasons: list[str | None]
    eligible: Array
    order: Array
    mode: Mode
    suspects: tuple[str, ...]
    policy: Policy
    ranks: Ranks  # which these are a part of, ...
    cells: slice  # ... and which part: what is asked for only where something is published is cut out then

    @cached_property
    def metrics(self) -> PathMetrics:
        """What was measured; its own `suspects` are left out."""
        return self.ranks.metrics.part(self.cells)

    @cached_property
    def parts(self) -> NetworkWeight:
        """What the network weight is made of."""
        return self.ranks.parts.part(self.cells)

    @cached_property
    def error(self) -> Array:
        """(regions,) standard error of ln score."""
        return log_score_error(self.parts, self.metrics)

    @property
    def order_confidence(self) -> float:
        """Probability that the first is really the best (see `sensitivity.py`)."""
        return order_confidence(self.order, self.eligible, self.score, self.error)

    @cached_property
    def baseline(self) -> Array:
        """(regions,) in (0, 1], rounded."""
        return significant(self.ranks.baseline[self.cells])

    @cached_property
    def network(self) -> Array:
        """(regions,) in (0, 1], rounded."""
        return significant(np.exp(self.ranks.log_network[self.cells]))

    @cached_property
    def contributions(self) -> dict[str, Array]:
        """(regions,) logarithm of each factor, rounded; they sum to that of the score."""
        baseline = self.policy.baseline_exponent * np.log(self.ranks.baseline[self.cells])
        rows = baseline, *self.parts.contributions, self.parts.uncertainty
        found = dict(zip(("baseline", *METRICS, "uncertainty"), rows, strict=True))
        found |= self._moved_by_sources(found)
        demotion = self.ranks.demotion
        readiness = self.ranks.readiness
        if readiness is not None and np.count_nonzero(readiness[self.cells]):
            found["readiness"] = readiness[self.cells]
        if demotion is not None and np.count_nonzero(demotion[self.cells]):
            found["prediction"] = demotion[self.cells]
        risk = self.ranks.risk
        if risk is not None and np.count_nonzero(risk[self.cells]):
            found["shared_risk"] = risk[self.cells]
        return dict(zip(found, significant(np.vstack(list(found.values()))), strict=True))

    def _moved_by_sources(self, measured: dict[str, Array]) -> dict[str, Array]:
        """(regions,) what each source moved, most first; and the baseline without its part. The last few are one."""
        said = self.ranks.said
        if said is None or self.parts.moved is None:
            return {}
        lost = self.policy.baseline_exponent * said.lost[:, self.cells]
        moved = self.parts.moved + said.sick[:, self.cells] + lost
        most = np.argsort(-np.abs(moved).max(axis=1), kind="stable")
        shown = [i for i in most.tolist() if np.count_nonzero(moved[i])]
        named = {f"injected:{said.sources[i]}": moved[i] for i in shown[:SOURCES_SHOWN]}
        if len(shown) > SOURCES_SHOWN:
            named["injected:others"] = moved[shown[SOURCES_SHOWN:]].sum(axis=0)
        return {"baseline": measured["baseline"] - lost.sum(axis=0), **named}

    @cached_property
    def _readiness(self) -> Array:
        """(regions,) in (0, 1], rounded: 1 unless what is known of it is old."""
        known = self.ranks.readiness
        return np.ones(len(self.regions)) if known is None else significant(np.exp(known[self.cells]))

    @cached_property
    def normalized(self) -> Array:
        """(regions,) score over the best eligible score; 0 when not eligible."""
        best = self.score[self.eligible].max() if self.eligible.any() else 1.0
        return np.where(self.eligible, significant(self.score / best), 0.0)

    def log_lead(self, one: int, other: int) -> float:
        """Logarithm of a score over another's. What a candidate shares with a better one puts it behind the rest, and
        is no reason to leave it: that is left out.
        """
        lead = float(np.log(self.score[one] / self.score[other]))
        among = self.ranks.risk_among
        if among is not None:
            lead += float(among[self.cells][other] - among[self.cells][one])
        return lead

    def best(self, barred: Array | None = None) -> str | None:
        """First choice: the best eligible; in PANIC the least bad that is not known to be dead; None: nobody.

        `barred` (regions,) bool: not to be chosen while another is eligible.
        """
        free = self.order if barred is None else self.order[~barred[self.order]]
        first = int(free[0]) if len(free) and self.eligible[free[0]] else int(self.order[0])
        if self.eligible[first] or (self.mode is Mode.PANIC and self.reasons[first] not in DEAD):
            return self.regions[first]
        return None

    def said(self, region: str) -> str | None:
        """Why it is not eligible, for people: with what the check of its readiness found; None: it is."""
        return self._said(self.regions.index(region)) if region in self.regions else None

    def _said(self, number: int) -> str | None:
        reason = self.reasons[number]
        return f"{reason}: {self.ranks.why[self.regions[number]]}" if reason == NOT_READY else reason

    def usable(self, region: str | None) -> bool:
        """Whether a target in use may stay: eligible; in THIN, or PANIC with nobody eligible, not known to be dead."""
        if region not in self.regions:
            return False
        reason = self.reasons[self.regions.index(region)]
        may = self.mode is Mode.THIN or (self.mode is Mode.PANIC and not self.eligible.any())
        return reason is None or (may and reason not in DEAD)

    def candidates(self, predicted: dict[str, float], waits: Array | None = None) -> list[Candidate]:
        """In order of rank; `waits` (regions,) bool: not to be chosen yet while another is eligible."""
        log_score = np.log(self.score)
        flip = flips(self.order, self.eligible, log_score, self.parts)
        confidence = significant(self.metrics.confidence).tolist()
        suspicion = significant(self.metrics.suspicion_ratio).tolist()
        readiness = self._readiness.tolist()
        contributions = {name: value.tolist() for name, value in self.contributions.items()}
        return [
            Candidate(
                region_id=self.regions[i],
                rank=rank,
                score=float(self.score[i]),
                normalized_score=float(self.normalized[i]),
                baseline_weight=float(self.baseline[i]),
                network_weight=float(self.network[i]),
                readiness=0.0 if self.reasons[i] in (UNHEALTHY, NOT_READY) else readiness[i],
                confidence=confidence[i],
                eligible=self.reasons[i] is None,
                predicted_disruption=predicted.get(self.regions[i]),
                ineligible_reason=self._said(i),
                suspicion_ratio=suspicion[i],
                waits=waits is not None and bool(waits[i]),
                contributions={name: value[i] for name, value in contributions.items()},
                flip=flip[i],
            )
            for rank, i in enumerate(self.order.tolist(), start=1)
        ]


class Ranks(NamedTuple):
    """The same at several moments; arrays (moments * regions,), moment by moment, but `order` (moments, regions)."""

    regions: list[str]
    score: Array
    baseline: Array
    log_network: Array
    reasons: list[str | None]
    eligible: Array
    order: Array
    modes: list[Mode]
    metrics: PathMetrics
    suspects: list[tuple[str, ...]]
    parts: NetworkWeight
    policy: Policy
    readiness: Array | None  # logarithms, 0 or less; None: nothing that is known of it is old
    why: Mapping[str, str]  # those that are not ready, and what their checks found
    demotion: Array | None  # logarithms, 0 or less; None: no prediction counts
    risk: Array | None  # the same of shared risks, ...
    risk_among: Array | None  # ... and that part of it that is shared with better candidates
    said: Said | None = None

    def at(self, moment: int) -> Ranked:
        """One of the moments."""
        cells = slice(moment * len(self.regions), (moment + 1) * len(self.regions))
        return Ranked(
            regions=self.regions,
            score=self.score[cells],
            reasons=self.reasons[cells],
            eligible=self.eligible[cells],
            order=self.order[moment],
            mode=self.modes[moment],
            suspects=self.suspects[moment],
            policy=self.policy,
            ranks=self,
            cells=cells,
        )


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
    closed = {name: gate for name, gate in gates.items() if gate is not None and np.count_nonzero(gate)}
    reasons = np.full(len(log_score), None, object)
    eligible, dead = np.ones(len(log_score), bool), np.zeros(len(log_score), bool)
    for name, gate in reversed(closed.items()):
        reasons[gate] = name
        eligible &= ~gate
        if name in DEAD:
            dead |= gate
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
        reasons=reasons.tolist(),
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


def path_weights(ranked: Ranked, bandwidth_bps: Array) -> dict[str, list[Any]]:
    """Columns of PathWeights: every path as published at a tick."""
    m = ranked.metrics
    weights = ranked.ranks.baseline[ranked.cells], np.exp(ranked.ranks.log_network[ranked.cells]), m.confidence
    measured = m.latency_ms, m.loss_ratio, m.delay_variation_ms, bandwidth_bps, m.age_ms
    baseline, network, confidence, *rounded = significant(np.array((*weights, *measured)))
    names = ("latency_ms", "loss_ratio", "delay_variation_ms", "bandwidth_bps", "age_ms")
    return {
        "weight": ranked.score.tolist(),
        "baseline_weight": baseline.tolist(),
        "network_weight": network.tolist(),
        "confidence": confidence.tolist(),
        **{name: _or_none(column) for name, column in zip(names, rounded, strict=True)},
    }


def _or_none(column: Array) -> list[float | None]:
    if np.count_nonzero(np.isfinite(column)) == len(column):
        return column.tolist()  # type: ignore[no-any-return]
    found = column.astype(object)
    found[~np.isfinite(column)] = None
    return found.tolist()  # type: ignore[no-any-return]
