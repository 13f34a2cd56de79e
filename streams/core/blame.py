"""Whose fault is it? The single fault that explains the bad paths best, then the next, each with its confidence.

    PATH       the way between two regions, both directions: a round trip suffers from either
    ACCESS     one region's connection: all paths to it and from it
    AGENT      the process that measures: its paths are silent, while others of its region, or the paths to the region,
               are fine. What an agent does not see is nothing that a region lacks.
    TRANSIT    a network, provider or risk group: all paths that ride it, as BGP's AS paths and the catalogue say

Every measured path is evidence: how much likelier it looks as it does if the fault is there than if it is not, as a
logarithm. Bad paths that a fault explains speak for it; good ones that it should have made bad speak against it, as far
as they would have shown it: 15 ms more are seen on a path of 20 ms, and not on one of 300. What is not measured says
nothing. The best explanation is taken, what it explains is put aside, and so on.

A path is bad beside what it usually takes (the slow average): a change that stays becomes the usual in a few minutes,
and is nobody's fault then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.records import Array, Region
from streams.core.graph import Graph

PATH: Final = "PATH"
ACCESS: Final = "ACCESS"
AGENT: Final = "AGENT"
TRANSIT: Final = "TRANSIT"
FAULTS_MAX: Final = 12
# An explanation has to be so much likelier than chance (as a logarithm) to be told.
_TOLD_MIN: Final = 3.5
# What is rarer needs more: of regions and networks there are fewer than of paths, and they fail less often.
_PRIOR: Final = {PATH: 0.0, ACCESS: -1.0, AGENT: 0.0, TRANSIT: -1.5}
_SILENT: Final = 7.0  # an agent that sees nothing at all is no chance; for its own fault and its region's alike
# Round trips spread by about so much around what they usually take, averaged over some seconds.
_SPREAD_MS: Final = 0.5
_SPREAD_RATIO: Final = 0.02
_BAD_FROM: Final = 3.0  # spreads: from here on a path is rather bad than good, ...
_GOOD_UNTIL: Final = 1.5  # ... up to here it is good
_BAD_SLOPE: Final = 1.3
_BAD_MAX: Final = 6.0  # one path alone may be wrong, whatever it says
_GOOD_MAX: Final = 1.8  # a path that ought to be bad looks good in one case of six
_ACCESS_SHARE: Final = 0.3  # of a region's measured paths have to be bad by nobody else's fault, to be its own
_LOST: Final = 0.01  # proven: from here on losses are bad ...
_LOSS_SLOPE: Final = 60.0  # ... and at 6 % as bad as it gets


@dataclass(frozen=True, slots=True)
class Blamed:
    """One fault: `regions` are concerned, `confidence` is beside all other explanations and chance."""

    kind: str
    name: str
    regions: tuple[str, ...]
    confidence: float
    explained: int
    contradicting: int


@dataclass(slots=True)
class Evidence:
    """Of every edge, (regions, regions), 0 where nobody measures."""

    bad: Array  # for a fault, 0 or more
    good: Array  # against one, 0 or more
    excess_ms: Array  # beyond the usual
    hard: Array  # 1: it loses or is down, which shows on every path alike
    spread_ms: Array

    @classmethod
    def of(cls, graph: Graph, now_ms: int) -> Evidence:
        """What the graph says now."""
        fresh, down = graph.fresh(now_ms), graph.down()
        usual = graph.edges["usual_latency_ms"].astype(np.float64)
        loss = np.nan_to_num(graph.edges["loss_now_ratio"].astype(np.float64))
        spread = np.where(np.isfinite(usual), _SPREAD_MS + _SPREAD_RATIO * usual, 1.0)
        excess = np.nan_to_num(graph.edges["latency_ms"].astype(np.float64) - usual)
        far = excess / spread
        hard = np.where(down, _BAD_MAX, np.clip((loss - _LOST) * 2 * _LOSS_SLOPE, 0, _BAD_MAX))
        slow = np.clip((far - _BAD_FROM) * _BAD_SLOPE, 0, _BAD_MAX)
        bad = np.where(fresh, np.maximum(hard, slow), 0.0)
        good = np.clip((_BAD_FROM - far) / (_BAD_FROM - _GOOD_UNTIL), 0, 1) * _GOOD_MAX
        good = np.where(fresh & (bad == 0), good, 0.0)
        return cls(bad, good, excess, (hard >= slow).astype(np.float64), spread)


@dataclass(slots=True)
class _Cause:
    kind: str
    name: str
    score: float
    edges: tuple[Array, Array]  # rows, columns
    regions: tuple[str, ...] = ()  # empty: those of the edges


def blame(
    graph: Graph,
    evidence: Evidence,
    *,
    silent: Mapping[str, Sequence[str]],
    mute: frozenset[str],
    transits: Mapping[str, tuple[Array, Array]],
) -> list[Blamed]:
    """The faults that explain what is bad, the best explanation first.

    `silent`: by region its agents that see nothing; `mute`: regions whose agents all are. `transits`: by name, rows and
    columns of the edges that ride it.
    """
    found: list[Blamed] = []
    silent = dict(silent)
    if not evidence.bad.any() and not silent:
        return found
    measured = (evidence.bad + evidence.good) > 0
    paths = measured.sum(axis=0) + measured.sum(axis=1)
    while len(found) < FAULTS_MAX:
        wrong = (evidence.bad > 0).sum(axis=0) + (evidence.bad > 0).sum(axis=1)
        hopeful = np.flatnonzero((wrong > 0) & (wrong >= _ACCESS_SHARE * paths))
        path, scores = _best_path(graph, evidence)
        causes = [*_agents(silent), *_accesses(graph, evidence, hopeful, silent, mute), *path]
        causes += _over(evidence, transits)
        best = max(causes, key=lambda cause: (cause.score, cause.name), default=None)
        if best is None or best.score < _TOLD_MIN:
            break
        others = np.concatenate(([0.0], scores, [c.score for c in causes if c.kind != PATH]))
        found.append(_told(graph, best, others, evidence))
        evidence.bad[best.edges] = 0.0  # what is good goes on contradicting
        if best.kind in (AGENT, ACCESS):
            silent.pop(best.regions[0], None)
    return found


def _told(graph: Graph, best: _Cause, scores: Array, evidence: Evidence) -> Blamed:
    ends = np.unique(np.concatenate(best.edges)).tolist()
    return Blamed(
        kind=best.kind,
        name=best.name,
        regions=best.regions or tuple(sorted(graph.regions[i] for i in ends)),
        confidence=round(float(1 / np.exp(np.clip(scores - best.score, -50, 0)).sum()), 3),
        explained=int(np.count_nonzero(evidence.bad[best.edges])),
        contradicting=int(np.count_nonzero(evidence.good[best.edges])),
    )


_NOWHERE: Final = (np.empty(0, np.int64), np.empty(0, np.int64))


def _agents(silent: Mapping[str, Sequence[str]]) -> list[_Cause]:
    return [
        _Cause(AGENT, ", ".join(agents), _SILENT + _PRIOR[AGENT], _NOWHERE, (region,))
        for region, agents in sorted(silent.items())
    ]


def _accesses(
    graph: Graph, evidence: Evidence, hopeful: Array, silent: Mapping[str, Sequence[str]], mute: frozenset[str]
) -> list[_Cause]:
    """A region's connection: what bad edges there and away have in common says how much a good one contradicts."""
    bad = evidence.bad.sum(axis=0) + evidence.bad.sum(axis=1)
    if not len(hopeful):
        return []
    good = (evidence.good[hopeful] * _shows(evidence, hopeful, axis=1)).sum(axis=1)
    good += (evidence.good[:, hopeful].T * _shows(evidence, hopeful, axis=0)).sum(axis=1)
    found = []
    for number, against in zip(hopeful.tolist(), good.tolist(), strict=True):
        region = graph.regions[number]
        score = float(bad[number]) - against + _PRIOR[ACCESS]
        if region in mute and region in silent:
            score += _SILENT
        found.append(_Cause(ACCESS, region, score, _incident(graph, number), (region,)))
    return found


