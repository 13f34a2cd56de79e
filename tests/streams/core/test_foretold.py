"""What a trusted model says of a path reaches its remedies: from decide's outlook to overview's plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.records import FailoverConfiguration, GraphUpdate, PathAction, Policy, Remedy
from streams.core.graph import Graph
from streams.core.mending import Mending
from streams.core.planning import Network
from streams.core.readiness import Outlook, foretold
from streams.core.terms import Standing, Terms

POLICY = Policy()
REMEDIES = [Remedy("standby", "b", "LINK", "edge"), Remedy("prefer", "b", "LOCAL_PREFERENCE", "edge", value=200.0)]


@pytest.mark.parametrize(
    ("outlook", "target"),
    [
        (None, None),
        (Outlook("b", 0.9, 0.0, "c", "m"), None),
        (Outlook("b", POLICY.alarm_probability / 2, 1.0, "c", "m"), None),
        (Outlook("b", POLICY.alarm_probability, 0.1, None, "m"), "b"),
    ],
)
def test_a_disruption_is_foretold_by_a_model_that_is_trusted(outlook: Outlook | None, target: str | None) -> None:
    assert foretold(outlook, POLICY) == target


def update(now_ms: int, state: int) -> GraphUpdate:
    columns = {name: np.array([1.0]) for name in GraphUpdate.COLUMNS}
    columns |= {"latency_ms": np.array([50.0]), "usual_latency_ms": np.array([50.0])}
    columns |= {"loss_ratio": np.array([0.0]), "loss_now_ratio": np.array([0.0]), "state": np.array([state])}
    return GraphUpdate("a", now_ms, now_ms, ["b"], ["a/1"], [], target_region="b", **GraphUpdate.packed(**columns))


def test_a_link_is_activated_for_what_is_foretold_and_no_traffic_moved() -> None:
    graph, mending = Graph(), Mending()
    mending.take(FailoverConfiguration("a", ["b"], 1, remedies=REMEDIES), "a", 1)
    actions: list[Any] = []
    for second in range(1, 20):
        bits = GraphUpdate.FRESH | GraphUpdate.ELIGIBLE | (GraphUpdate.FORETOLD if second >= 10 else 0)
        its = update(1000 * second, bits)
        graph.put(its, Terms(), 1000 * second)
        network = Network(graph, {"a": Standing.of(its, None, 1000 * second)}, {}, {})
        actions += [s for s in mending.step(1000 * second, network) if isinstance(s, PathAction)]
        if second < 10:
            assert actions == []
    assert [a.remedy_id for a in actions] == ["standby"]
    assert "predicted to be disrupted" in actions[0].reason
