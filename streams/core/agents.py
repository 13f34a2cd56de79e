"""Who may speak for a region: the agents that its catalogue names; where it names none, anybody.

An agent's name and region are what it says they are. So a catalogue may say which agents stand in a region, and what
any other says as from there (probes, capacities, routes, readiness) does not count. What somebody said who is named no
more is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from schemas.records import AgentHealth, BandwidthMeasurement, PathPanes, ReadinessReport, Record, Region, RouteEvent
from streams.core.rows import only


def agents_of(region: str, catalogue: Mapping[str, Region]) -> frozenset[str]:
    """Who may speak for a region; empty: anybody."""
    found = catalogue.get(region)
    return frozenset(found.agents) if found else frozenset()


def speakers(record: Record) -> Collection[str]:
    """The agents whose word a record is; nobody's: it is no agent's."""
    match record:
        case PathPanes():
            return record.agents
        case BandwidthMeasurement() | AgentHealth() | RouteEvent() | ReadinessReport():
            return (record.agent_id,)
    return ()


def said_by(panes: PathPanes, agents: Collection[str]) -> PathPanes | None:
    """The rows of these agents alone; None: there is none. Targets and methods stay, though nobody may name one now.

    Raises ValueError or IndexError when the record's columns do not fit each other.
    """
    rows = panes.columns()
    known = np.array([agent in agents for agent in panes.agents], bool)
    keep = known[rows["agent_index"]]
    if not np.count_nonzero(keep):
        return None
    rows = only(rows, keep)
    rows["agent_index"] = (np.cumsum(known) - 1)[rows["agent_index"]]
    packed: dict[str, Any] = {
        name: np.ascontiguousarray(rows[name], dtype).tobytes()
        for name, dtype in (PathPanes.ROWS | PathPanes.ENTRIES).items()
    }
    return replace(panes, agents=[agent for agent in panes.agents if agent in agents], **packed)