def _incident(graph: Graph, number: int) -> tuple[Array, Array]:
    others = np.delete(np.arange(len(graph)), number)
    here = np.full(len(others), number)
    return np.concatenate((here, others)), np.concatenate((others, here))


def _shows(evidence: Evidence, regions: Array, axis: int) -> Array:
    """(regions asked, regions) 0 to 1: how surely a fault of a region, as large as its bad edges say, shows on each."""

    def summed(values: Array) -> Array:
        return values[regions].sum(axis=1) + values[:, regions].sum(axis=0)  # type: ignore[no-any-return]

    both = summed(evidence.bad)
    ms, share = summed(evidence.bad * evidence.excess_ms) / both, summed(evidence.bad * evidence.hard) / both
    spread = evidence.spread_ms[regions] if axis else evidence.spread_ms[:, regions].T
    return _power(share[:, None], ms[:, None], spread)


def _power(hard: Array | float, ms: Array | float, spread_ms: Array) -> Array:
    far = np.clip((ms / spread_ms - _BAD_FROM) * 1.5, -30, 30)
    return hard + (1 - hard) / (1 + np.exp(-far))


def _best_path(graph: Graph, evidence: Evidence) -> tuple[list[_Cause], Array]:
    """Of pairs of regions with a bad edge the best, and the scores of all: the other direction may contradict."""
    rows, columns = np.nonzero(evidence.bad)
    if not len(rows):
        return [], np.empty(0)
    one, other = np.divmod(np.unique(np.minimum(rows, columns) * len(graph) + np.maximum(rows, columns)), len(graph))
    there, back = (one, other), (other, one)
    mass = evidence.bad[there] + evidence.bad[back]
    ms, hard = (
        (evidence.bad[there] * each[there] + evidence.bad[back] * each[back]) / mass
        for each in (evidence.excess_ms, evidence.hard)
    )
    against = sum(evidence.good[way] * _power(hard, ms, evidence.spread_ms[way]) for way in (there, back))
    scores = mass - against + _PRIOR[PATH]
    best = int(np.argmax(scores))
    ends = int(one[best]), int(other[best])
    names = tuple(sorted(graph.regions[i] for i in ends))
    edges = np.array(ends), np.array(ends[::-1])
    return [_Cause(PATH, " - ".join(names), float(scores[best]), edges, names)], scores


