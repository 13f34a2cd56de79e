"""What a ranking came to, at a moment and at several, with what may be asked of it: who is best, who may stay, and why.

Contributions are logarithms; they sum to ln score. Those of readiness, of a prediction, and of a risk that is
shared with the primary or with a better candidate, are there where they count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.records import Array, Candidate, Mode, Policy
from streams.core.gates import DEAD, NOT_READY, UNHEALTHY
from streams.core.numbers import significant
from streams.core.sensitivity import flips, log_score_error, order_confidence
from streams.core.views import PathMetrics
from streams.core.weights import METRICS, NetworkWeight, Said

SOURCES_SHOWN: Final = 8  # of those that inject, in a ranking's contributions


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
        """(regions,) logarithm of each factor, rounded; with what sources `moved` they sum to that of the score."""
        baseline = self.policy.baseline_exponent * np.log(self.ranks.baseline[self.cells])
        rows = baseline, *self.parts.contributions, self.parts.uncertainty
        found = dict(zip(("baseline", *METRICS, "uncertainty"), rows, strict=True))
        found["baseline"] = found["baseline"] - self._lost.sum(axis=0)
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

    @cached_property
    def moved(self) -> dict[str, Array]:
        """(regions,) logarithm of what each source moved, rounded, in order of name."""
        said = self.ranks.said
        if said is None or self.parts.moved is None:
            return {}
        moved = significant(self.parts.moved + said.sick[:, self.cells] + self._lost)
        return {f"injected:{source}": row for source, row in zip(said.sources, moved, strict=True)}

    @cached_property
    def _lost(self) -> Array:
        """(sources, regions) the part of the baseline's logarithm that is theirs."""
        said = self.ranks.said
        if said is None or self.parts.moved is None:
            return np.zeros((0, len(self.regions)))
        return self.policy.baseline_exponent * said.lost[:, self.cells]

    def _moved_most(self, number: int) -> dict[str, float]:
        """What sources moved of one region, most first and without those that moved nothing; the last few are one."""
        moved = {name: float(row[number]) for name, row in self.moved.items() if row[number]}
        most = sorted(moved, key=lambda name: -abs(moved[name]))
        shown = {name: moved[name] for name in most[:SOURCES_SHOWN]}
        if len(most) > SOURCES_SHOWN:
            shown["injected:others"] = float(significant(sum(moved[name] for name in most[SOURCES_SHOWN:])))
        return shown

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
                contributions={name: value[i] for name, value in contributions.items()} | self._moved_most(i),
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
