"""What of the graph is published, region by region: a node when one of its edges has changed, or was long not said.

At 500 regions a node holds 499 edges. So many nodes a tick and no more are published, those first that have waited
longest; none is said less often than `HEARTBEAT_MS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from schemas.records import Array, NetworkEdge, NetworkGraphNode
from streams.core.graph import Graph
from streams.core.numbers import significant

HEARTBEAT_MS: Final = 60_000
CHANGE_RATIO: Final = 0.1  # of an edge's weight
NODES_PER_TICK: Final = 32
_NEVER: Final = -(1 << 62)
_UNKNOWN, _GOOD, _BAD, _DOWN = range(4)
_STATES: Final = ("UNKNOWN", "GOOD", "BAD", "DOWN")


class Nodes:
    """What was said of each region last: `weight`, `state` (regions, regions), `at_ms`, `sequence` (regions,)."""

    def __init__(self) -> None:
        self.columns: dict[str, Array] = {
            "weight": np.empty((0, 0), np.float16),
            "state": np.empty((0, 0), np.uint8),
            "at_ms": np.empty(0, np.int64),
            "sequence": np.empty(0, np.int64),
        }

    def add(self, regions: int) -> None:
        """Have so many regions."""
        before = len(self.columns["at_ms"])
        more = regions - before
        for name, column in self.columns.items():
            if column.ndim == 1:
                self.columns[name] = np.append(column, np.full(more, _NEVER if name == "at_ms" else 0))
            else:
                grown = np.zeros((regions, regions), column.dtype)
                grown[:before, :before] = column
                self.columns[name] = grown

    def step(self, graph: Graph, now_ms: int) -> list[NetworkGraphNode]:
        """The nodes to publish now."""
        c = self.columns
        fresh, down = graph.fresh(now_ms), graph.down()
        bad = graph.bad()
        state = np.where(fresh, np.where(down, _DOWN, np.where(bad, _BAD, _GOOD)), _UNKNOWN).astype(np.uint8)
        weight = np.nan_to_num(graph.edges["weight"]).astype(np.float16)
        moved = np.abs(weight - c["weight"]) > CHANGE_RATIO * c["weight"]
        news = (moved & fresh).any(axis=1) | (state != c["state"]).any(axis=1)
        begins = np.isfinite(graph.edges["weight"]).any(axis=1)
        due = np.flatnonzero(news | ((now_ms - c["at_ms"] >= HEARTBEAT_MS) & (begins | (c["at_ms"] != _NEVER))))
        if not len(due):
            return []
        chosen = np.sort(due[np.argsort(c["at_ms"][due], kind="stable")][:NODES_PER_TICK])
        c["weight"][chosen], c["state"][chosen], c["at_ms"][chosen] = weight[chosen], state[chosen], now_ms
        c["sequence"][chosen] = np.maximum(c["sequence"][chosen] + 1, now_ms)
        summed = graph.nodes()
        return [self._node(graph, int(number), now_ms, summed, state[number]) for number in chosen]

    def _node(
        self, graph: Graph, number: int, now_ms: int, summed: Mapping[str, Array], state: Array
    ) -> NetworkGraphNode:
        names = ("weight", "confidence", "latency_ms", "loss_ratio", "delay_variation_ms", "bandwidth_bps")
        weight, confidence, *measured = significant(
            np.stack([graph.edges[name][number].astype(np.float64) for name in names])
        )
        there = np.flatnonzero(np.isfinite(weight)).tolist()
        rows = zip(*(row.tolist() for row in (weight, confidence, *measured)), state.tolist(), strict=True)
        each = list(rows)
        edges = [
            NetworkEdge(
                target_region=graph.regions[i],
                weight=each[i][0],
                confidence=each[i][1],
                state=_STATES[each[i][6]],
                latency_ms=_or_none(each[i][2]),
                packet_loss_ratio=_or_none(each[i][3]),
                delay_variation_ms=_or_none(each[i][4]),
                bandwidth_bps=_or_none(each[i][5]),
            )
            for i in there
        ]
        of = {name: float(significant(column[number])) for name, column in summed.items()}
        return NetworkGraphNode(
            region_id=graph.regions[number],
            sequence=int(self.columns["sequence"][number]),
            decided_at_ms=now_ms,
            edges=sorted(edges, key=lambda edge: edge.target_region),
            latency_ms=_or_none(of["latency_ms"]),
            packet_loss_ratio=_or_none(of["packet_loss_ratio"]),
            bandwidth_bps=_or_none(of["bandwidth_bps"]),
            weight=_or_none(of["weight"]),
            confidence=_or_none(of["confidence"]) or 0.0,
        )

    def forget(self) -> None:
        """Say everything anew."""
        self.columns["at_ms"][:] = _NEVER

    def save(self) -> dict[str, Any]:
        """Arrays for a snapshot."""
        return self.columns

    @classmethod
    def load(cls, arrays: Mapping[str, Array]) -> Nodes:
        """The state again."""
        nodes = cls()
        nodes.columns = {name: arrays[name] for name in nodes.columns}
        return nodes


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
