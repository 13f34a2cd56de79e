"""Who may speak for a region: its catalogue's agents. What any other says has no part in a decision, nor had it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode, encode
from schemas.records import (
    AgentHealth,
    BandwidthMeasurement,
    Outcome,
    PathPanes,
    ReadinessCheck,
    ReadinessReport,
    Reason,
    Record,
    RegionCatalog,
    RegionReach,
    Route,
    RouteChange,
    RouteEvent,
    Snapshot,
    Tick,
    View,
)
from streams.core.agents import said_by
from streams.refold import Refold
from tests.pipeline import Key, Pane, add_panes
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY, Sample, panes
from tests.streams.core.story import CATALOGUE, PHASE_MS, T0, TARGETS, TICK_MS, Network, Story, new_fold, steady

CALM = steady(t_1=20.0, t_2=40.0, t_3=200.0)
OURS = ("agent-1", "agent-2")
LIARS = ("liar-1", "liar-2", "liar-3", "liar-4", "liar-5")


def naming(*agents: str, version: int = 2) -> RegionCatalog:
    """The catalogue, where these alone may speak for the primary."""
    regions = [replace(r, agents=list(agents)) if r.region_id == PRIMARY else r for r in CATALOGUE.regions]
    return RegionCatalog(version, regions)


def t_1_is_dead(target: str, second: int) -> Sequence[float | Outcome]:
    return [Outcome.TIMED_OUT] * 2 if target == "t-1" else CALM(target, second)


def report(story: Story, agent: str) -> ReadinessReport:
    return ReadinessReport(PRIMARY, "t-1", agent, story.now_ms, [ReadinessCheck("http", False, "answered 500")])


def route(story: Story, agent: str) -> RouteEvent:
    return RouteEvent(agent, PRIMARY, story.now_ms, RouteChange.WITHDRAWN, "r", "192.0.2.1", 65_001, View.PRE_POLICY,
                      regions=[RegionReach("t-1", 0)])  # fmt: skip


def way(story: Story, agent: str) -> RouteEvent:
    return RouteEvent(agent, PRIMARY, story.now_ms, RouteChange.REACHABLE, "r", "192.0.2.1", 65_001, View.PRE_POLICY,
                      routes=[Route("t-1", "203.0.113.0/24", [65_001, 666, 65_002], 3)])  # fmt: skip


def bandwidth(story: Story, agent: str) -> BandwidthMeasurement:
    return BandwidthMeasurement(agent, PRIMARY, "t-1", story.now_ms, 1.0, 0.1, 1000)


def health(story: Story, agent: str) -> AgentHealth:
    return AgentHealth(agent, PRIMARY, story.now_ms, 0.0, 0, 0)


SAYINGS = (report, route, way, bandwidth, health)
Saying = Callable[[Story, str], Record]


def decisions(story: Story) -> list[tuple[str, bytes]]:
    """All that is published but dead letters."""
    return [(o.topic, o.value) for o in story.outputs if o.topic != "dead-letters"]


def foreign(story: Story) -> list[str]:
    return [letter.detail for letter in story.letters if letter.reason == Reason.FOREIGN_AGENT]


def test_agents_of_elsewhere_outvote_nobody_and_each_is_a_dead_letter() -> None:
    story = Story.begun()
    story.say(naming(*OURS), None)
    story.run(60, CALM)
    story.run_each(60, dict.fromkeys(OURS, CALM) | dict.fromkeys(LIARS, t_1_is_dead))
    assert (story.last.target_region, story.state_of("t-1")) == ("t-1", None)
    assert story.updates[-1].agents == list(OURS)
    assert foreign(story) == 60 * [f"{', '.join(LIARS)}: not among the agents that the catalogue names for {PRIMARY}"]


def test_where_a_region_names_nobody_anybody_may_speak_for_it() -> None:
    story = Story.begun()
    story.run(60, CALM)
    story.run_each(10, dict.fromkeys(OURS, CALM) | dict.fromkeys(LIARS, t_1_is_dead))
    assert (story.last.target_region, story.state_of("t-1")) == ("t-2", "DOWN")
    assert foreign(story) == []


@pytest.mark.parametrize("saying", SAYINGS)
def test_of_every_kind_of_record_what_a_foreign_agent_says_is_as_if_it_had_never_been(saying: Saying) -> None:
    told, untold = Story.begun(), Story.begun()
    for story in (told, untold):
        story.say(naming(*OURS), None)
        story.run(60, CALM)
    assert told.say(saying(told, "liar-1")) == []
    untold.told_by(told)
    for story in (told, untold):
        story.run(20, CALM)
    assert decisions(told) == decisions(untold)
    assert foreign(told) == [f"liar-1: not among the agents that the catalogue names for {PRIMARY}"]


@pytest.mark.parametrize("saying", [report, route, bandwidth])
def test_what_an_agent_of_ours_says_of_any_kind_counts(saying: Saying) -> None:
    """Else the test above would prove nothing."""
    told, untold = Story.begun(), Story.begun()
    for story in (told, untold):
        story.say(naming(*OURS), None)
        story.run(60, CALM)
    told.say(saying(told, "agent-1"))
    untold.told_by(told)
    for story in (told, untold):
        story.run(5, CALM)
    assert decisions(told) != decisions(untold)
    assert foreign(told) == []


def test_what_somebody_said_before_is_forgotten_when_the_catalogue_names_others() -> None:
    """It had closed the best route, failed its check, told of its capacity and outvoted the probes."""
    story = Story.begun()
    story.run_each(60, dict.fromkeys(OURS, CALM) | dict.fromkeys(LIARS, t_1_is_dead))
    for saying in SAYINGS:
        story.say(saying(story, "liar-1"))
    story.run_each(1, dict.fromkeys(LIARS, t_1_is_dead))
    assert story.state_of("t-1") == "NO_ROUTE"
    assert [route.transits for route in story.updates[-1].routes] == [[65_001, 666]]
    story.say(naming(*OURS), None)
    story.run(40, CALM)
    assert (story.state_of("t-1"), story.last.target_region) == (None, "t-1")
    assert story.last.suspect_agents == []
    update = story.updates[-1]
    assert update.agents == list(OURS)
    paths = story.weights[-1].paths()
    assert paths["t-1"].bandwidth_bps is None
    assert "liar" not in str(story.fold.engines[PRIMARY].save()[0])


def test_one_agent_more_forgets_nothing_and_one_less_only_its_own() -> None:
    story = Story.begun()
    story.say(naming(*OURS), None)
    story.run(30, CALM)
    story.say(bandwidth(story, "agent-1"))
    story.say(naming(*OURS, "agent-3", version=3), None)
    story.run(1, CALM)
    assert story.weights[-1].paths()["t-1"].bandwidth_bps == 1.0
    story.say(naming("agent-2", "agent-3", version=4), None)
    story.run(1, CALM)
    assert story.weights[-1].paths()["t-1"].bandwidth_bps is None
    assert story.fold.engines[PRIMARY]._state.paths.agents == ["agent-2"]
    assert foreign(story)[-1].startswith("agent-1: ")


def test_a_restart_between_remembers_who_may_speak() -> None:
    story = Story.begun()
    story.say(naming(*OURS), None)
    story.run(10, CALM)
    again = Story(new_fold()).told_by(story)
    again.fold.restore([decode(encode(s), Snapshot) for s in story.fold.snapshots()])
    known = len(story.outputs)
    for each in (story, again):
        each.say(report(each, "liar-1"))
        each.run_each(3, {"agent-1": CALM, "liar-1": t_1_is_dead})
    assert again.outputs == story.outputs[known:]
    assert len(foreign(again)) == 4


def test_folded_many_at_a_time_it_is_the_same() -> None:
    story = Story.begun()
    story.run_each(5, dict.fromkeys((*OURS, *LIARS), CALM))
    story.say(naming(*OURS), None)
    for _ in range(3):
        story.run_each(5, dict.fromkeys((*OURS, *LIARS), t_1_is_dead))
        story.say(bandwidth(story, "liar-1"))
    again = Refold(topic="observations", topic_id="journal-1", partition=0, tick_ms=TICK_MS, phase_ms=PHASE_MS)
    assert [out for outputs in again.apply_all(story.journal) for out in outputs] == story.outputs
    assert len(foreign(story)) == 18


networks = st.dictionaries(
    st.sampled_from((*OURS, *LIARS)),
    st.lists(st.sampled_from([5.0, 20.0, 900.0, Outcome.TIMED_OUT, Outcome.REFUSED]), min_size=1, max_size=3),
    min_size=1,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(networks, min_size=1, max_size=12))
def test_whatever_foreign_agents_probe_every_decision_is_the_same_as_without_them(
    views: list[dict[str, list[float | Outcome]]],
) -> None:
    told, untold = Story.begun(STATED), Story.begun(STATED)
    for story in (told, untold):
        story.say(naming(*OURS), None)
    for view in views:
        told.run_each(1, {agent: _always(seen) for agent, seen in view.items()})
        if not set(OURS) & view.keys():  # no flush then: its time passes by a tick
            untold.append(encode(Tick("nobody")), untold.now_ms + 1100)
        untold.run_each(1, {agent: _always(seen) for agent, seen in view.items() if agent in OURS})
        untold.told_by(told)
    assert decisions(told) == decisions(untold)


def _always(seen: Sequence[float | Outcome]) -> Network:
    return lambda *_: seen


@given(st.lists(st.tuples(st.sampled_from(TARGETS), st.integers(0, 5), st.sampled_from((*OURS, *LIARS)),
                          st.sampled_from([1.0, 7.5, 300.0, Outcome.TIMED_OUT])), min_size=1, max_size=40),
       st.sets(st.sampled_from((*OURS, *LIARS))))  # fmt: skip
def test_the_rows_that_are_left_are_those_of_the_agents_asked_for(
    probes: list[tuple[str, int, str, float | Outcome]], asked: set[str]
) -> None:
    samples = [Sample(target, T0 + 1000 * second, seen, agent) for target, second, agent, seen in probes]
    of_asked = [s for s in samples if s.agent in asked]
    found = said_by(panes(samples), asked)
    if not of_asked:
        assert found is None
        return
    assert found is not None
    alone = panes(of_asked)
    assert sorted(_told(found)) == sorted(_told(alone))
    assert set(found.agents) == set(alone.agents)


def _told(found: PathPanes) -> list[tuple[object, ...]]:
    into: dict[Key, Pane] = {}
    add_panes(into, PRIMARY, found)
    return [(*key, *pane.figures) for key, pane in into.items()]
