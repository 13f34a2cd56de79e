"""The network as a graph: nodes are regions, edges are directed paths between them. The only importer of networkx.

Inside it is arrays of regions by regions, for at 500 regions there are 250,000 edges, all of which change every tick;
what needs a graph (islands, ways around) gets one of networkx, made when it is asked for.

An edge is *fresh* when somebody who is believed measures it and its primary's updates still come; it is *down* when a
quorum of the primary's agents gets no answer, *degraded* when its losses or its delay beyond the usual one say so, by
the primary's own policy. An edge that is not fresh is neither good nor bad: nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import networkx as nx
import numpy as np

from schemas.records import Array, GraphUpdate
from streams.core.terms import Terms

STALE_MS: Final = 5_000  # updates come every tick: a primary without any for so long is seen no more
# What is kept of an edge, and how exactly: a ratio's three digits are plenty, and half precision halves a snapshot.
_EDGE: Final = {
    "latency_ms": np.float32,
    "usual_latency_ms": np.float32,
    "bandwidth_bps": np.float32,
    "weight": np.float32,
    "delay_variation_ms": np.float16,
    "loss_ratio": np.float16,
    "loss_now_ratio": np.float16,
    "confidence": np.float16,
}
DEGRADED: Final = 8  # a bit of `state` beside those of an update
BAD: Final = GraphUpdate.DOWN | DEGRADED
_HALF_MAX: Final = float(np.finfo(np.float16).max)
_NEVER: Final = -(1 << 62)


class Graph:
    """Regions by number; `edges[name]` and `state` are (regions, regions): row the primary, column the target."""

    def __init__(self) -> None:
        self.regions: list[str] = []
        self.numbers: dict[str, int] = {}
        self.edges: dict[str, Array] = {name: np.empty((0, 0), dtype) for name, dtype in _EDGE.items()}
        self.state = np.empty((0, 0), np.uint8)
        self.updated_at_ms = np.empty(0, np.int64)  # (regions,) journal time of each primary's last update
        # (regions,) how many paths of a primary are fresh, of these down, and of these bad in any way
        self.paths, self.paths_down, self.paths_bad = (np.empty(0, np.int64) for _ in range(3))
        self._columns: dict[str, tuple[tuple[str, ...], Array]] = {}  # of a primary's targets, their numbers

    def __len__(self) -> int:
        return len(self.regions)

    def add(self, regions: Iterable[str]) -> None:
        """Have these among the regions."""
        new = [region for region in dict.fromkeys(regions) if region not in self.numbers]
        if not new:
            return
        before = len(self.regions)
        self.regions += new
        self.numbers |= {region: before + i for i, region in enumerate(new)}
        size = len(self.regions)
        for name, dtype in _EDGE.items():
            grown = np.full((size, size), np.nan, dtype)
            grown[:before, :before] = self.edges[name]
            self.edges[name] = grown
        state = np.zeros((size, size), np.uint8)
        state[:before, :before] = self.state
        self.state = state
        self.updated_at_ms = np.append(self.updated_at_ms, np.full(len(new), _NEVER))
        none = np.zeros(len(new), np.int64)
        self.paths, self.paths_down, self.paths_bad = (
            np.append(each, none) for each in (self.paths, self.paths_down, self.paths_bad)
        )

    def put(self, update: GraphUpdate, terms: Terms, now_ms: int) -> Array:
        """Take a primary's paths in; returns the numbers of the regions that are down now and were not, or the reverse.

        What is degraded is judged by the primary's own terms. Raises ValueError: its columns do not fit.
        """
        columns = update.columns()
        row, to = self._numbered(update.primary_region, update.targets)
        before = self.state[row] & GraphUpdate.DOWN
        for name, edges in self.edges.items():
            edges[row] = np.nan
            column = columns[name]
            edges[row, to] = np.minimum(column, _HALF_MAX) if edges.dtype == np.float16 else column
        self.state[row] = 0
        self.state[row, to] = columns["state"] | _degraded(columns, terms) * DEGRADED
        self._count(row)
        self.updated_at_ms[row] = now_ms
        return np.flatnonzero(before != self.state[row] & GraphUpdate.DOWN)

    def _count(self, rows: int | slice) -> None:
        fresh = (self.state[rows] & GraphUpdate.FRESH) > 0
        self.paths[rows] = fresh.sum(axis=-1)
        self.paths_down[rows] = (fresh & ((self.state[rows] & GraphUpdate.DOWN) > 0)).sum(axis=-1)
        self.paths_bad[rows] = (fresh & ((self.state[rows] & BAD) > 0)).sum(axis=-1)

    def _numbered(self, primary: str, targets: list[str]) -> tuple[int, Array]:
        known = self._columns.get(primary)
        if known is None or known[0] != tuple(targets):
            self.add((primary, *targets))
            known = tuple(targets), np.array([self.numbers[t] for t in targets], np.int64)
            self._columns[primary] = known
        return self.numbers[primary], known[1]

    # -- what is said of edges: all (regions, regions) or, with `columns`, (regions, columns) --------------------------

    def current(self, now_ms: int) -> Array:
        """(regions,) bool: its updates still come."""
        return now_ms - self.updated_at_ms <= STALE_MS

    def fresh(self, now_ms: int, columns: Array | slice = slice(None)) -> Array:
        """Bool: measured now by somebody who is believed."""
        return ((self.state[:, columns] & GraphUpdate.FRESH) > 0) & self.current(now_ms)[:, None]

    def down(self, columns: Array | slice = slice(None)) -> Array:
        """Bool: no answer."""
        return (self.state[:, columns] & GraphUpdate.DOWN) > 0

    def bad(self, columns: Array | slice = slice(None)) -> Array:
        """Bool: no answer, or it loses, or takes longer than it usually does."""
        return (self.state[:, columns] & BAD) > 0

    def nodes(self) -> dict[str, Array]:
        """(regions,) each: what a region's edges come to, NaN where nobody knows.

        Latency and loss of the paths that lead there; weight and confidence of those and of those that begin there.
        """
        sure = np.nan_to_num(self.edges["confidence"].astype(np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            log_weight = np.log(self.edges["weight"].astype(np.float64))
            known = np.isfinite(log_weight) & (sure > 0)
            mass, log_weight = np.where(known, sure, 0.0), np.where(known, log_weight, 0.0)
            both = mass.sum(axis=0) + mass.sum(axis=1)
            weight = np.exp(((mass * log_weight).sum(axis=0) + (mass * log_weight).sum(axis=1)) / both)
            latency = np.exp(_mean(np.log(self.edges["latency_ms"].astype(np.float64)), sure))
            loss = _mean(self.edges["loss_ratio"].astype(np.float64), sure)
            counted = known.sum(axis=0) + known.sum(axis=1)
        return {
            "latency_ms": latency,
            "packet_loss_ratio": loss,
            "bandwidth_bps": _median(self.edges["bandwidth_bps"]),
            "weight": weight,
            "confidence": both / np.maximum(counted, 1),
        }

    # -- as a graph --------------------------------------------------------------------------------------------------

    def digraph(self, usable: Array) -> nx.DiGraph:
        """Regions, and the edges that (regions, regions) bool `usable` says, with their `latency_ms`."""
        graph = nx.DiGraph()
        graph.add_nodes_from(self.regions)
        rows, columns = np.nonzero(usable)
        latency = self.edges["latency_ms"][rows, columns].tolist()
        names = self.regions
        graph.add_weighted_edges_from(
            ((names[r], names[c], ms) for r, c, ms in zip(rows.tolist(), columns.tolist(), latency, strict=True)),
            weight="latency_ms",
        )
        return graph

    def islands(self, usable: Array) -> list[list[str]]:
        """Regions that still reach each other, whichever way; the largest first, those of equal size by name."""
        found = [sorted(part) for part in nx.weakly_connected_components(self.digraph(usable))]
        return sorted(found, key=lambda part: (-len(part), part))

    def way_around(self, begin: str, end: str, usable: Array) -> tuple[list[str], float] | None:
        """The fastest way over edges that may be used, and how many milliseconds it takes; None: there is none."""
        graph = self.digraph(usable & np.isfinite(self.edges["latency_ms"]))
        try:
            ms, way = nx.single_source_dijkstra(graph, begin, end, weight="latency_ms")
        except (nx.NetworkXNoPath, nx.NodeNotFound):
            return None
        return way, float(ms)

    # -- state ---------------------------------------------------------------------------------------------------------

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        return {"regions": self.regions}, {**self.edges, "state": self.state, "updated_at_ms": self.updated_at_ms}

    @classmethod
    def load(cls, scalars: Mapping[str, Any], arrays: Mapping[str, Array]) -> Graph:
        """The state again."""
        graph = cls()
        graph.add(scalars["regions"])
        for name in _EDGE:
            graph.edges[name] = arrays[name]
        graph.state, graph.updated_at_ms = arrays["state"], arrays["updated_at_ms"]
        graph._count(slice(None))
        return graph


def _degraded(columns: Mapping[str, Array], terms: Terms) -> Array:
    """(targets,) 0 or 1: it loses, or takes longer than it usually does, by a primary's terms."""
    latency, usual = columns["latency_ms"], columns["usual_latency_ms"]
    with np.errstate(invalid="ignore"):
        slow = (latency > terms.disruption_latency_ratio * usual) & (
            latency - usual > terms.disruption_latency_excess_ms
        )
        lossy = columns["loss_now_ratio"] > terms.disruption_loss_ratio
    return (slow | lossy).astype(np.uint8)


def _mean(values: Array, mass: Array) -> Array:
    """(columns,) mean of each column, weighted, of what is finite."""
    known = np.isfinite(values)
    mass = np.where(known, mass, 0.0)
    return (mass * np.where(known, values, 0.0)).sum(axis=0) / mass.sum(axis=0)  # type: ignore[no-any-return]


def _median(values: Array) -> Array:
    """(columns,) median of each column's finite values; NaN where there is none."""
    cells = np.sort(values, axis=0)  # NaN last
    count = np.isfinite(cells).sum(axis=0)
    at = np.maximum(count - 1, 0) // 2
    found = np.take_along_axis(cells, at[None], axis=0)[0] if len(cells) else np.empty(0)
    return np.where(count > 0, found, np.nan)
