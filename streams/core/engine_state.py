"""What a FailoverEngine remembers: kept when the configuration changes, and written to a snapshot and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from schemas.records import Array, Event, FailoverConfiguration, Policy
from streams.core.agents import agents_of
from streams.core.bandwidth import Bandwidth
from streams.core.candidates import Candidates, Catalogue
from streams.core.choice import Choice
from streams.core.directives import Directives
from streams.core.graph_says import GraphSays
from streams.core.injected import Injected
from streams.core.model import Model
from streams.core.paths import Paths
from streams.core.readiness import Readiness
from streams.core.reports import Reports
from streams.core.routes import Routes
from streams.core.shown import Shown
from streams.core.state import part
from streams.core.verdicts import Verdicts


class EngineState:
    """What was heard, what was decided, and what was said of it.

    Whatever is kept by a candidate's number has the numbers of `candidates`.
    """

    def __init__(self, candidates: Candidates, agents: frozenset[str]) -> None:
        count = len(candidates.regions)
        self.candidates = candidates
        self.agents = agents  # who may speak for the primary; empty: anybody
        self.evidence_at_ms = 0
        self.paths = Paths()
        self.bandwidth = Bandwidth(count)
        self.injected = Injected()
        self.routes = Routes()
        self.reports = Reports()
        self.directives = Directives()
        self.verdicts = Verdicts()
        self.model = Model(count)
        self.choice = Choice(count)
        self.readiness = Readiness()
        self.graph_says = GraphSays()
        self.sequence = 0
        self.events: list[Event] = []  # that the next ranking says
        self.shown = Shown.nothing()
        self.predicted: dict[str, float] = {}  # probabilities, as published last

    def until_ms(self, policy: Policy, now_ms: int) -> float:
        """When the directives, metrics, readiness and verdict in force at a moment are others."""
        until_ms = self.reports.until_ms(policy, now_ms)
        return min(until_ms, *(each.until_ms(now_ms) for each in (self.directives, self.injected, self.verdicts)))

    def reconfigured(self, configuration: FailoverConfiguration, catalogue: Catalogue) -> None:
        """Another configuration is in force: what is known of candidates that stay is kept, by their new numbers."""
        numbers = {region: i for i, region in enumerate(configuration.potential_failover_regions)}
        place = {i: numbers[region] for region, i in self.candidates.numbers.items() if region in numbers}
        self.paths.renumber(place)
        self.bandwidth.renumber(place, numbers)
        self.model.renumber(place, len(numbers))
        self.choice.renumber(place, len(numbers))
        self.catalogue_changed(configuration, catalogue)

    def catalogue_changed(self, configuration: FailoverConfiguration, catalogue: Catalogue) -> None:
        """Distances and capacities may be others now, and who may speak for the primary."""
        self.candidates = Candidates.of(configuration, catalogue)
        self._bind(agents_of(configuration.primary_region, catalogue), configuration.policy)
        self.reports.changed()

    def _bind(self, agents: frozenset[str], policy: Policy) -> None:
        """Only these may speak for the primary (empty: anybody); what others said is forgotten."""
        before, self.agents = self.agents, agents
        if not agents or (before and before <= agents):
            return
        self.paths.only_of(agents)
        self.routes.only_of(agents, policy.quorum_ratio)
        self.reports.only_of(agents)
        self.graph_says.only_of(agents)
        self.bandwidth.only_of(agents, self.candidates.numbers)

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        paths, path_arrays = self.paths.save()
        model, model_arrays = self.model.save()
        choice, choice_arrays = self.choice.save()
        shown = {name: value for name, value in asdict(self.shown).items() if name not in ("eligible", "scores")}
        scalars = {
            "sequence": self.sequence,
            "shown": shown,
            "events": [str(e) for e in self.events],
            "evidence_at_ms": self.evidence_at_ms,
            "injected": self.injected.values,
            "trust": self.injected.trust.save(),
            "routes": self.routes.save(),
            "reports": self.reports.save(),
            "directives": self.directives.save(),
            "verdict": self.verdicts.save(),
            "predicted": self.predicted,
            "paths": paths,
            "readiness": asdict(self.readiness),
            "graph_says": self.graph_says.save(),
            "agents": sorted(self.agents),
            "bandwidth_by": self.bandwidth.by,
            **choice,
            **model,
        }
        arrays = {
            "bandwidth": self.bandwidth.bps,
            "shown.eligible": self.shown.eligible,
            "shown.scores": self.shown.scores,
            **self.candidates.save(),
            **{f"paths.{name}": value for name, value in path_arrays.items()},
            **choice_arrays,
            **model_arrays,
        }
        return scalars, arrays

    @classmethod
    def load(
        cls, configuration: FailoverConfiguration, scalars: Mapping[str, Any], arrays: Mapping[str, Array]
    ) -> EngineState:
        """The state again. A snapshot of an older version lacks what it did not know; that starts as if new."""
        state = cls(Candidates.load(configuration, arrays), frozenset(scalars.get("agents", ())))
        count = len(state.candidates.regions)
        state.evidence_at_ms = scalars["evidence_at_ms"]
        state.paths = Paths.load(scalars["paths"], part(arrays, "paths."))
        state.bandwidth.bps, state.bandwidth.by = arrays["bandwidth"], scalars.get("bandwidth_by", {})
        state.injected = Injected(scalars["injected"], scalars.get("trust"))
        state.routes = Routes(scalars.get("routes"))
        state.reports = Reports(scalars.get("reports"))
        state.directives = Directives.load(scalars.get("directives", []))
        state.verdicts = Verdicts(scalars.get("verdict"))
        state.model = Model.load(scalars, arrays, count)
        state.choice = Choice.load(scalars, arrays, count)
        state.readiness = Readiness(**scalars.get("readiness", {}))
        state.graph_says = GraphSays.load(scalars.get("graph_says", {}))
        state.sequence = scalars["sequence"]
        state.events = [Event(e) for e in scalars["events"]]
        shown, its = scalars["shown"], part(arrays, "shown.")
        if its:
            state.shown = Shown(**shown | its | {"suspects": tuple(shown["suspects"])})
        state.predicted = scalars["predicted"]
        return state