def _over(evidence: Evidence, transits: Mapping[str, tuple[Array, Array]]) -> list[_Cause]:
    return [
        _Cause(TRANSIT, name, _score(evidence, edges) + _PRIOR[TRANSIT], edges)
        for name, edges in sorted(transits.items())
        if evidence.bad[edges].any()
    ]


def _score(evidence: Evidence, edges: tuple[Array, Array]) -> float:
    """For and against one fault of these edges, as logarithms; one of them at least is bad."""
    bad = evidence.bad[edges]
    mass = bad.sum()
    ms, hard = (bad * evidence.excess_ms[edges]).sum() / mass, (bad * evidence.hard[edges]).sum() / mass
    against = evidence.good[edges] * _power(float(hard), float(ms), evidence.spread_ms[edges])
    return float(mass - against.sum())


def transits_of(
    graph: Graph, catalogue: Mapping[str, Region], routes: Mapping[str, Mapping[str, Sequence[int]]]
) -> dict[str, tuple[Array, Array]]:
    """What several paths ride, and which: by AS paths, by the only provider of an end, by an end's risk groups."""
    edges: dict[str, list[tuple[int, int]]] = {}
    for primary, ways in sorted(routes.items()):
        for region, way in sorted(ways.items()):
            if primary in graph.numbers and region in graph.numbers:
                for number in dict.fromkeys(way):
                    edges.setdefault(f"AS {number}", []).append((graph.numbers[primary], graph.numbers[region]))
    members: dict[str, set[int]] = {}
    for declared in catalogue.values():
        if declared.region_id in graph.numbers:
            names = [f"provider {name}" for name in declared.providers if len(declared.providers) == 1]
            for name in (*names, *(f"risk group {group}" for group in declared.risk_groups)):
                members.setdefault(name, set()).add(graph.numbers[declared.region_id])
    found = {name: _columns(each) for name, each in edges.items() if len({tuple(sorted(e)) for e in each}) > 1}
    for name, regions in sorted(members.items()):
        if len(regions) > 1:
            of = np.isin(np.arange(len(graph)), list(regions))
            rows, columns = np.nonzero((of[:, None] | of[None, :]) & ~np.eye(len(graph), dtype=bool))
            found[name] = rows, columns
    return found


def _columns(edges: list[tuple[int, int]]) -> tuple[Array, Array]:
    each = np.array(edges, np.int64)
    return each[:, 0], each[:, 1]
