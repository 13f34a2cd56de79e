"""Generated faults over the 21 regions whose round trips were really measured, as decide would tell of them.

A region is connected by one of a few networks, and each pair of regions by a backbone, so that paths share what may
fail. What is measured has noise, some paths are bad for no reason, a tenth is not measured at all, and in a fifth of
the cases two faults are there at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

import numpy as np

from producers.traces import cloud_regions, cloud_rtt_ms
from schemas.records import FaultKind, GraphRoute, GraphUpdate, NetworkVerdict
from streams.core.network_engine import NetworkEngine
from streams.core.numbers import proven_share

T0: Final = 1_700_000_000_000
UNMEASURED_RATIO: Final = 0.1
TWO_RATIO: Final = 0.2
SPURIOUS_RATIO: Final = 0.02  # of paths that are bad for no reason: slower by any amount, or lossy
ESCAPES_RATIO: Final = 0.1  # of the paths that a fault concerns and that get round it
MONITORED_RATIO: Final = 0.8  # of regions have a route monitor
PROBES: Final = 60  # that the present loss is known by
NETWORKS: Final = 7  # that connect regions
BACKBONES: Final = 10
KINDS: Final = tuple(FaultKind)
Pair = tuple[str, str]


@dataclass(frozen=True)
class Cause:
    """What is really wrong: `edges` suffer; `viewpoint` is a primary that does."""

    kind: FaultKind
    name: str
    viewpoint: str
    edges: frozenset[Pair] = frozenset()
    added_ms: float = 0.0
    loss_ratio: float = 0.0


@cache
def regions() -> tuple[str, ...]:
    return tuple(sorted(cloud_regions()))


@dataclass
class Case:
    """One generated case; the same seed gives the same."""

    seed: int
    causes: list[Cause] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.agents = {r: [f"{r}/{n}" for n in range(self.chance.choice((1, 2, 2, 3)))] for r in regions()}
        upstream = {r: 64500 + self.chance.randrange(NETWORKS) for r in regions()}
        backbone: dict[frozenset[str], int] = {}
        for one in regions():
            for other in regions():
                # Most pairs between the same parts of the world take the same way.
                parts = frozenset((one[:2], other[:2]))
                usual = backbone.setdefault(parts, 65000 + self.chance.randrange(BACKBONES))
                pair = frozenset((one, other))
                if pair not in backbone:
                    own = self.chance.random() < 0.2
                    backbone[pair] = 65000 + self.chance.randrange(BACKBONES) if own else usual
        self.ways = {
            (a, b): list(dict.fromkeys((upstream[a], backbone[frozenset((a, b))], upstream[b])))
            for a in regions()
            for b in regions()
            if a != b
        }
        self.monitored = {r for r in regions() if self.chance.random() < MONITORED_RATIO}
        self.measured = {pair for pair in self.ways if self.chance.random() >= UNMEASURED_RATIO}
        while len(self.causes) < (2 if self.chance.random() < TWO_RATIO else 1):
            cause = self._cause(self.chance.choice(KINDS))
            if not cause.edges or cause.edges & self.measured:
                self.causes.append(cause)

    def _cause(self, kind: FaultKind) -> Cause:
        region, other = self.chance.sample(regions(), 2)
        match kind:
            case FaultKind.PATH:
                one, two = sorted((region, other))
                return self._bad(kind, f"{one} - {two}", region, {(one, two), (two, one)})
            case FaultKind.PRIMARY_ACCESS:
                return self._bad(kind, region, region, {p for p in self.ways if region in p})
            case FaultKind.TARGET_ACCESS:
                return self._bad(kind, region, other, {p for p in self.ways if region in p})
            case FaultKind.TRANSIT:
                riders: dict[int, set[Pair]] = {}
                for pair, way in self.ways.items():
                    for number in way:
                        riders.setdefault(number, set()).add(pair)
                # Shared by several: what only one region or pair rides is that region's, or the path's, fault.
                shared = [n for n, pairs in sorted(riders.items()) if not set.intersection(*map(set, pairs))]
                number = self.chance.choice(shared)
                viewpoint = self.chance.choice(sorted({p[0] for p in riders[number]}))
                return self._bad(kind, f"AS {number}", viewpoint, riders[number])
            case _:
                return Cause(kind, self.chance.choice(self.agents[region]), region)

    def _bad(self, kind: FaultKind, name: str, viewpoint: str, edges: set[Pair]) -> Cause:
        how = self.chance.choice(("slow", "lossy", "gone"))
        added_ms = self.chance.uniform(15, 150) if how == "slow" else 0.0
        loss = self.chance.uniform(0.08, 0.6) if how == "lossy" else float(how == "gone")
        return Cause(kind, name, viewpoint, frozenset(edges), added_ms, loss)

    def update(self, primary: str, sequence: int) -> GraphUpdate:
        """What decide would say of a primary."""
        targets = [r for r in regions() if r != primary]
        silent = [c.name for c in self.causes if c.kind is FaultKind.AGENT and c.viewpoint == primary]
        agents = [a for a in self.agents[primary] if a not in silent]
        rtt = np.array([cloud_rtt_ms()[primary, t] for t in targets])
        noise = np.random.default_rng((self.seed, regions().index(primary)))
        usual = rtt * (1 + noise.normal(0, 0.003, len(rtt)))
        latency = rtt * (1 + noise.normal(0, 0.006, len(rtt))) + np.abs(noise.normal(0, 0.3, len(rtt)))
        loss = np.zeros(len(rtt))
        for cause in self.causes:
            hit = np.array([(primary, t) in cause.edges for t in targets])
            if len(cause.edges) > 2:
                hit &= noise.random(len(rtt)) >= ESCAPES_RATIO
            latency += hit * cause.added_ms
            loss = 1 - (1 - loss) * (1 - hit * cause.loss_ratio)
        spurious = noise.random(len(rtt)) < SPURIOUS_RATIO
        lossy = noise.random(len(rtt)) < 0.3
        latency += spurious * ~lossy * (2 + rtt * noise.uniform(0.03, 0.3, len(rtt)))
        loss = np.where(spurious & lossy, np.maximum(loss, noise.uniform(0.05, 0.3, len(rtt))), loss)
        failed = noise.binomial(PROBES, loss)
        measured = np.array([(primary, t) in self.measured for t in targets]) & bool(agents)
        down = measured & (failed == PROBES)
        return GraphUpdate(
            primary_region=primary,
            sequence=sequence,
            decided_at_ms=sequence,
            target_region=targets[0],
            targets=targets,
            agents=agents,
            silent_agents=silent,
            says_routes=primary in self.monitored,
            routes=[GraphRoute(t, self.ways[primary, t]) for t in targets] if primary in self.monitored else [],
            **GraphUpdate.packed(
                latency_ms=np.where(measured, latency, np.nan),
                usual_latency_ms=np.where(measured, usual, np.nan),
                delay_variation_ms=np.full(len(rtt), 1.0),
                bandwidth_bps=np.full(len(rtt), np.nan),
                loss_ratio=np.zeros(len(rtt)),
                loss_now_ratio=proven_share(failed.astype(float), np.full(len(rtt), PROBES), 2.33),
                weight=np.full(len(rtt), 0.5),
                confidence=np.where(measured, 0.9, 0.0),
                state=(measured * GraphUpdate.FRESH + down * GraphUpdate.DOWN).astype(np.uint8),
            ),
        )

    def engine(self, ticks: int = 2) -> NetworkEngine:
        """An engine that has been told of it for so long; `verdicts` has what it said last."""
        engine = NetworkEngine()
        self.verdicts: dict[str, NetworkVerdict] = {}
        updates = [self.update(region, 0) for region in regions()]
        for tick in range(1, ticks + 1):
            now_ms = T0 + 1000 * tick
            for update in updates:
                engine.update(replace(update, sequence=now_ms), now_ms)
            said = engine.tick(now_ms + 600)
            self.verdicts |= {v.primary_region: v for v in said if isinstance(v, NetworkVerdict)}
        return engine

    def is_right(self, kind: str, name: str) -> bool:
        """Whether a fault that is told is one that is there."""
        access = (FaultKind.PRIMARY_ACCESS, FaultKind.TARGET_ACCESS)
        return any(
            c.name == name and (c.kind == kind or (c.kind in access and kind in access)) for c in self.causes
        ) or any(kind == c.kind == FaultKind.AGENT and c.name in name.split(", ") for c in self.causes)
