"""FailoverEngine: the whole decision for one primary region, as a fold.

    panes, inject, direct, configure ...   take in what the journal says
    tick(now)                              measure, rank, hold down, and say what to publish
    run(steps)                             panes and ticks, many at a time
    save / load                            its state, for snapshots

It knows nothing of Kafka and has no clock: `now_ms` is journal time (the broker's append time), `observed_ms` the
part of it in which records reached us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np

from schemas.codec import from_plain, to_plain
from schemas.records import (
    AgentHealth,
    Array,
    BandwidthMeasurement,
    Event,
    FailoverConfiguration,
    InjectedMetric,
    ModelWarmed,
    NetworkVerdict,
    OperatorDirective,
    PathPanes,
    ReadinessReport,
    Record,
    RouteChange,
    RouteEvent,
)
from streams.core.agents import agents_of, said_by, speakers
from streams.core.candidates import Candidates, Catalogue
from streams.core.decision import Moment, News, Published, decided
from streams.core.engine_state import EngineState
from streams.core.foresight import demotion_at
from streams.core.injected import InForce, Seen
from streams.core.ranking import is_fresh, rank_at
from streams.core.shown import Shown
from streams.core.stretch import Arrival, Edge, Picture, Step, Stretch, together
from streams.core.verdicts import free_of
from streams.core.views import PathMetrics, metrics_at

ENGINE_VERSION: Final = "5"


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
        self.muted = False  # set while a journal record of the version change is awaited
        self.skip_below = 0  # journal offset that the restored snapshot covers
        agents = agents_of(configuration.primary_region, catalogue)
        self._state = EngineState(Candidates.of(configuration, catalogue), agents)
        self._state.events.append(Event.CONFIG_ACCEPTED)

    @property
    def primary(self) -> str:
        return self.configuration.primary_region

    @property
    def target(self) -> str | None:
        """Where traffic should go, as last decided."""
        return self._state.choice.target

    @property
    def candidates(self) -> Mapping[str, int]:
        """The regions that the primary may fail over to, and their numbers."""
        return self._state.candidates.numbers

    def foreign(self, record: Record) -> list[str]:
        """Of those whose word the record is, who may not speak for this primary."""
        agents = self._state.agents
        return sorted(set(speakers(record)) - agents) if agents else []

    def told(self, panes: PathPanes) -> PathPanes | None:
        """What of them counts here; None: nothing."""
        return said_by(panes, self._state.agents) if self._state.agents else panes

    # -- taking records in ------------------------------------------------------------------------------------------

    def panes(self, panes: PathPanes, now_ms: int, observed_ms: float, appended_at_ms: int) -> None:
        """Samples, condensed."""
        state = self._state
        state.evidence_at_ms = max(state.evidence_at_ms, appended_at_ms)
        state.paths.fold(panes, state.candidates.numbers, self.configuration.policy, now_ms, observed_ms)

    def bandwidth(self, measurement: BandwidthMeasurement) -> None:
        """Capacity of one path, as last measured."""
        self._state.bandwidth.take(measurement, self._state.candidates.numbers)

    def agent_health(self, health: AgentHealth) -> None:
        """An agent about itself. Its samples say already which of them it doubts; nothing is decided by this yet."""

    def inject(self, metric: InjectedMetric, now_ms: int) -> bool:
        """A metric from outside, until it expires; True when it has to be decided upon at once."""
        injected = self._state.injected
        before = injected.said(metric, now_ms)
        taken = injected.take(metric, now_ms)
        return taken and metric.metric == "healthy" and injected.said(metric, now_ms) != before

    def route(self, event: RouteEvent, now_ms: int) -> bool:
        """What BGP says; True when it has to be decided upon at once."""
        state, policy, numbers = self._state, self.configuration.policy, self._state.candidates.numbers
        state.graph_says.route(event)
        if event.kind != RouteChange.PEER_UP:
            concerned = [numbers[r.region_id] for r in event.regions if r.region_id in numbers]
            state.model.predictor.route_changed(concerned, policy, now_ms)
        return state.routes.take(event, numbers, policy.quorum_ratio, now_ms)

    def report(self, report: ReadinessReport, now_ms: int) -> bool:
        """What a readiness prober found; True when it has to be decided upon at once."""
        if report.target_region not in self._state.candidates.numbers:
            return False
        return self._state.reports.take(report, self.configuration.policy, now_ms)

    def judge(self, verdict: NetworkVerdict) -> bool:
        """What the whole network says about the primary; True when it has to be decided upon at once."""
        return self._state.verdicts.take(verdict)

    def direct(self, directive: OperatorDirective, now_ms: int) -> bool:
        """An operator's directive; True when it concerns this primary, and has to be decided upon at once."""
        state = self._state
        event = state.directives.give(directive, self.primary, state.candidates.numbers, now_ms)
        if event is not None:
            state.events.append(event)
        return event is not None

    def configure(self, configuration: FailoverConfiguration, catalogue: Catalogue) -> None:
        """Compare and set: accepted only if it is based on the version in force; the next ranking says which."""
        in_force, events = self.configuration, self._state.events
        if configuration == in_force:  # applied twice: the answer is the same
            events.append(Event.CONFIG_ACCEPTED)
            return
        if configuration.based_on != in_force.version:
            events.append(Event.CONFIG_REJECTED)
            return
        events.append(Event.CONFIG_ACCEPTED)
        self.configuration = configuration
        self._state.reconfigured(configuration, catalogue)

    def catalogue_changed(self, catalogue: Catalogue) -> None:
        """Distances and capacities may be others now, and who may speak for the primary."""
        self._state.catalogue_changed(self.configuration, catalogue)

    def adopt_model(self, warmed: ModelWarmed) -> None:
        """Take over what was learnt from the history, unless more was learnt here; the next ranking says so."""
        self._state.events += self._state.model.adopt(warmed, self.candidates)

    def gap(self, highest_sequence: int) -> None:
        """Journal records are gone for ever; the next ranking says so, above the numbers reached with them."""
        self._state.events.append(Event.GAP)
        self._state.sequence = max(self._state.sequence, highest_sequence)

    def unmute(self, highest_sequence: int) -> None:
        """Another engine version decided before: go on above its numbers, and say at once how things stand."""
        self.muted = False
        self._state.sequence, self._state.shown = max(self._state.sequence, highest_sequence), Shown.nothing()

    # -- deciding ---------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int, observed_ms: float) -> list[Published]:
        """Measure, rank, hold down; returns what to publish, in order."""
        return self._ticks(self._state.paths.picture(), [Edge(now_ms, observed_ms)], [self._state.evidence_at_ms])[0]

    def run(self, steps: Sequence[Step]) -> list[list[Published]]:
        """What `panes` and `tick` make of arrivals and edges one after the other: what each edge publishes.

        As many as may be are taken together, for what makes one tick slow is that numpy is asked for little at a time.
        """
        paths, policy = self._state.paths, self.configuration.policy
        published: list[list[Published]] = []
        arrivals = [step for step in steps if isinstance(step, Arrival)]
        done = taken = 0
        while done < len(steps):
            step, some_gone = steps[done], self._state.routes.some_gone
            # Probes that are answered open what no route leads to: a tick then looks at the views themselves.
            stretch = paths.stretch(() if some_gone else arrivals[taken:], policy)
            if isinstance(step, Arrival) and not stretch.count:
                self.panes(*step)
                done, taken = done + 1, taken + 1
            elif some_gone and isinstance(step, Edge):
                published.append(self.tick(*step))
                done += 1
            else:
                some = together(steps[done:], stretch.count, partial(self._state.until_ms, policy))
                edges = [each for each in some if isinstance(each, Edge)]
                count = len(some) - len(edges)
                if count < stretch.count:
                    stretch = paths.stretch(arrivals[taken : taken + count], policy)
                published += self._stretch(stretch, some, edges)
                done, taken = done + len(some), taken + count
        return published

    def _stretch(self, stretch: Stretch, steps: Sequence[Step], edges: Sequence[Edge]) -> list[list[Published]]:
        state = self._state
        evidence_at_ms, arrived, before, seen = state.evidence_at_ms, 0, [], []
        for step in steps:
            if isinstance(step, Arrival):
                evidence_at_ms, arrived = max(evidence_at_ms, step.appended_at_ms), arrived + 1
            else:
                before.append(arrived)
                seen.append(evidence_at_ms)
        picture = state.paths.fold_stretch(stretch, self.configuration.policy, np.array(before, np.int64))
        published = self._ticks(picture, edges, seen) if edges else []
        state.evidence_at_ms = evidence_at_ms
        return published

    def _ticks(self, picture: Picture, edges: Sequence[Edge], evidence_at_ms: Sequence[int]) -> list[list[Published]]:
        """What is published at each edge, the views being as pictured; the same orders and metrics hold at them all."""
        state, candidates, policy = self._state, self._state.candidates, self.configuration.policy
        regions, numbers = candidates.regions, candidates.numbers
        now_ms, shape = [edge.now_ms for edge in edges], (len(edges), len(regions))
        if state.directives.expire(now_ms[0]):
            state.events.append(Event.DIRECTIVE_ENDED)
        orders = state.directives.orders(numbers)
        observed_ms = np.array([edge.observed_ms for edge in edges])
        measured, suspects = metrics_at(state.paths, picture, len(regions), policy, observed_ms)
        said, unhealthy = self._said(measured, now_ms)
        no_route = state.routes.gone(state.paths, numbers, policy.quorum_ratio, now_ms[0])
        standing = state.reports.standing(numbers, policy, now_ms[0])
        dead, trusted = measured.down.reshape(shape), measured.trusted.reshape(shape)
        # Down and then not ready yet is one failure and not two.
        for also in (unhealthy, no_route, standing.not_ready):
            dead = dead if also is None else dead | also
        ejected = state.choice.damping.observe_at(dead, trusted, policy, now_ms)
        foreseen = state.model.steps(
            self.primary, candidates, measured, policy=policy, now_ms=now_ms, says=self.says_weights
        )
        verdict = state.verdicts.at(now_ms[0])
        capacity, full = self._capacity_left(said, verdict)
        ranks = rank_at(
            regions,
            measured,
            suspects,
            policy,
            baseline=candidates.baseline if capacity is None else candidates.baseline_at(capacity),
            known=candidates.known,
            bandwidth_bps=state.bandwidth.bps,
            injected=said.metrics,
            unhealthy=None if unhealthy is None else unhealthy.reshape(-1),
            drained=np.isin(regions, list(orders.drained)) if orders.drained else None,
            no_route=no_route,
            standing=standing,
            ejected=None if ejected is None else ejected.reshape(-1),
            full=full,
            demotion=demotion_at(foreseen, policy),
            shared=state.verdicts.shared(verdict, numbers),
            name_order=candidates.name_order,
            scale=candidates.scale,
        )
        news = News(orders, verdict, said.primary_unhealthy)
        published = []
        for number, each in enumerate(foreseen):
            state.evidence_at_ms = evidence_at_ms[number]
            published.append(self._decide(Moment(now_ms[number], ranks.at(number), each, news)))
        return published

    def _capacity_left(self, said: InForce, verdict: NetworkVerdict | None) -> tuple[Array | None, Array | None]:
        """(targets,) each: which share of its capacity is left, None: all; bool whether that is too little for us."""
        candidates = self._state.candidates
        free = free_of(verdict, candidates.numbers, candidates.capacity, self.configuration.load_ratio)
        if free is None:
            return said.capacity_ratio, None
        left, full = free
        return left if said.capacity_ratio is None else left * said.capacity_ratio, full

    def _said(self, measured: PathMetrics, now_ms: Sequence[int]) -> tuple[InForce, Array | None]:
        """What is in force of what was injected; and (ticks, targets) bool, who is unhealthy for all that is known.

        Where something fresh is measured, that somebody says so is no more than a voice.
        """
        state, candidates = self._state, self._state.candidates
        numbers, targets = candidates.numbers, len(candidates.numbers)
        fresh = is_fresh(measured, self.configuration.policy)
        if state.injected.is_due(now_ms[0]):
            first = slice(0, targets)
            values = measured.latency_ms, measured.loss_ratio, measured.delay_variation_ms
            table = np.array((*(each[first] for each in values), state.bandwidth.bps))
            impairment = candidates.scale.impairment(table)
            seen = Seen(impairment, measured.confidence[first], fresh[first], measured.down[first])
            state.events += state.injected.review(seen, numbers, now_ms[0], candidates.scale.impairment)
        said = state.injected.in_force(numbers, now_ms[0], ~np.isnan(candidates.configured))
        if said.unhealthy is None or not np.count_nonzero(said.unhealthy):
            return said, None
        return said, said.unhealthy & ~fresh.reshape(len(now_ms), targets)

    def _decide(self, moment: Moment) -> list[Published]:
        return decided(self._state, self.configuration, moment, muted=self.muted, says_weights=self.says_weights)

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def is_cold(self) -> bool:
        """Its model took another's place, and has not been warmed up by the history yet."""
        return self._state.model.is_cold

    def save_model(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """What was learnt, and how well: scalars and arrays."""
        return self._state.model.save()

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        scalars, arrays = self._state.save()
        return {"configuration": to_plain(self.configuration), **scalars}, arrays

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array]) -> FailoverEngine:
        """The state again: folding on from here gives the bytes that folding from the start gives."""
        engine = cls(from_plain(FailoverConfiguration, scalars["configuration"]), {})
        engine._state = EngineState.load(engine.configuration, scalars, arrays)
        return engine
