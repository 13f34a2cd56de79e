"""Where plans for paths come from: planners are told what the journal says, and are asked once a tick.

A planner is as pure as the engine that asks it: the same journal gives the same plans, byte for byte. Whatever it
returns is published as it is, on the topic that `streams.network_fold` has for its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from schemas.records import Record, Region
from streams.core.graph import Graph
from streams.core.mending import Mending
from streams.core.terms import Standing, Terms


@dataclass(frozen=True, slots=True)
class Network:
    """The network as the engine sees it at a tick, to be read and not changed."""

    graph: Graph
    standings: Mapping[str, Standing]  # by primary: what its latest update says (target, agents)
    terms: Mapping[str, Terms]  # by primary
    catalogue: Mapping[str, Region]


class Planner(Protocol):
    """One kind of plans."""

    name: str  # under which its state is kept

    def take(self, record: Record, key: str, now_ms: int) -> str | None:
        """A configuration, catalogue, directive or action result; `key`: the journal record's.

        Returns why it counts for nothing, where somebody has to be told: it becomes a dead letter.
        """
        ...

    def step(self, now_ms: int, network: Network) -> list[Record]:
        """Look at the network; returns what is to be published, in order."""
        ...

    def save(self) -> Mapping[str, Any]:
        """Plain data for a snapshot."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the state again."""
        ...


PLANNERS: Final[tuple[type[Planner], ...]] = (Mending,)
