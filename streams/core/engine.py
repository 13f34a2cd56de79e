"""FailoverEngine: the whole decision for one primary region, as a fold.

    fold(record)   take in one record of the journal; says whether to decide at once
    tick(now)      measure, rank, hold down, and say what to publish
    save / load    its state, for snapshots

It knows nothing of Kafka and has no clock: `now_ms` is journal time (the broker's append time), `observed_ms` the
part of it in which records reached us.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from schemas.codec import encode, from_plain, to_plain
from schemas.records import (
    Advice,
    AgentHealth,
    Array,
    BandwidthMeasurement,
    DisruptionPrediction,
    Event,
    FailoverConfiguration,
    FailoverRanking,
    InjectedMetric,
    Mode,
    PathPanes,
    PathWeights,
    Region,
)
from streams.core.baseline import baseline_weights, great_circle_km
from streams.core.holddown import HoldDown, Phase, Signal
from streams.core.paths import Paths
from streams.core.prediction import Predictor
from streams.core.ranking import Ranked, path_weights, rank
from streams.core.weights import METRICS

ENGINE_VERSION: Final = "1"
# Values of a primary in force at once; beyond, the earliest to expire goes. Whoever invents sources without end must
# not make a snapshot that the broker refuses.
_INJECTED_MAX: Final = 1000
Published = FailoverRanking | PathWeights | DisruptionPrediction
Catalogue = Mapping[str, Region]


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the last published ranking said: the next one is published when this has changed."""

    order: tuple[str, ...] = ()
    eligible: tuple[str, ...] = ()
    mode: str = ""
    advice: str = ""
    target: str | None = None
    scores: tuple[float, ...] = ()  # in the order of the configuration
    at_ms: int = 0


