"""Is a primary up? What observers in other regions see of it, joined by quorum.

An observer is a region whose agents measure the primary as one of their targets. It sees DOWN when a quorum of its
agents gets no answer, DEGRADED when the path loses or takes longer than usual, else UP. *An observer whose own
connection is lost is no witness*: when nearly all of its paths are bad, it is BLIND, and counts neither way. So a
broken observer never brings a primary down, and when all are blind nobody knows (UNKNOWN), which moves nothing.

Of those that see, as many as the primary's `quorum_ratio` asks have to agree, and never one alone: what a single
observer calls DOWN is a suspicion, DEGRADED.

DOWN is said at once: the paths' own rule (several probes unanswered, by a quorum of agents) has been waited for
already. DEGRADED has to last for two ticks, and so has everything that is better than what was said before for three.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.records import Array, Health, Observer
from streams.core.graph import Graph

LEVELS: Final = (Health.UNKNOWN, Health.UP, Health.DEGRADED, Health.DOWN)
_UNKNOWN, _UP, _DEGRADED, _DOWN = range(4)
BLIND_SHARE: Final = 0.75  # of an observer's paths that are bad: from here on it is the observer
WORSE_TICKS: Final = 2
BETTER_TICKS: Final = 3
_SHOWN_MAX: Final = 32  # observers in a verdict; those that see something wrong come first
_COLUMNS: Final = {"level": np.int8, "wanted": np.int8, "ticks": np.int64, "since_ms": np.int64}


class PrimaryHealth:
    """Of all regions of a graph; every column is (regions,)."""

    def __init__(self) -> None:
        self.columns: dict[str, Array] = {name: np.empty(0, dtype) for name, dtype in _COLUMNS.items()}

    def add(self, regions: int) -> None:
        """Have so many regions."""
        for name, column in self.columns.items():
            self.columns[name] = np.append(column, np.zeros(regions - len(column), column.dtype))

    def of(self, region: int) -> tuple[Health, int]:
        """How a region is, and since when."""
        return LEVELS[self.columns["level"][region]], int(self.columns["since_ms"][region])

    def look(self, graph: Graph, quorum_ratio: Array, now_ms: int, regions: Array, *, tick: bool) -> Array:
        """Look at these regions (numbers); between ticks only for what is DOWN. Returns those whose health changed.

        `quorum_ratio` (regions asked,): by their own policies.
        """
        c = self.columns
        seen = _agreed(graph, quorum_ratio, now_ms, regions)
        before = c["level"][regions].copy()
        if not tick:
            c["level"][regions] = np.where(seen == _DOWN, _DOWN, before)
        else:
            ticks = np.where(seen == c["wanted"][regions], c["ticks"][regions] + 1, 1)
            wait = np.where((seen > before) | (before == _UNKNOWN), WORSE_TICKS, BETTER_TICKS)
            wait = np.where((seen == _DOWN) | (before == _UNKNOWN), 1, wait)
            c["wanted"][regions], c["ticks"][regions] = seen, ticks
            c["level"][regions] = np.where(ticks >= wait, seen, before)
        changed = regions[c["level"][regions] != before]
        c["since_ms"][changed] = now_ms
        return changed  # type: ignore[no-any-return]

    def save(self) -> dict[str, Array]:
        """Arrays for a snapshot."""
        return self.columns

    @classmethod
    def load(cls, arrays: dict[str, Array]) -> PrimaryHealth:
        """The state again."""
        health = cls()
        health.columns = {name: arrays[name] for name in _COLUMNS}
        return health


def _agreed(graph: Graph, quorum_ratio: Array, now_ms: int, regions: Array) -> Array:
    """(regions asked,) level that the observers agree on now."""
    down, bad, sees = _views(graph, now_ms, regions)
    observers = sees.sum(axis=0)
    quorum = np.maximum(np.ceil(quorum_ratio * observers - 1e-9), np.minimum(2, observers))  # as `views.needed`
    level = np.where(bad.sum(axis=0) >= quorum, _DEGRADED, _UP)
    level = np.where((down.sum(axis=0) >= quorum) & (observers >= 2), _DOWN, level)
    return np.where(observers > 0, level, _UNKNOWN)


def _views(graph: Graph, now_ms: int, regions: Array) -> tuple[Array, Array, Array]:
    """(regions, regions asked) bool: which observer sees DOWN, sees anything bad (that included), sees at all."""
    most = BLIND_SHARE * np.maximum(graph.paths, 1)
    blind = (graph.paths_down >= most) | (graph.paths_bad >= most)
    sees = graph.fresh(now_ms, regions) & ~blind[:, None]
    return sees & graph.down(regions), sees & graph.bad(regions), sees


def observers(graph: Graph, now_ms: int, region: int) -> tuple[list[Observer], dict[str, int]]:
    """Who sees what of a region, in order of name, and how many see each; those beyond a number are only counted."""
    at = np.array([region])
    down, bad, sees = (view[:, 0] for view in _views(graph, now_ms, at))
    fresh = graph.fresh(now_ms, at)[:, 0]
    counts = {
        str(Health.UP): int((sees & ~bad).sum()),
        str(Health.DEGRADED): int((bad & ~down).sum()),
        str(Health.DOWN): int(down.sum()),
        str(Health.BLIND): int((fresh & ~sees).sum()),
    }
    # Those that see something wrong first, then by name.
    well, names = sees & ~bad, graph.regions
    shown = sorted(np.flatnonzero(fresh).tolist(), key=lambda i: (bool(well[i]), names[i]))[:_SHOWN_MAX]
    shown.sort(key=lambda i: names[i])
    latency, loss = (graph.edges[name][:, region] for name in ("latency_ms", "loss_now_ratio"))
    usual = graph.edges["usual_latency_ms"][:, region]
    found = []
    for number in shown:
        if not sees[number]:
            view, detail = Health.BLIND, "nearly all of its own paths are bad"
        elif down[number]:
            view, detail = Health.DOWN, "no answer"
        elif bad[number]:
            view = Health.DEGRADED
            lost = f"{loss[number]:.0%} lost, " if loss[number] > 0 else ""
            detail = f"{lost}{latency[number]:.3g} ms, usually {usual[number]:.3g} ms"
        else:
            view, detail = Health.UP, f"{latency[number]:.3g} ms"
        found.append(Observer(graph.regions[number], str(view), detail))
    return found, counts


def sentence(primary: str, health: Health, seen: list[Observer], counts: dict[str, int]) -> str:
    """Who saw what, in one sentence."""
    of = sum(counts.values()) - counts[Health.BLIND]
    blind = [o.region_id for o in seen if o.sees == Health.BLIND]
    besides = f"; {_listed(blind)} {'is' if len(blind) == 1 else 'are'} blind" if blind else ""
    if health is Health.UNKNOWN:
        return f"nobody is there to see {primary}{besides}"
    if health is Health.UP:
        reach = counts[Health.UP] + counts[Health.DEGRADED]
        return f"{primary} is UP: {reach} of {of} observers reach it{besides}"
    says = Health.DOWN if counts[Health.DOWN] else Health.DEGRADED
    who = [o.region_id for o in seen if o.sees == says]
    what = "gets no answer" if says is Health.DOWN else "finds it worse than usual"
    verb = what if len(who) == 1 else what.replace("gets", "get").replace("finds", "find")
    return f"{primary} is {health}: {_listed(who) or 'nobody'} {verb} ({counts[says]} of {of} observers){besides}"


_NAMES_MAX: Final = 4


def _listed(names: list[str]) -> str:
    shown = names[:_NAMES_MAX]
    more = len(names) - len(shown)
    if more:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
