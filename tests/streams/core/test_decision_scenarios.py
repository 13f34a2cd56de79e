"""What operators complain of elsewhere, told as stories: who is believed, what moves a target, and what must not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from schemas.records import Event, FailoverRanking, Mode, Outcome, Policy
from tests.streams.core.policy import STATED
from tests.streams.core.probing import each, panes
from tests.streams.core.story import T0, TARGETS, Network, Seen, Story, steady

CALM = steady(t_1=20.0, t_2=30.0, t_3=60.0)
LOST = (Outcome.TIMED_OUT, Outcome.TIMED_OUT)
THREE = ("agent-1", "agent-2", "agent-3")


def but(target: str, *seen: Seen, of: Network = CALM) -> Network:
    return lambda t, second: seen if t == target else of(t, second)


def nothing(*_: object) -> Sequence[Seen]:
    return LOST


def calm(policy: Policy = STATED, seconds: int = 60, agents: Sequence[str] = ("agent-1", "agent-2")) -> Story:
    """A story in which t-1 is in use, t-2 the next best and t-3 the last."""
    story = Story.begun(policy)
    story.run(seconds, CALM, agents)
    assert story.last.target_region == "t-1"
    return story


def since(story: Story, act: Callable[[], object]) -> list[FailoverRanking]:
    """The rankings published meanwhile."""
    known = len(story.rankings)
    act()
    return story.rankings[known:]


def targets(rankings: list[FailoverRanking]) -> set[str | None]:
    return {r.target_region for r in rankings}


def moves(rankings: list[FailoverRanking]) -> int:
    return sum(Event.TARGET_CHANGED in r.events for r in rankings)


# What is measured.


@pytest.mark.parametrize("how", [Outcome.REFUSED, Outcome.UNREACHABLE])
def test_fast_refusals_are_not_low_latency(how: Outcome) -> None:
    story = calm()
    story.run(30, but("t-3", 60.0, how, how, how))
    path = story.weights[-1].paths()["t-3"]
    assert path.latency_ms == pytest.approx(60.0)
    assert path.loss_ratio is not None
    assert path.loss_ratio > 0.5
    assert story.last.target_region == "t-1"
    assert story.last.candidates[-1].region_id == "t-3"


@pytest.mark.parametrize("agents", [("agent-1",), ("agent-1", "agent-2"), THREE])
def test_one_probes_loss_moves_nothing_not_even_between_equals(agents: Sequence[str]) -> None:
    equal = steady(t_1=20.0, t_2=20.0, t_3=60.0)
    story = Story.begun(STATED)
    story.run(60, equal, agents)
    for lost in (Outcome.TIMED_OUT, Outcome.REFUSED):

        def one_lost(what: Outcome = lost) -> None:
            story.run_each(1, dict.fromkeys(agents, equal) | {agents[0]: but("t-1", 20.0, what, of=equal)})
            story.run(20, equal, agents)

        assert targets(since(story, one_lost)) == {"t-1"}


def test_stale_is_not_saturated() -> None:
    """What nobody measures any more keeps the score that it had, neither the best nor the worst, and is not chosen."""
    story = calm()
    before = story.weights[-1].paths()["t-1"].weight
    story.run(40, but("t-1"))
    after = story.weights[-1].paths()["t-1"]
    assert story.state_of("t-1") == "STALE"
    assert 0.9 * before < after.weight < before
    assert story.last.target_region == "t-2"
    assert [c.region_id for c in story.last.candidates] == ["t-2", "t-3", "t-1"]
    story.run(20, lambda target, _: () if target == "t-1" else [900.0, 900.0])
    assert story.last.target_region in ("t-2", "t-3")


def test_what_was_never_measured_is_never_chosen_over_what_was() -> None:
    story = Story.begun(STATED)
    story.run(60, lambda target, _: [500.0, Outcome.TIMED_OUT] if target == "t-3" else ())
    assert {t: story.state_of(t) for t in TARGETS} == {"t-1": "NO_DATA", "t-2": "NO_DATA", "t-3": None}
    assert story.last.target_region == "t-3"


def test_a_backlog_of_old_samples_after_an_outage_is_no_news() -> None:
    """For five minutes nothing reached us; then agents send what they saw of t-1 in the first of them."""
    story = calm()
    story.second += 300
    outage = range(T0 + 62_000, T0 + 120_000, 1000)

    def back() -> None:
        for agent in ("agent-1", "agent-2"):
            story.say(panes([s for t in TARGETS for s in each(t, 20.0, at_ms=[story.now_ms - 500], agent=agent)]))
            story.say(panes(each("t-1", Outcome.TIMED_OUT, at_ms=outage, probes=2, agent=agent)))
        story.run(30, CALM)

    after = since(story, back)
    assert targets(after) == {"t-1"}
    assert all(c.eligible for r in after for c in r.candidates)


# Whose fault it is.


def test_when_the_only_agent_loses_every_path_it_is_suspect_and_the_target_is_kept() -> None:
    story = calm(agents=("agent-1",))
    after = since(story, lambda: story.run(30, nothing, ("agent-1",)))
    assert targets(after) == {"t-1"}
    assert (story.last.mode, story.last.suspect_agents) == (Mode.THIN, ["agent-1"])
    assert Event.AGENTS_CHANGED in {e for r in after for e in r.events}
    assert story.last.reason == "t-1 is kept: too few paths have fresh data, and agent-1 cannot be believed"
    story.run(5, CALM, ("agent-1",))
    assert (story.last.target_region, story.last.mode, story.last.suspect_agents) == ("t-1", Mode.NORMAL, [])


def test_when_one_of_two_agents_loses_every_path_the_others_view_counts() -> None:
    story = calm()
    story.run_each(30, {"agent-1": nothing, "agent-2": CALM})
    assert (story.last.target_region, story.last.mode) == ("t-1", Mode.NORMAL)
    assert story.last.suspect_agents == ["agent-1"]
    assert all(c.eligible for c in story.last.candidates)
    story.run_each(20, {"agent-1": nothing, "agent-2": but("t-1", *LOST)})
    assert story.last.target_region == "t-2"
    assert story.state_of("t-1") == "DOWN"


def test_when_all_of_several_agents_lose_everything_it_is_the_world() -> None:
    story = calm(agents=THREE)
    story.run(10, nothing, THREE)
    assert (story.last.target_region, story.last.mode) == (None, Mode.PANIC)
    assert {story.state_of(t) for t in TARGETS} == {"DOWN"}
    assert story.last.suspect_agents == []


def test_an_agent_that_falls_silent_beside_others_is_suspect_and_no_target_is_blamed() -> None:
    story = calm(agents=THREE)
    after = since(story, lambda: story.run(30, CALM, THREE[:2]))
    assert story.last.suspect_agents == ["agent-3"]
    assert targets(after) == {"t-1"}
    assert all(c.eligible for r in after for c in r.candidates)


def test_one_agent_of_three_believing_a_path_bad_is_a_suspicion_and_two_are_a_fact() -> None:
    story = calm(agents=THREE)
    doubt = but("t-1", *LOST)
    story.run_each(20, dict.fromkeys(THREE, CALM) | {"agent-3": doubt})
    assert story.last.target_region == "t-1"
    assert story.state_of("t-1") is None
    suspicion = {c.region_id: c.suspicion_ratio for c in story.last.candidates}
    assert suspicion == pytest.approx({"t-1": 1 / 3, "t-2": 0, "t-3": 0}, rel=1e-5)
    story.run_each(5, {"agent-1": CALM, "agent-2": doubt, "agent-3": doubt})
    assert story.last.target_region == "t-2"
    assert story.state_of("t-1") == "DOWN"


def test_an_agent_that_must_be_healthy_vetoes_alone() -> None:
    story = calm(replace(STATED, must_be_healthy=["agent-3"]), agents=THREE)
    story.run_each(5, dict.fromkeys(THREE, CALM) | {"agent-2": but("t-1", *LOST)})
    assert story.last.target_region == "t-1"
    vetoed = dict.fromkeys(THREE, CALM) | {"agent-3": but("t-1", *LOST)}
    after = since(story, lambda: story.run_each(5, vetoed))
    assert story.last.target_region == "t-2"
    assert story.state_of("t-1") == "VETOED"
    assert "t-2 replaces t-1, which is VETOED" in [r.reason for r in after]


def test_workers_that_are_cut_off_from_kafka_declare_nobody_dead() -> None:
    story = calm(agents=THREE)

    def cut_off() -> None:
        for _ in range(3):
            story.second += 120
            story.run(3, CALM, THREE)

    after = since(story, cut_off)
    assert targets(after) == {"t-1"}
    assert {r.mode for r in after} == {Mode.NORMAL}
    assert all(c.eligible for r in after for c in r.candidates)


# Noise and leads.


def noisy(name: str, of: dict[str, float], share: float = 0.1) -> Network:
    def seen(target: str, second: int) -> Sequence[Seen]:
        chance = random.Random(f"{name} {target} {second}")
        return [of[target] * chance.lognormvariate(0, share) for _ in range(2)]

    return seen


def test_noise_between_two_equal_paths_moves_the_target_a_few_times_an_hour_at_most() -> None:
    story = Story.begun(STATED)
    rtt_ms = {"t-1": 20.0, "t-2": 20.0, "t-3": 60.0}
    views = {agent: noisy(agent, rtt_ms) for agent in ("agent-1", "agent-2")}
    story.run_each(60, views)
    after = since(story, lambda: story.run_each(1800, views))
    assert moves(after) <= 3


def test_a_large_lead_moves_within_the_least_dwell_and_a_small_one_takes_longer() -> None:
    policy = replace(STATED, margin_ratio=0.02, dwell_ms=20_000, dwell_min_ms=3000)

    def seconds(rtt_ms: float) -> int:
        """Until t-2 is in use, from when it leads by the margin."""
        story = calm(policy)
        worse = but("t-1", rtt_ms, rtt_ms)
        while story.last.candidates[0].region_id != "t-2":
            story.run(1, worse)
        return story.seconds_until_target("t-2", worse, 120)

    large, small = seconds(600.0), seconds(32.0)
    assert large <= 4
    assert 8 < small <= 120