class FailoverEngine:
    """One primary region; made by its first configuration."""

    def __init__(self, configuration: FailoverConfiguration, catalogue: Catalogue) -> None:
        self.configuration = configuration
        self.sequence = 0
        self.muted = False  # set while a journal record of the version change is awaited
        self.skip_below = 0  # journal offset that the restored snapshot covers
        self._paths = Paths()
        self._predictor = Predictor(len(configuration.potential_failover_regions))
        self._hold = HoldDown()
        self._previous: str | None = None
        self._shown = _Shown()
        self._events: list[Event] = [Event.CONFIG_ACCEPTED]
        self._evidence_at_ms = 0
        self._injected: dict[str, list[Any]] = {}
        self._predicted: dict[str, float] = {}
        self._bandwidth = np.full(len(configuration.potential_failover_regions), np.nan)
        self.catalogue_changed(catalogue)

    @property
    def primary(self) -> str:
        return self.configuration.primary_region

    @property
    def target(self) -> str | None:
        """The candidate in use; None: nowhere."""
        return self._hold.target

    # -- taking records in ------------------------------------------------------------------------------------------

    def panes(self, panes: PathPanes, now_ms: int, observed_ms: float, appended_at_ms: int) -> None:
        """Samples, condensed."""
        self._evidence_at_ms = max(self._evidence_at_ms, appended_at_ms)
        self._paths.fold(panes, self._numbers(), self.configuration.policy, now_ms, observed_ms)

    def bandwidth(self, measurement: BandwidthMeasurement) -> None:
        """Capacity of one path, as last measured."""
        number = self._numbers().get(measurement.target_region)
        if number is not None:
            self._bandwidth[number] = measurement.bandwidth_bps

    def agent_health(self, health: AgentHealth) -> None:
        """An agent about itself. Its samples say already which of them it doubts; nothing is decided by this yet."""

    def inject(self, metric: InjectedMetric, now_ms: int) -> bool:
        """A metric from outside, until it expires; True when it has to be decided upon at once."""
        key = f"{metric.target_region or ''} {metric.metric} {metric.source}"
        observed_at_ms = min(metric.observed_at_ms, now_ms)
        known = self._injected.get(key)
        if known is None or observed_at_ms >= known[2]:  # what comes late does not replace what is newer
            self._injected[key] = [metric.value, observed_at_ms + metric.ttl_ms, observed_at_ms]
        if len(self._injected) > _INJECTED_MAX:
            del self._injected[min(self._injected, key=lambda k: (self._injected[k][1], k))]
        return metric.metric == "healthy"

    def configure(self, configuration: FailoverConfiguration, catalogue: Catalogue) -> None:
        """Compare and set: accepted only if it is based on the version in force; the next ranking says which."""
        in_force = self.configuration
        if configuration == in_force:  # applied twice: the answer is the same
            self._events.append(Event.CONFIG_ACCEPTED)
            return
        if configuration.based_on != in_force.version:
            self._events.append(Event.CONFIG_REJECTED)
            return
        self._events.append(Event.CONFIG_ACCEPTED)
        self.configuration = configuration
        new = self._numbers()
        old = in_force.potential_failover_regions
        place = {i: new[region] for i, region in enumerate(old) if region in new}
        self._paths.renumber(place)
        self._predictor.renumber(place, len(new))
        bandwidth, self._bandwidth = self._bandwidth, np.full(len(new), np.nan)
        for before, after in place.items():
            self._bandwidth[after] = bandwidth[before]
        self.catalogue_changed(catalogue)

    def catalogue_changed(self, catalogue: Catalogue) -> None:
        """Distances and capacities may be others now."""
        regions = self.configuration.potential_failover_regions
        home = catalogue.get(self.primary)
        found = [catalogue.get(r) for r in regions]
        self._in_catalogue = np.array([home is not None and r is not None for r in found])
        self._capacity = np.array([r.capacity_ratio if r else 1.0 for r in found])
        latitude, longitude = (
            np.array([getattr(r, a) if r else 0.0 for r in found]) for a in ("latitude", "longitude")
        )
        self._distance_km = (
            great_circle_km(home.latitude, home.longitude, latitude, longitude) if home else np.zeros(len(regions))
        )

    def gap(self, highest_sequence: int) -> None:
        """Journal records are gone for ever; the next ranking says so, above the numbers reached with them."""
        self._events.append(Event.GAP)
        self.sequence = max(self.sequence, highest_sequence)

    # -- deciding ---------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int, observed_ms: float) -> list[Published]:
        """Measure, rank, hold down; returns what to publish, in order."""
        policy, regions = self.configuration.policy, self.configuration.potential_failover_regions
        injected, capacity, advice = self._said(now_ms)
        ranked = rank(
            regions,
            self._paths.metrics(len(regions), policy, observed_ms),
            policy,
            baseline=self._baseline(capacity),
            known=self._in_catalogue | np.array([r in self.configuration.weights for r in regions]),
            bandwidth_bps=self._bandwidth,
            injected=injected,
        )
        published: list[Published] = [
            PathWeights(self.primary, now_ms, self._evidence_at_ms, regions, **path_weights(ranked, self._bandwidth))
        ]
        prediction = self._predictor.step(self.primary, regions, ranked.metrics, policy, now_ms)
        if prediction is not None:
            self._predicted = {p.target_region: p.probability for p in prediction.paths}
            published.append(prediction)
        ranking = self._ranking(ranked, advice, now_ms)
        if ranking is not None:
            published.append(ranking)
        if not self.muted:
            return published
        self.sequence -= ranking is not None
        return []

    def unmute(self, highest_sequence: int) -> None:
        """Another engine version decided before: go on above its numbers, and say at once how things stand."""
        self.muted, self.sequence, self._shown = False, max(self.sequence, highest_sequence), _Shown()

    def _baseline(self, capacity_ratio: Array) -> Array:
        weights = baseline_weights(
            self._distance_km, self._capacity * capacity_ratio, self.configuration.policy.proximity_scale_km
        )
        for i, region in enumerate(self.configuration.potential_failover_regions):
            weights[i] = self.configuration.weights.get(region, weights[i])
        return weights

    def _said(self, now_ms: int) -> tuple[dict[str, Array], Array, Advice]:
        """Injected metrics in force by metric, (regions,) each: the median of the sources, the worst for `healthy`."""
        self._injected = {k: v for k, v in self._injected.items() if v[1] > now_ms}
        numbers = self._numbers()
        values: dict[tuple[str, str], list[float]] = {}
        for key in sorted(self._injected):
            target, metric, _ = key.split(" ", 2)
            values.setdefault((metric, target), []).append(self._injected[key][0])
        said = {metric: np.full(len(numbers), np.nan) for metric in (*METRICS, "healthy", "capacity_ratio")}
        for (metric, target), each in values.items():
            if target in numbers:
                said[metric][numbers[target]] = min(each) if metric == "healthy" else float(np.median(each))
        # About the primary itself, one source is a suspicion and no verdict: prepare, do not move.
        advice = Advice.PREPARE if min(values.get(("healthy", ""), [1.0])) == 0 else Advice.HOLD
        capacity = np.maximum(np.nan_to_num(said.pop("capacity_ratio"), nan=1.0), 1e-6)
        return said, capacity, advice

    def _ranking(self, ranked: Ranked, advice: Advice, now_ms: int) -> FailoverRanking | None:
        policy, target_before = self.configuration.policy, self._hold.target
        best, usable = ranked.best(), ranked.usable(target_before)
        leads = usable and best not in (None, target_before) and self._leads(ranked, best, target_before)
        self._hold, signal = self._hold.step(best, usable=usable, leads=leads, now_ms=now_ms, dwell_ms=policy.dwell_ms)
        if self._hold.target != target_before:
            self._previous = target_before
        events = self._changes(_shown(ranked, advice, self._hold.target, now_ms), target_before)
        if not events:
            return None
        if not self.muted:  # what happens meanwhile is said when we may speak again
            self._events = []
        self.sequence += 1
        self._shown = _shown(ranked, advice, self._hold.target, now_ms)
        ranking = FailoverRanking(
            decision_id="",
            sequence=self.sequence,
            decided_at_ms=now_ms,
            evidence_at_ms=self._evidence_at_ms,
            primary_region=self.primary,
            mode=ranked.mode,
            advice=advice,
            events=[str(e) for e in events],
            reason=self._reason(ranked, signal, target_before),
            config_version=self.configuration.version,
            stale_after_ms=3 * policy.heartbeat_ms,
            order_confidence=ranked.order_confidence,
            candidates=ranked.candidates(self._predicted),
            target_region=self._hold.target,
            previous_target_region=self._previous,
        )
        return replace(ranking, decision_id=hashlib.blake2b(encode(ranking), digest_size=16).hexdigest())

    def _leads(self, ranked: Ranked, best: str | None, target: str | None) -> bool:
        mine, its = (ranked.score[ranked.regions.index(r)] for r in (best, target) if r is not None)
        return bool(mine > its * (1 + self.configuration.policy.margin_ratio))

    def _changes(self, now: _Shown, target_before: str | None) -> list[Event]:
        shown, policy = self._shown, self.configuration.policy
        events = list(dict.fromkeys(self._events))
        if now.target != shown.target or now.target != target_before:
            events.append(Event.TARGET_CHANGED)
        if now.mode != shown.mode:
            events.append(Event.MODE_CHANGED)
        if now.advice != shown.advice:
            events.append(Event.ADVICE_CHANGED)
        if now.eligible != shown.eligible:
            events.append(Event.ELIGIBILITY_CHANGED)
        if now.order != shown.order:
            events.append(Event.ORDER_CHANGED)
        elif len(now.scores) == len(shown.scores) and any(
            abs(a - b) > policy.publish_score_delta_ratio * b for a, b in zip(now.scores, shown.scores, strict=True)
        ):
            events.append(Event.SCORE_MOVED)
        if not events and now.at_ms - shown.at_ms >= policy.heartbeat_ms:
            events.append(Event.HEARTBEAT)
        return events

    def _reason(self, ranked: Ranked, signal: Signal, before: str | None) -> str:
        target = self._hold.target
        reason_of = dict(zip(ranked.regions, ranked.reasons, strict=True))
        if target is None:
            why = "too little fresh data" if ranked.mode is Mode.THIN else "no candidate is known to be alive"
            return f"nowhere: {why}"
        if signal is Signal.DWELL_OVER and before in reason_of:
            return (
                f"{target} replaces {before}: it led by {self.configuration.policy.margin_ratio:.0%} or more for "
                f"{self.configuration.policy.dwell_ms} ms, most of all in {_largest_lead(ranked, target, before)}"
            )
        if target != before and before is not None:
            return f"{target} replaces {before}, which is {reason_of.get(before) or 'no candidate any more'}"
        if ranked.mode is Mode.THIN:
            return f"{target} is kept: no path has fresh data"
        if ranked.mode is Mode.PANIC:
            return f"{target} is the least bad: no candidate is eligible"
        if self._hold.phase is Phase.CHALLENGED:
            return f"{target} is in use; {ranked.best()} leads it and has not led for long enough yet"
        if target == ranked.best():
            return f"{target} has the best score of {len(self._shown.eligible)} eligible"
        return f"{target} is kept: {ranked.best()} is better by less than the margin"

    def _numbers(self) -> dict[str, int]:
        return {region: i for i, region in enumerate(self.configuration.potential_failover_regions)}

    # -- state ------------------------------------------------------------------------------------------------------

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        paths, path_arrays = self._paths.save()
        predictor, predictor_arrays = self._predictor.save()
        scalars = {
            "configuration": to_plain(self.configuration),
            "sequence": self.sequence,
            "hold": asdict(self._hold),
            "previous": self._previous,
            "shown": asdict(self._shown),
            "events": [str(e) for e in self._events],
            "evidence_at_ms": self._evidence_at_ms,
            "injected": self._injected,
            "predicted": self._predicted,
            "paths": paths,
            "predictor": predictor,
        }
        arrays = {
            "bandwidth": self._bandwidth,
            "in_catalogue": self._in_catalogue,
            "capacity": self._capacity,
            "distance_km": self._distance_km,
            **{f"paths.{name}": value for name, value in path_arrays.items()},
            **{f"predictor.{name}": value for name, value in predictor_arrays.items()},
        }
        return scalars, arrays

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array]) -> FailoverEngine:
        """The state again: folding on from here gives the bytes that folding from the start gives."""
        engine = cls(from_plain(FailoverConfiguration, scalars["configuration"]), {})
        engine.sequence, engine._previous = scalars["sequence"], scalars["previous"]
        hold = scalars["hold"]
        engine._hold = HoldDown(Phase(hold["phase"]), hold["target"], hold["led_since_ms"])
        shown: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in scalars["shown"].items()}
        engine._shown = _Shown(**shown)
        engine._events = [Event(e) for e in scalars["events"]]
        engine._evidence_at_ms = scalars["evidence_at_ms"]
        engine._injected, engine._predicted = scalars["injected"], scalars["predicted"]
        engine._paths = Paths.load(scalars["paths"], _part(arrays, "paths."))
        engine._predictor = Predictor.load(scalars["predictor"], _part(arrays, "predictor."))
        engine._bandwidth, engine._in_catalogue = arrays["bandwidth"], arrays["in_catalogue"]
        engine._capacity, engine._distance_km = arrays["capacity"], arrays["distance_km"]
        return engine


def _part(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _shown(ranked: Ranked, advice: Advice, target: str | None, now_ms: int) -> _Shown:
    return _Shown(
        order=tuple(ranked.regions[i] for i in ranked.order),
        eligible=tuple(r for r, reason in zip(ranked.regions, ranked.reasons, strict=True) if reason is None),
        mode=str(ranked.mode),
        advice=str(advice),
        target=target,
        scores=tuple(float(s) for s in ranked.score),
        at_ms=now_ms,
    )


def _largest_lead(ranked: Ranked, target: str, before: str | None) -> str:
    """The factor in which the new target is ahead most."""
    new, old = (ranked.regions.index(r) for r in (target, before) if r is not None)
    lead = {name: float(value[new] - value[old]) for name, value in ranked.contributions.items()}
    return max(sorted(lead), key=lambda name: lead[name])
