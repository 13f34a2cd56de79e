"""Views joined: a quorum's word is a fact, one agent's a suspicion, and who lost its own network is not believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Outcome, Policy
from streams.core.paths import Paths
from streams.core.views import PathMetrics, metrics, needed
from tests.streams.core.policy import STATED
from tests.streams.core.probing import Sample, panes

T0: Final = 1_700_000_010_000
TARGETS: Final = {"t-1": 0, "t-2": 1}
HONEST: Final = ("agent-1", "agent-2")
LIAR: Final = "agent-3"
Seen = float | Outcome
_SEEN = st.one_of(st.floats(1, 2000, width=32), st.sampled_from([Outcome.TIMED_OUT, Outcome.REFUSED]))
# Of one agent: what the probes of each of ten seconds see, by target.
_VIEW = st.fixed_dictionaries({t: st.lists(_SEEN, min_size=10, max_size=10) for t in TARGETS})
View = dict[str, list[Seen]]


def joined(views: dict[str, View], policy: Policy = STATED) -> PathMetrics:
    paths = Paths()
    for second in range(10):
        samples = [
            Sample(target, T0 + 1000 * second, seen[second], agent)
            for agent, view in views.items()
            for target, seen in view.items()
        ]
        paths.fold(panes(samples), TARGETS, policy, T0 + 1000 * second + 1000, 1000.0 * second + 1000)
    return metrics(paths, len(TARGETS), policy, 10_000.0)


@settings(max_examples=150)
@given(_VIEW, _VIEW, _VIEW)
def test_no_single_agent_of_three_makes_a_path_look_bad_or_good(one: View, other: View, lie: View) -> None:
    """Whatever the third says, each metric stays between what the two others see alone."""
    each = [joined({agent: view}) for agent, view in zip(HONEST, (one, other), strict=True)]
    together = joined(dict(zip(HONEST, (one, other), strict=True)) | {LIAR: lie})
    if any(m.suspects for m in each):
        return  # one of the two lost its own network
    for name in ("latency_ms", "slow_latency_ms", "loss_ratio", "fast_loss_ratio", "delay_variation_ms"):
        for target in range(len(TARGETS)):
            alone = [float(getattr(m, name)[target]) for m in each]
            if not any(np.isnan(alone)):
                found = float(getattr(together, name)[target])
                assert min(alone) * (1 - 1e-9) <= found <= max(alone) * (1 + 1e-9), name
    down = [m.suspicion_ratio > 0 for m in each]
    assert not (together.down & ~(down[0] | down[1])).any()
    assert not (~together.down & down[0] & down[1]).any()
    assert set(together.suspects) <= {LIAR}


def view(t_1: Seen, t_2: Seen = 30.0) -> View:
    return {"t-1": [t_1] * 10, "t-2": [t_2] * 10}


@pytest.mark.parametrize(
    ("quorum_ratio", "agrees"),
    [
        (0.51, {1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 7: 4}),
        (0.34, {1: 1, 2: 2, 3: 2, 5: 2, 9: 4}),
        (1.0, {1: 1, 2: 2, 3: 3, 7: 7}),
        (0.01, {1: 1, 2: 2, 3: 2, 100: 2}),
        (2 / 3, {3: 2, 6: 4, 9: 6}),
    ],
)
def test_a_quorum_is_its_ratio_rounded_up_and_of_several_never_one_alone(
    quorum_ratio: float, agrees: dict[int, int]
) -> None:
    assert needed(np.array(list(agrees)), quorum_ratio).tolist() == list(agrees.values())


@given(st.integers(0, 1000), st.floats(1e-9, 1))
def test_a_quorum_can_always_be_reached_and_is_nobody_only_of_nobody(reporting: int, ratio: float) -> None:
    (found,) = needed(np.array([reporting]), ratio)
    assert min(reporting, 2) <= found <= reporting
    assert found >= ratio * reporting - 1e-6


@pytest.mark.parametrize(("lost", "down"), [(0, False), (1, False), (2, False), (3, True), (4, True), (5, True)])
def test_of_five_agents_three_make_it_a_fact(lost: int, down: bool) -> None:
    views = {f"agent-{i}": view(Outcome.TIMED_OUT if i < lost else 20.0) for i in range(5)}
    found = joined(views)
    assert found.down[0] == down
    assert found.suspicion_ratio[0] == pytest.approx(lost / 5)
    assert not found.down[1]
    assert found.suspects == ()


@pytest.mark.parametrize(("slow", "latency_ms"), [(1, 20.0), (2, 20.0), (3, 200.0), (4, 200.0)])
def test_of_five_agents_the_middle_one_tells_the_latency(slow: int, latency_ms: float) -> None:
    found = joined({f"agent-{i}": view(200.0 if i < slow else 20.0) for i in range(5)})
    assert found.latency_ms[0] == pytest.approx(latency_ms)


def test_an_agent_that_loses_all_its_targets_is_suspect_beside_others_and_alone() -> None:
    lost = view(Outcome.TIMED_OUT, Outcome.TIMED_OUT)
    for views in ({"agent-1": lost}, {"agent-1": lost, "agent-2": view(20.0)}):
        found = joined(views)
        assert found.suspects == ("agent-1",)
        assert not found.down.any()
        assert found.trusted.tolist() == [len(views) > 1] * 2
    world = joined({"agent-1": lost, "agent-2": lost})
    assert world.suspects == ()
    assert world.down.all()


def test_an_agent_of_a_single_target_cannot_tell_its_own_fault_and_is_believed() -> None:
    found = joined({"agent-1": {"t-1": [Outcome.TIMED_OUT] * 10}})
    assert (bool(found.down[0]), found.suspects) == (True, ())


@pytest.mark.parametrize(
    ("must", "vetoed"), [([], False), (["agent-3"], True), (["agent-1"], False), (["gone"], False)]
)
def test_one_that_must_reach_a_target_vetoes_it_alone_and_only_it(must: list[str], vetoed: bool) -> None:
    policy = replace(STATED, must_be_healthy=must)
    found = joined({"agent-1": view(20.0), "agent-2": view(20.0), "agent-3": view(Outcome.TIMED_OUT)}, policy)
    assert found.vetoed.tolist() == [vetoed, False]
    assert not found.down.any()


def test_a_suspect_cannot_veto() -> None:
    policy = replace(STATED, must_be_healthy=["agent-3"])
    lost = view(Outcome.TIMED_OUT, Outcome.TIMED_OUT)
    assert not joined({"agent-1": view(20.0), "agent-2": view(20.0), "agent-3": lost}, policy).vetoed.any()
