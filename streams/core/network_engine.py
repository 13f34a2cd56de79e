"""NetworkEngine: the whole network as one graph, as a fold.

    update                       a primary's paths, as decide sees them
    take                         configurations, the catalogue, directives, results of actions
    tick(now)                    look at everything, and say what to publish
    save / load                  its state, for snapshots

What it publishes: a node a region with its outgoing edges, when something of it changed or has not been said for a
while; a verdict a primary, when there is news or as a heartbeat; and whatever its planners plan. It knows nothing of
Kafka and has no clock: `now_ms` is journal time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.codec import from_plain, to_plain
from schemas.records import (
    Allotment,
    Array,
    Directive,
    FailoverConfiguration,
    Fault,
    GraphUpdate,
    Health,
    NetworkVerdict,
    OperatorDirective,
    Record,
    Region,
    RegionCatalog,
    SharedRisk,
)
from streams.core.blame import Evidence, blame, transits_of
from streams.core.capacity import Claims
from streams.core.graph import STALE_MS, Graph
from streams.core.nodes import Nodes
from streams.core.planning import PLANNERS, Network, Planner
from streams.core.primary_health import PrimaryHealth, observers, sentence
from streams.core.route_table import packed, unpacked
from streams.core.shared_risk import reached_by, shared_risks
from streams.core.state import part
from streams.core.suspicions import Suspicions, in_words
from streams.core.terms import Standing, Terms

NETWORK_ENGINE_VERSION: Final = "1"
HEARTBEAT_MS: Final = 10_000  # of verdicts
STALE_AFTER_MS: Final = 3 * HEARTBEAT_MS
VERDICTS_PER_TICK: Final = 64  # but what is said of health, which is said at once
_UNCONFIGURED: Final = Terms()


class _Said(NamedTuple):
    """What was said of a primary last; `news`: what has to be said at once when it changes, health first."""

    sequence: int
    at_ms: int
    news: list[Any]


class _Findings(NamedTuple):
    """What there is to say of a primary."""

    health: Health
    since_ms: int
    faults: list[Fault]
    shared: list[SharedRisk]
    allotments: list[Allotment]
    executed_to: str | None
    news: list[Any]


class NetworkEngine:
    """All regions; one for the whole network."""

    def __init__(self, planners: Iterable[type[Planner]] = PLANNERS) -> None:
        self.muted = False  # set while a journal record of the version change is awaited
        self.graph = Graph()
        self.catalogue: dict[str, Region] = {}
        self.catalogue_version = 0
        self.terms: dict[str, Terms] = {}
        self.standings: dict[str, Standing] = {}
        self._said: dict[str, _Said] = {}  # by primary
        self.routes: dict[str, dict[str, list[int]]] = {}  # of each primary with monitors, the networks on its ways
        self.executed: dict[str, OperatorDirective] = {}  # by id: failovers that have happened
        self.suspicions = Suspicions()
        self._transits: dict[str, tuple[Array, Array]] | None = None
        self._shared: dict[str, tuple[list[str], list[SharedRisk], str]] = {}  # by primary, of these candidates
        self._health = PrimaryHealth()
        self._nodes = Nodes()
        self._reached: dict[str, frozenset[int]] | None = None  # by region the networks that it is reached by
        self._planners = [planner() for planner in planners]

    # -- taking records in ------------------------------------------------------------------------------------------

    def update(self, update: GraphUpdate, now_ms: int) -> list[Record]:
        """A primary's paths; returns verdicts that cannot wait for the tick. A repeat is dropped.

        Raises ValueError: its columns do not fit its targets.
        """
        primary = update.primary_region
        before = self.standings.get(primary)
        if before is not None and update.sequence <= before.sequence:
            return []
        turned = self.graph.put(update, self.terms.get(primary, _UNCONFIGURED), now_ms)
        self.standings[primary] = Standing.of(update, before, now_ms)
        if update.says_routes:
            self._reroute(primary, {route.region_id: route.transits for route in update.routes})
        self._grow()
        if not len(turned):
            return []
        changed = self._health.look(self.graph, self._quorum(turned), now_ms, turned, tick=False)
        names = sorted(self.graph.regions[number] for number in changed.tolist())
        return self._judge([name for name in names if name in self.standings], now_ms)

    def take(self, record: Record, key: str, now_ms: int) -> list[str]:
        """Anything else that the journal says; returns why it counts for nothing, if somebody has to be told."""
        match record:
            case RegionCatalog() if record.version > self.catalogue_version:
                self.catalogue_version = record.version
                self.catalogue = {r.region_id: r for r in record.regions}
                self._transits, self._shared = None, {}
            case FailoverConfiguration():
                known = self.terms.get(record.primary_region, _UNCONFIGURED)
                if record.based_on == known.version:
                    self.terms[record.primary_region] = Terms.of(record)
            case OperatorDirective():
                self.executed.pop(record.directive_id, None)
                if record.kind == Directive.EXECUTED and record.expires_at_ms > now_ms:
                    self.executed[record.directive_id] = record
            case _:
                pass
        told = [planner.take(record, key, now_ms) for planner in self._planners]
        return [why for why in told if why is not None]

    def _reroute(self, primary: str, ways: dict[str, list[int]]) -> None:
        if ways == self.routes.get(primary, {}):
            return
        self.graph.add(ways)
        self.routes[primary] = ways
        if not ways:
            del self.routes[primary]
        reached, self._reached = self._reached, reached_by(self.routes)
        self._transits = None
        self._shared.pop(primary, None)
        if reached != self._reached:
            self._shared = {}

    def _quorum(self, regions: Array) -> Array:
        """(regions asked,) how many of their observers must agree, by their own policies."""
        names = (self.graph.regions[number] for number in regions.tolist())
        return np.array([self.terms.get(name, _UNCONFIGURED).quorum_ratio for name in names])

    def _grow(self) -> None:
        if len(self.graph) != len(self._health.columns["level"]):
            self._health.add(len(self.graph))
            self._nodes.add(len(self.graph))
            self._transits = None

    # -- looking ----------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[Record]:
        """Look at everything; returns what to publish, in order."""
        if not len(self.graph):
            return []
        everywhere = np.arange(len(self.graph))
        self._health.look(self.graph, self._quorum(everywhere), now_ms, everywhere, tick=True)
        self.executed = {i: d for i, d in self.executed.items() if d.expires_at_ms > now_ms}
        self._blame(now_ms)
        published = self._judge(sorted(self.standings), now_ms)
        if not self.muted:
            published += self._nodes.step(self.graph, now_ms)
        for planner in self._planners:
            plans = planner.step(now_ms, self.network)
            published += [] if self.muted else plans
        return published

    def _blame(self, now_ms: int) -> None:
        if self._transits is None:
            self._transits = transits_of(self.graph, self.catalogue, self.routes)
        current = [p for p in self.standings if now_ms - self.graph.updated_at_ms[self.graph.numbers[p]] <= STALE_MS]
        silent = {p: self.standings[p].silent_agents for p in current if self.standings[p].silent_agents}
        blamed = blame(
            self.graph,
            Evidence.of(self.graph, now_ms),
            silent=silent,
            mute=frozenset(p for p in silent if not self.standings[p].agents),
            transits=self._transits,
        )
        self.suspicions.step(blamed, now_ms)

    @property
    def _moved(self) -> dict[str, str]:
        """Primaries whose traffic was moved, and to which candidate; of several directives the last one counts."""
        moved = {str(d.primary_region): str(d.region) for d in self.executed.values()}
        return {primary: region for primary, region in moved.items() if self._may_go(primary, region)}

    def _may_go(self, primary: str, region: str) -> bool:
        numbers, weight = self.graph.numbers, self.graph.edges["weight"]
        return {primary, region} <= numbers.keys() and bool(np.isfinite(weight[numbers[primary], numbers[region]]))

    def _shared_risks(self, primary: str) -> tuple[list[str], list[SharedRisk], str]:
        """Its candidates as they are now, what they share, and a digest of that."""
        numbers = np.flatnonzero(np.isfinite(self.graph.edges["weight"][self.graph.numbers[primary]])).tolist()
        candidates = [self.graph.regions[i] for i in numbers]
        known = self._shared.get(primary)
        if known is None or known[0] != candidates:
            if self._reached is None:
                self._reached = reached_by(self.routes)
            risks = shared_risks(primary, candidates, self.catalogue, self.routes.get(primary, {}), self._reached)
            text = json.dumps([to_plain(risk) for risk in risks]).encode()
            known = candidates, risks, blake2b(text, digest_size=8).hexdigest()
            self._shared[primary] = known
        return known

    @property
    def network(self) -> Network:
        """As planners see it."""
        return Network(self.graph, self.standings, self.terms, self.catalogue)

    def _judge(self, primaries: Iterable[str], now_ms: int) -> list[Record]:
        """The verdicts on these that have to be said now, as many as a tick may have; nothing while muted."""
        if self.muted:
            return []
        moved = self._moved
        claims = Claims(self.terms, self.standings, moved)
        due: list[tuple[bool, int, str, _Findings]] = []
        for primary in primaries:
            findings = self._findings(primary, claims, moved.get(primary))
            said = self._said.get(primary)
            if said is None or findings.news != said.news or now_ms - said.at_ms >= HEARTBEAT_MS:
                turned = said is None or said.news[0] != findings.news[0]
                due.append((not turned, 0 if said is None else said.at_ms, primary, findings))
        due.sort(key=lambda each: each[:3])  # health first, then what has waited longest
        urgent = sum(not each[0] for each in due)
        return [self._verdict(primary, f, now_ms) for _, _, primary, f in due[: max(VERDICTS_PER_TICK, urgent)]]

    def _findings(self, primary: str, claims: Claims, moved_to: str | None) -> _Findings:
        """What there is to say of a primary, but for who sees it."""
        health, since_ms = self._health.of(self.graph.numbers[primary])
        faults = self.suspicions.of(primary)
        candidates, shared, digest = self._shared_risks(primary)
        allotments = claims.allotments(primary, candidates, self.catalogue)
        blamed = [[fault.kind, fault.name] for fault in faults]
        news = [str(health), blamed, digest, [to_plain(each) for each in allotments], moved_to]
        return _Findings(health, since_ms, faults, shared, allotments, moved_to, news)

    def _verdict(self, primary: str, found: _Findings, now_ms: int) -> NetworkVerdict:
        before = self._said.get(primary)
        seen, counts = observers(self.graph, now_ms, self.graph.numbers[primary])
        reason = [sentence(primary, found.health, seen, counts), in_words(primary, found.faults)]
        sequence = max(now_ms, before.sequence + 1 if before is not None else 0)
        self._said[primary] = _Said(sequence, now_ms, found.news)
        return NetworkVerdict(
            primary_region=primary,
            sequence=sequence,
            decided_at_ms=now_ms,
            stale_after_ms=STALE_AFTER_MS,
            health=str(found.health),
            health_since_ms=found.since_ms,
            observers=seen,
            reason="; ".join(part for part in reason if part),
            faults=found.faults,
            shared=found.shared,
            allotments=found.allotments,
            executed_to=found.executed_to,
        )

    def unmute(self) -> None:
        """Another engine version decided before: say at once how things stand. Numbers are times: they go on."""
        self.muted = False
        self._said = {primary: said._replace(news=[None]) for primary, said in self._said.items()}
        self._nodes.forget()

    # -- state ------------------------------------------------------------------------------------------------------

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        graph, arrays = self.graph.save()
        arrays = {f"graph.{name}": value for name, value in arrays.items()}
        arrays |= {f"health.{name}": value for name, value in self._health.save().items()}
        arrays |= {f"routes.{name}": value for name, value in packed(self.routes, self.graph.numbers).items()}
        arrays |= {f"nodes.{name}": value for name, value in self._nodes.save().items()}
        scalars = {
            "graph": graph,
            "catalogue_version": self.catalogue_version,
            "catalogue": [to_plain(region) for region in self.catalogue.values()],
            "terms": {primary: asdict(terms) for primary, terms in self.terms.items()},
            "standings": {primary: standing.plain() for primary, standing in self.standings.items()},
            "said": self._said,
            "executed": [to_plain(directive) for directive in self.executed.values()],
            "suspicions": self.suspicions.save(),
            "planners": {planner.name: planner.save() for planner in self._planners},
        }
        return scalars, arrays

    @classmethod
    def load(cls, scalars: Mapping[str, Any], arrays: Mapping[str, Array]) -> NetworkEngine:
        """The state again: folding on from here gives the bytes that folding from the start gives."""
        engine = cls()
        engine.graph = Graph.load(scalars["graph"], part(arrays, "graph."))
        engine._health = PrimaryHealth.load(part(arrays, "health."))
        engine._nodes = Nodes.load(part(arrays, "nodes."))
        engine.catalogue_version = scalars["catalogue_version"]
        regions = [from_plain(Region, region) for region in scalars["catalogue"]]
        engine.catalogue = {region.region_id: region for region in regions}
        engine.terms = {primary: Terms(**terms) for primary, terms in scalars["terms"].items()}
        engine.standings = {p: Standing.from_plain(plain) for p, plain in scalars["standings"].items()}
        engine._said = {primary: _Said(*said) for primary, said in scalars["said"].items()}
        engine.routes = unpacked(part(arrays, "routes."), engine.graph.regions)
        directives = [from_plain(OperatorDirective, directive) for directive in scalars["executed"]]
        engine.executed = {directive.directive_id: directive for directive in directives}
        engine.suspicions = Suspicions.load(scalars["suspicions"])
        for planner in engine._planners:
            if planner.name in scalars["planners"]:
                planner.load(scalars["planners"][planner.name])
        return engine
