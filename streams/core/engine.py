"""FailoverEngine: the whole decision for one primary region, as a fold.

    panes, inject, direct, configure ...   take in what the journal says
    tick(now)                              measure, rank, hold down, and say what to publish
    run(steps)                             panes and ticks, many at a time
    save / load                            its state, for snapshots

It knows nothing of Kafka and has no clock: `now_ms` is journal time (the broker's append time), `observed_ms` the
part of it in which records reached us.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from schemas.codec import from_plain, to_plain
from schemas.records import (
    Advice,
    AgentHealth,
    Array,
    BandwidthMeasurement,
    DisruptionPrediction,
    Event,
    FailoverConfiguration,
    FailoverRanking,
    GraphUpdate,
    InjectedMetric,
    Mode,
    ModelWarmed,
    NetworkVerdict,
    OperatorDirective,
    PathPanes,
    PathWeights,
    Policy,
    PredictionScorecard,
    ReadinessReport,
    ReadinessRequest,
    Record,
    Region,
    RouteChange,
    RouteEvent,
)
from streams.core.agents import said_by, speakers
from streams.core.baseline import baseline_weights, great_circle_km
from streams.core.damping import Damping
from streams.core.directives import Directives, Orders
from streams.core.foresight import Foreseen, Foresight, trust_events
from streams.core.graph_says import GraphSays
from streams.core.holddown import HoldDown, Phase, Proposal, Signal
from streams.core.injected import InForce, Injected, Seen
from streams.core.outcomes import Outcomes
from streams.core.paths import Paths
from streams.core.prediction import MODEL, Predictor
from streams.core.ranking import (
    DOWN,
    NO_ROUTE,
    NOT_READY,
    UNHEALTHY,
    VETOED,
    Ranked,
    is_fresh,
    path_weights,
    rank_at,
)
from streams.core.readiness import Outlook, Readiness, Worry, asked, foretold, worry_about
from streams.core.reason import and_what_the_network_says, sentence
from streams.core.reports import Reports
from streams.core.routes import Routes
from streams.core.sensitivity import better_probability
from streams.core.shown import Shown, changes
from streams.core.state import from_columns, from_scalars
from streams.core.stretch import Arrival, Edge, Picture, Step, Stretch, together
from streams.core.verdicts import Verdicts, advice, free_of
from streams.core.views import PathMetrics, metrics_at
from streams.core.weights import Scale

ENGINE_VERSION: Final = "5"
# Why a target in use was left, that failback has to wait for.
_FAILED: Final = frozenset((DOWN, NO_ROUTE, UNHEALTHY, VETOED, NOT_READY))
Published = FailoverRanking | PathWeights | GraphUpdate | DisruptionPrediction | PredictionScorecard | ReadinessRequest
Catalogue = Mapping[str, Region]


class News(NamedTuple):
    """What is said of a moment beside what is measured."""

    orders: Orders
    verdict: NetworkVerdict | None
    primary_unhealthy: bool


class FailoverEngine:
    """One primary region; made by its first configuration."""

    # A replay for the rankings alone need not hear of every path at every tick, nor how well its model does.
    says_weights: ClassVar = True
    runs_ahead: ClassVar = True  # whether `run` does what `panes` and `tick` do; not with others in their place

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.runs_ahead = cls.panes is FailoverEngine.panes and cls.tick is FailoverEngine.tick

    def __init__(self, configuration: FailoverConfiguration, catalogue: Catalogue) -> None:
        self.configuration = configuration
        self.sequence = 0
        self.muted = False  # set while a journal record of the version change is awaited
        self.skip_below = 0  # journal offset that the restored snapshot covers
        candidates = len(configuration.potential_failover_regions)
        self._paths = Paths()
        self._predictor = Predictor(candidates)
        self._foresight = Foresight(candidates, MODEL)
        self._readiness = Readiness()
        self._hold = HoldDown()
        self._damping = Damping(candidates)
        self._previous: str | None = None
        self._failed: str | None = None  # the target last left because it failed: its return is a restoration
        self._shown = Shown.nothing()
        self._events: list[Event] = [Event.CONFIG_ACCEPTED]
        self._evidence_at_ms = 0
        self._injected = Injected()
        self._routes = Routes()
        self._reports = Reports()
        self._directives = Directives()
        self._verdicts = Verdicts()
        self._predicted: dict[str, float] = {}
        self._bandwidth = np.full(candidates, np.nan)
        self._bandwidth_by: dict[str, str] = {}  # target -> the agent that measured it
        self._agents = frozenset[str]()  # who may speak for the primary; empty: anybody
        self._numbers: dict[str, int] = {}
        self._graph_says = GraphSays()
        self.catalogue_changed(catalogue)

    @property
    def primary(self) -> str:
        return self.configuration.primary_region

    @property
    def target(self) -> str | None:
        """Where traffic should go, as last decided."""
        return self._hold.target

    @property
    def candidates(self) -> Mapping[str, int]:
        """The regions that the primary may fail over to, and their numbers."""
        return self._numbers

    def foreign(self, record: Record) -> list[str]:
        """Of those whose word the record is, who may not speak for this primary."""
        return sorted(set(speakers(record)) - self._agents) if self._agents else []

    def told(self, panes: PathPanes) -> PathPanes | None:
        """What of them counts here; None: nothing."""
        return said_by(panes, self._agents) if self._agents else panes

    # -- taking records in ------------------------------------------------------------------------------------------

    def panes(self, panes: PathPanes, now_ms: int, observed_ms: float, appended_at_ms: int) -> None:
        """Samples, condensed."""
        self._evidence_at_ms = max(self._evidence_at_ms, appended_at_ms)
        self._paths.fold(panes, self._numbers, self.configuration.policy, now_ms, observed_ms)

    def bandwidth(self, measurement: BandwidthMeasurement) -> None:
        """Capacity of one path, as last measured."""
        number = self._numbers.get(measurement.target_region)
        if number is not None:
            self._bandwidth[number] = measurement.bandwidth_bps
            self._bandwidth_by[measurement.target_region] = measurement.agent_id

    def agent_health(self, health: AgentHealth) -> None:
        """An agent about itself. Its samples say already which of them it doubts; nothing is decided by this yet."""

    def inject(self, metric: InjectedMetric, now_ms: int) -> bool:
        """A metric from outside, until it expires; True when it has to be decided upon at once."""
        before = self._injected.said(metric, now_ms)
        taken = self._injected.take(metric, now_ms)
        return taken and metric.metric == "healthy" and self._injected.said(metric, now_ms) != before

    def route(self, event: RouteEvent, now_ms: int) -> bool:
        """What BGP says; True when it has to be decided upon at once."""
        self._graph_says.route(event)
        if event.kind != RouteChange.PEER_UP:
            concerned = [self._numbers[r.region_id] for r in event.regions if r.region_id in self._numbers]
            self._predictor.route_changed(concerned, self.configuration.policy, now_ms)
        return self._routes.take(event, self._numbers, self.configuration.policy.quorum_ratio, now_ms)

    def report(self, report: ReadinessReport, now_ms: int) -> bool:
        """What a readiness prober found; True when it has to be decided upon at once."""
        if report.target_region not in self._numbers:
            return False
        return self._reports.take(report, self.configuration.policy, now_ms)

    def judge(self, verdict: NetworkVerdict) -> bool:
        """What the whole network says about the primary; True when it has to be decided upon at once."""
        return self._verdicts.take(verdict)

    def direct(self, directive: OperatorDirective, now_ms: int) -> bool:
        """An operator's directive; True when it concerns this primary, and has to be decided upon at once."""
        event = self._directives.give(directive, self.primary, self._numbers, now_ms)
        if event is not None:
            self._events.append(event)
        return event is not None

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
        new = {region: i for i, region in enumerate(configuration.potential_failover_regions)}
        place = {i: new[r] for i, r in enumerate(in_force.potential_failover_regions) if r in new}
        self._paths.renumber(place)
        self._predictor.renumber(place, len(new))
        self._foresight.renumber(place, len(new))
        self._damping = self._damping.renumber(place, len(new))
        bandwidth, self._bandwidth = self._bandwidth, np.full(len(new), np.nan)
        self._bandwidth_by = {region: agent for region, agent in self._bandwidth_by.items() if region in new}
        for before, after in place.items():
            self._bandwidth[after] = bandwidth[before]
        self.catalogue_changed(catalogue)

    def catalogue_changed(self, catalogue: Catalogue) -> None:
        """Distances and capacities may be others now, and who may speak for the primary."""
        home = catalogue.get(self.primary)
        self._bind(frozenset(home.agents) if home else frozenset())
        found = [catalogue.get(r) for r in self.configuration.potential_failover_regions]
        self._in_catalogue = np.array([home is not None and r is not None for r in found])
        self._capacity = np.array([r.capacity_ratio if r else 1.0 for r in found])
        latitude, longitude = (
            np.array([getattr(r, a) if r else 0.0 for r in found]) for a in ("latitude", "longitude")
        )
        self._distance_km = (
            great_circle_km(home.latitude, home.longitude, latitude, longitude) if home else np.zeros(len(found))
        )
        self._number_candidates()

    def _bind(self, agents: frozenset[str]) -> None:
        """Only these may speak for the primary (empty: anybody); what others said is forgotten."""
        before, self._agents = self._agents, agents
        if not agents or (before and before <= agents):
            return
        self._paths.only_of(agents)
        self._routes.only_of(agents, self.configuration.policy.quorum_ratio)
        self._reports.only_of(agents)
        self._graph_says.only_of(agents)
        self._bandwidth_by = {region: agent for region, agent in self._bandwidth_by.items() if agent in agents}
        for region, number in self._numbers.items():
            if region not in self._bandwidth_by:
                self._bandwidth[number] = np.nan

    def _number_candidates(self) -> None:
        """What follows from the configuration alone, once and not at every tick."""
        regions = self.configuration.potential_failover_regions
        self._numbers = {region: i for i, region in enumerate(regions)}
        self._name_order = np.argsort(np.argsort(regions))
        self._configured = np.array([self.configuration.weights.get(r, np.nan) for r in regions])
        self._known = self._in_catalogue | ~np.isnan(self._configured)
        self._baseline = self._baseline_weights(np.ones(len(regions)))
        self._scale = Scale.of(self.configuration.policy)
        self._reports.changed()

    def gap(self, highest_sequence: int) -> None:
        """Journal records are gone for ever; the next ranking says so, above the numbers reached with them."""
        self._events.append(Event.GAP)
        self.sequence = max(self.sequence, highest_sequence)

    # -- deciding ---------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int, observed_ms: float) -> list[Published]:
        """Measure, rank, hold down; returns what to publish, in order."""
        return self._ticks(self._paths.picture(), [Edge(now_ms, observed_ms)], [self._evidence_at_ms])[0]

    def run(self, steps: Sequence[Step]) -> list[list[Published]]:
        """What `panes` and `tick` make of arrivals and edges one after the other: what each edge publishes.

        As many as may be are taken together, for what makes one tick slow is that numpy is asked for little at a time.
        """
        published: list[list[Published]] = []
        arrivals = [step for step in steps if isinstance(step, Arrival)]
        done = taken = 0
        while done < len(steps):
            step, some_gone = steps[done], self._routes.some_gone
            # Probes that are answered open what no route leads to: a tick then looks at the views themselves.
            stretch = self._paths.stretch(() if some_gone else arrivals[taken:], self.configuration.policy)
            if isinstance(step, Arrival) and not stretch.count:
                self.panes(*step)
                done, taken = done + 1, taken + 1
            elif some_gone and isinstance(step, Edge):
                published.append(self.tick(*step))
                done += 1
            else:
                some = together(steps[done:], stretch.count, self._until_ms)
                edges = [each for each in some if isinstance(each, Edge)]
                count = len(some) - len(edges)
                if count < stretch.count:
                    stretch = self._paths.stretch(arrivals[taken : taken + count], self.configuration.policy)
                published += self._stretch(stretch, some, edges)
                done, taken = done + len(some), taken + count
        return published

    def _until_ms(self, now_ms: int) -> float:
        """When the directives, metrics, readiness and verdict in force at a moment are others."""
        until_ms = self._reports.until_ms(self.configuration.policy, now_ms)
        return min(until_ms, *(each.until_ms(now_ms) for each in (self._directives, self._injected, self._verdicts)))

    def _stretch(self, stretch: Stretch, steps: Sequence[Step], edges: Sequence[Edge]) -> list[list[Published]]:
        evidence_at_ms, arrived, before, seen = self._evidence_at_ms, 0, [], []
        for step in steps:
            if isinstance(step, Arrival):
                evidence_at_ms, arrived = max(evidence_at_ms, step.appended_at_ms), arrived + 1
            else:
                before.append(arrived)
                seen.append(evidence_at_ms)
        picture = self._paths.fold_stretch(stretch, self.configuration.policy, np.array(before, np.int64))
        published = self._ticks(picture, edges, seen) if edges else []
        self._evidence_at_ms = evidence_at_ms
        return published

    def _ticks(self, picture: Picture, edges: Sequence[Edge], evidence_at_ms: Sequence[int]) -> list[list[Published]]:
        """What is published at each edge, the views being as pictured; the same orders and metrics hold at them all."""
        policy, regions = self.configuration.policy, self.configuration.potential_failover_regions
        now_ms, shape = [edge.now_ms for edge in edges], (len(edges), len(regions))
        if self._directives.expire(now_ms[0]):
            self._events.append(Event.DIRECTIVE_ENDED)
        orders = self._directives.orders(self._numbers)
        observed_ms = np.array([edge.observed_ms for edge in edges])
        measured, suspects = metrics_at(self._paths, picture, len(regions), policy, observed_ms)
        said, unhealthy = self._said(measured, now_ms)
        no_route = self._routes.gone(self._paths, self._numbers, policy.quorum_ratio, now_ms[0])
        standing = self._reports.standing(self._numbers, policy, now_ms[0])
        dead, trusted = measured.down.reshape(shape), measured.trusted.reshape(shape)
        # Down and then not ready yet is one failure and not two.
        for also in (unhealthy, no_route, standing.not_ready):
            dead = dead if also is None else dead | also
        ejected = self._damping.observe_at(dead, trusted, policy, now_ms)
        foreseen = self._foresee(measured, now_ms)
        verdict = self._verdicts.at(now_ms[0])
        capacity, full = self._capacity_left(said, verdict)
        ranks = rank_at(
            regions,
            measured,
            suspects,
            policy,
            baseline=self._baseline if capacity is None else self._baseline_weights(capacity),
            known=self._known,
            bandwidth_bps=self._bandwidth,
            injected=said.metrics,
            unhealthy=None if unhealthy is None else unhealthy.reshape(-1),
            drained=np.isin(regions, list(orders.drained)) if orders.drained else None,
            no_route=no_route,
            standing=standing,
            ejected=None if ejected is None else ejected.reshape(-1),
            full=full,
            demotion=_demotion(foreseen, policy),
            shared=self._verdicts.shared(verdict, self._numbers),
            name_order=self._name_order,
            scale=self._scale,
        )
        news = News(orders, verdict, said.primary_unhealthy)
        published = []
        for number, each in enumerate(foreseen):
            self._evidence_at_ms = evidence_at_ms[number]
            published.append(self._publish(ranks.at(number), each, news, now_ms[number]))
        return published

    def _capacity_left(self, said: InForce, verdict: NetworkVerdict | None) -> tuple[Array | None, Array | None]:
        """(targets,) each: which share of its capacity is left, None: all; bool whether that is too little for us."""
        free = free_of(verdict, self._numbers, self._capacity, self.configuration.load_ratio)
        if free is None:
            return said.capacity_ratio, None
        left, full = free
        return left if said.capacity_ratio is None else left * said.capacity_ratio, full

    def _said(self, measured: PathMetrics, now_ms: Sequence[int]) -> tuple[InForce, Array | None]:
        """What is in force of what was injected; and (ticks, targets) bool, who is unhealthy for all that is known.

        Where something fresh is measured, that somebody says so is no more than a voice.
        """
        policy, targets = self.configuration.policy, len(self._numbers)
        fresh = is_fresh(measured, policy)
        if self._injected.is_due(now_ms[0]):
            first = slice(0, targets)
            values = measured.latency_ms, measured.loss_ratio, measured.delay_variation_ms
            table = np.array((*(each[first] for each in values), self._bandwidth))
            impairment = self._scale.impairment(table)
            seen = Seen(impairment, measured.confidence[first], fresh[first], measured.down[first])
            self._events += self._injected.review(seen, self._numbers, now_ms[0], self._scale.impairment)
        said = self._injected.in_force(self._numbers, now_ms[0], ~np.isnan(self._configured))
        if said.unhealthy is None or not np.count_nonzero(said.unhealthy):
            return said, None
        return said, said.unhealthy & ~fresh.reshape(len(now_ms), targets)

    def _foresee(self, measured: PathMetrics, now_ms: Sequence[int]) -> list[Foreseen]:
        """Of each tick what is predicted, and how far it counts."""
        policy, regions = self.configuration.policy, self.configuration.potential_failover_regions
        outcomes: list[Outcomes] = []
        predictions = self._predictor.steps(self.primary, regions, measured, policy, now_ms, judge=outcomes.append)
        return self._foresight.steps(
            self.primary, self._numbers, predictions, outcomes, policy=policy, now_ms=now_ms, says=self.says_weights
        )

    def _publish(self, ranked: Ranked, foreseen: Foreseen, news: News, now_ms: int) -> list[Published]:
        published: list[Published] = []
        if self.says_weights:
            weights = path_weights(ranked, self._bandwidth)
            published.append(PathWeights(self.primary, now_ms, self._evidence_at_ms, ranked.regions, **weights))
        if foreseen.prediction is not None:
            self._predicted = {p.target_region: p.probability for p in foreseen.prediction.paths}
            published.append(foreseen.prediction)
        if foreseen.scorecard is not None:
            published.append(foreseen.scorecard)
        self._events += foreseen.events
        outlook = self._outlook(ranked, foreseen)  # of the target in use until now: it may be left at once
        ranking = self._ranking(ranked, news, now_ms)
        if ranking is not None:
            published.append(ranking)
        if self.muted:
            self.sequence -= ranking is not None
            return []
        if self.says_weights:
            update = self._graph_says.update(
                self.primary,
                ranked,
                now_ms,
                target=self._hold.target,
                bandwidth_bps=self._bandwidth,
                agents=self._paths.agents,
                foretold=foretold(outlook, self.configuration.policy),
            )
            published.append(update)
        advised = self._advised(news)
        return [*published, *self._requests(ranked, outlook, advised, now_ms)]

    def _requests(
        self, ranked: Ranked, outlook: Outlook | None, advised: Advice, now_ms: int
    ) -> Iterator[ReadinessRequest]:
        """Whom the readiness probers should look at now."""
        policy = self.configuration.policy
        self._readiness, request = self._readiness.step(self.primary, outlook, policy, now_ms)
        if request is not None:
            yield request
        if not self._reports.any:  # nobody is there to be asked
            return
        worry = worry_about(self.primary, ranked, self._hold, advised, policy)
        self._readiness, request = self._readiness.worried(self.primary, worry, policy, now_ms)
        if request is not None:
            yield request
        best_first = [ranked.regions[i] for i in ranked.order.tolist()]
        for region, age_ms in self._reports.asks(best_first, policy, now_ms):
            why = f"the last report on {region} is {age_ms / 1000:.0f} s old"
            yield asked(self.primary, Worry(self._hold.target or region, region, why), policy, now_ms)

    def _advised(self, news: News) -> Advice:
        """What to do about the primary, now that the target is chosen."""
        return advice(news.verdict, self._hold.target, news.orders.executed, unhealthy=news.primary_unhealthy)

    def _outlook(self, ranked: Ranked, foreseen: Foreseen) -> Outlook | None:
        """What is ahead of the target in use, while the model is trusted."""
        target = self._hold.target
        if not foreseen.influence or target not in self._numbers:
            return None
        able = (ranked.regions[i] for i in ranked.order.tolist() if ranked.eligible[i])
        runner_up = next((region for region in able if region != target), None)
        probability = float(foreseen.probability[self._numbers[target]])
        return Outlook(target, probability, foreseen.influence, runner_up, self._foresight.model)

    def unmute(self, highest_sequence: int) -> None:
        """Another engine version decided before: go on above its numbers, and say at once how things stand."""
        self.muted, self.sequence, self._shown = False, max(self.sequence, highest_sequence), Shown.nothing()

    def _baseline_weights(self, capacity_ratio: Array) -> Array:
        scale_km = self.configuration.policy.proximity_scale_km
        weights = baseline_weights(self._distance_km, self._capacity * capacity_ratio, scale_km)
        return np.where(np.isnan(self._configured), weights, self._configured)

    def _ranking(self, ranked: Ranked, news: News, now_ms: int) -> FailoverRanking | None:
        policy, before, orders = self.configuration.policy, self._hold.target, news.orders
        waits = self._damping.waits(ranked.eligible, policy, now_ms)
        unsettled = self._routes.unsettled(self._numbers, now_ms)
        barred = waits if unsettled is None else unsettled if waits is None else waits | unsettled
        proposal = self._proposal(ranked, orders, barred)
        self._hold, signal = self._hold.step(proposal, policy, now_ms)
        advised = self._advised(news)
        shown = Shown.of(ranked, policy, advised, self._hold.target, now_ms)
        events = [*dict.fromkeys(self._events), *self._moved(ranked, signal, before)]
        events += [e for e in changes(self._shown, shown, policy) if e not in events]
        if events[:-1] and events[-1] is Event.HEARTBEAT:  # there is more to say
            del events[-1]
        if not events:
            return None
        if not self.muted:  # what happens meanwhile is said when we may speak again
            self._events = []
        self.sequence += 1
        self._shown = shown
        return FailoverRanking(
            decision_id="",  # a digest of the rest, which whoever encodes it sets
            sequence=self.sequence,
            decided_at_ms=now_ms,
            evidence_at_ms=self._evidence_at_ms,
            primary_region=self.primary,
            mode=ranked.mode,
            advice=advised,
            events=[str(e) for e in events],
            reason=and_what_the_network_says(
                sentence(ranked, orders, self._hold, signal=signal, before=before, waits=waits, barred=barred)
                + self._injected.trust.note(),
                ranked,
                self._hold.target,
                news.verdict,
                orders.executed,
            ),
            config_version=self.configuration.version,
            stale_after_ms=3 * policy.heartbeat_ms,
            order_confidence=ranked.order_confidence,
            candidates=ranked.candidates(self._predicted, barred),
            target_region=self._hold.target,
            previous_target_region=self._previous,
            suspect_agents=list(ranked.suspects),
            directives=orders.shown,
        )

    def _proposal(self, ranked: Ranked, orders: Orders, waits: Array | None) -> Proposal:
        target = self._hold.target
        best, usable = ranked.best(waits), ranked.usable(target)
        lead = 0.0
        if usable and target is not None and best not in (None, target) and ranked.mode is not Mode.THIN:
            lead = self._lead(ranked, self._numbers[str(best)], self._numbers[target])
        return Proposal(best, usable, lead, orders.frozen, orders.pinned)

    def _lead(self, ranked: Ranked, best: int, target: int) -> float:
        """Logarithm of the best's score over the target's; 0 when it is below the margin, or may be chance."""
        policy = self.configuration.policy
        lead = ranked.log_lead(best, target)
        if lead <= np.log1p(policy.margin_ratio):
            return 0.0
        sure = better_probability(np.array(lead), ranked.error[best], ranked.error[target]) >= policy.sure_ratio
        return lead if sure else 0.0

    def _moved(self, ranked: Ranked, signal: Signal, before: str | None) -> list[Event]:
        """Take note of a move of the target; what is to be said of it."""
        target = self._hold.target
        if target == before:
            return []
        self._previous = before
        left_by_force = signal in (Signal.TARGET_UNUSABLE, Signal.TARGET_LOST)
        if left_by_force and before in self._numbers and ranked.reasons[self._numbers[before]] in _FAILED:
            self._damping.leave(self._numbers[before])
            self._failed = before
        if target is None:
            return [Event.TARGET_CHANGED]
        self._damping.choose(self._numbers[target])
        if target != self._failed:
            return [Event.TARGET_CHANGED]
        self._failed = None
        return [Event.TARGET_CHANGED, Event.TARGET_RESTORED]

    # -- the model --------------------------------------------------------------------------------------------------

    @property
    def is_cold(self) -> bool:
        """Its model took another's place, and has not been warmed up by the history yet."""
        return self._foresight.is_cold

    def save_model(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What was learnt, and how well: scalars and arrays."""
        predictor, predictor_arrays = self._predictor.save()
        foresight, foresight_arrays = self._foresight.save()
        arrays = {f"predictor.{name}": value for name, value in predictor_arrays.items()}
        arrays |= {f"foresight.{name}": value for name, value in foresight_arrays.items()}
        return {"predictor": predictor, "foresight": foresight}, arrays

    def adopt_model(self, warmed: ModelWarmed) -> None:
        """Take over what was learnt from the history, unless more was learnt here; the next ranking says so."""
        if warmed.model != MODEL:
            return
        self._foresight.is_cold = False
        scalars, arrays = from_scalars(warmed.scalars), from_columns(warmed.columns)
        predictor = Predictor.load(scalars["predictor"], _part(arrays, "predictor."), len(warmed.targets))
        if predictor.labels_learnt <= self._predictor.labels_learnt:
            return
        targets, before = len(self._numbers), self._foresight.influence
        foresight = Foresight.load(scalars["foresight"], _part(arrays, "foresight."), len(warmed.targets), MODEL)
        place = {i: self._numbers[r] for i, r in enumerate(warmed.targets) if r in self._numbers}
        predictor.renumber(place, targets)  # what waited for labels there does so no more
        foresight.renumber(place, targets)
        self._predictor, self._foresight = predictor, foresight
        self._events.append(Event.PREDICTION_WARMED)
        self._events += trust_events(before, foresight.influence)

    # -- state ------------------------------------------------------------------------------------------------------

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        paths, path_arrays = self._paths.save()
        model, model_arrays = self.save_model()
        shown = {name: value for name, value in asdict(self._shown).items() if name not in ("eligible", "scores")}
        scalars = {
            "configuration": to_plain(self.configuration),
            "sequence": self.sequence,
            "hold": asdict(self._hold),
            "previous": self._previous,
            "failed": self._failed,
            "shown": shown,
            "events": [str(e) for e in self._events],
            "evidence_at_ms": self._evidence_at_ms,
            "injected": self._injected.values,
            "trust": self._injected.trust.save(),
            "routes": self._routes.save(),
            "reports": self._reports.save(),
            "directives": self._directives.save(),
            "verdict": self._verdicts.save(),
            "predicted": self._predicted,
            "paths": paths,
            "readiness": asdict(self._readiness),
            "graph_says": self._graph_says.save(),
            "agents": sorted(self._agents),
            "bandwidth_by": self._bandwidth_by,
            **model,
        }
        arrays = {
            "bandwidth": self._bandwidth,
            "in_catalogue": self._in_catalogue,
            "capacity": self._capacity,
            "distance_km": self._distance_km,
            "shown.eligible": self._shown.eligible,
            "shown.scores": self._shown.scores,
            **{f"damping.{name}": value for name, value in self._damping.save().items()},
            **{f"paths.{name}": value for name, value in path_arrays.items()},
            **model_arrays,
        }
        return scalars, arrays

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array]) -> FailoverEngine:
        """The state again: folding on from here gives the bytes that folding from the start gives.

        A snapshot of an older version lacks what it did not know; that starts as if new.
        """
        engine = cls(from_plain(FailoverConfiguration, scalars["configuration"]), {})
        engine.sequence, engine._previous = scalars["sequence"], scalars["previous"]
        engine._failed = scalars.get("failed")
        hold = {name: value for name, value in scalars["hold"].items() if name in HoldDown.__dataclass_fields__}
        engine._hold = HoldDown(**hold | {"phase": Phase(hold["phase"])})
        shown, its = scalars["shown"], _part(arrays, "shown.")
        if its:
            engine._shown = Shown(**shown | its | {"suspects": tuple(shown["suspects"])})
        engine._events = [Event(e) for e in scalars["events"]]
        engine._evidence_at_ms = scalars["evidence_at_ms"]
        engine._injected = Injected(scalars["injected"], scalars.get("trust"))
        engine._routes = Routes(scalars.get("routes"))
        engine._reports = Reports(scalars.get("reports"))
        engine._directives = Directives.load(scalars.get("directives", []))
        engine._verdicts = Verdicts(scalars.get("verdict"))
        engine._predicted = scalars["predicted"]
        engine._paths = Paths.load(scalars["paths"], _part(arrays, "paths."))
        engine._predictor = Predictor.load(scalars["predictor"], _part(arrays, "predictor."), len(engine.candidates))
        foresight = scalars.get("foresight", {}), _part(arrays, "foresight.")
        engine._foresight = Foresight.load(*foresight, len(engine.candidates), MODEL)
        engine._readiness = Readiness(**scalars.get("readiness", {}))
        engine._graph_says = GraphSays.load(scalars.get("graph_says", {}))
        damping = _part(arrays, "damping.")
        engine._damping = Damping.load(damping) if damping else engine._damping
        engine._agents = frozenset(scalars.get("agents", ()))
        engine._bandwidth_by = scalars.get("bandwidth_by", {})
        engine._bandwidth, engine._in_catalogue = arrays["bandwidth"], arrays["in_catalogue"]
        engine._capacity, engine._distance_km = arrays["capacity"], arrays["distance_km"]
        engine._number_candidates()
        return engine


def _demotion(foreseen: Sequence[Foreseen], policy: Policy) -> Array | None:
    """(ticks * targets,) what predictions add to ln score; None: none counts at any of these ticks."""
    if not any(each.influence for each in foreseen):
        return None
    return np.concatenate([each.demotion(policy) for each in foreseen])


def _part(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
