"""What BGP says and probes confirm or clear, told as stories: t-1 is in use, t-2 the next best and t-3 the last."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.codec import decode, encode
from schemas.records import Event, FailoverRanking, Outcome, RegionReach, RouteChange, RouteEvent, Snapshot, View
from streams.core.routes import CLEAR_MS, SETTLE_MS, SILENT_MS
from streams.fold import JournalFold
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import Network, Seen, Story, new_fold, steady

CALM = steady(t_1=20.0, t_2=30.0, t_3=60.0)
HEARTBEAT_S = STATED.heartbeat_ms // 1000
LOST = (Outcome.TIMED_OUT, Outcome.TIMED_OUT)


def but(target: str, *seen: Seen) -> Network:
    return lambda t, second: seen if t == target else CALM(t, second)


def calm() -> Story:
    story = Story.begun(STATED)
    story.run(60, CALM)
    assert story.last.target_region == "t-1"
    return story


def say(
    story: Story, kind: RouteChange, target: str, left: int, *, monitor: str = "bmp-1", view: View = View.PRE_POLICY
) -> list[FailoverRanking]:
    """What a monitor tells of one region; returns the rankings that it made us publish at once."""
    event = RouteEvent(
        agent_id=monitor,
        primary_region=PRIMARY,
        observed_at_ms=story.now_ms,
        kind=kind,
        router="r-1",
        peer="192.0.2.1",
        peer_as=65_001,
        view=view,
        regions=[RegionReach(target, left)],
    )
    return story.say(event)


@pytest.mark.parametrize("how", [RouteChange.WITHDRAWN, RouteChange.PEER_DOWN])
def test_the_last_route_gone_moves_the_target_at_once_without_waiting_for_probes(how: RouteChange) -> None:
    story = calm()
    (ranking,) = say(story, how, "t-1", 0)
    assert ranking.target_region == "t-2"
    assert ranking.reason == "t-2 replaces t-1, which is NO_ROUTE"
    assert {Event.TARGET_CHANGED, Event.ELIGIBILITY_CHANGED} <= set(ranking.events)
    assert story.state_of("t-1") == "NO_ROUTE"


def test_probes_confirm_it_and_stay_to_be_convinced_when_the_route_is_back() -> None:
    story = calm()
    say(story, RouteChange.WITHDRAWN, "t-1", 0)
    story.run(10, but("t-1", *LOST))
    assert story.state_of("t-1") == "NO_ROUTE"
    say(story, RouteChange.REACHABLE, "t-1", 1)
    story.run(HEARTBEAT_S, but("t-1", *LOST))
    assert story.state_of("t-1") == "DOWN"
    story.run(2, CALM)
    assert story.state_of("t-1") is None
    assert story.last.target_region == "t-2", "it waits, as after every failure"


def test_probes_that_go_on_being_answered_clear_it() -> None:
    story = calm()
    say(story, RouteChange.WITHDRAWN, "t-1", 0)
    for _ in range(CLEAR_MS // 1000):
        story.run(1, CALM)
        assert story.state_of("t-1") == "NO_ROUTE", "what was on its way proves nothing"
    story.run(2, CALM)
    assert story.state_of("t-1") is None
    say(story, RouteChange.WITHDRAWN, "t-1", 0)
    assert story.state_of("t-1") is None, "the same said again is no news"
    say(story, RouteChange.REACHABLE, "t-1", 1)
    say(story, RouteChange.WITHDRAWN, "t-1", 0)
    assert story.state_of("t-1") == "NO_ROUTE"


def test_a_route_lost_beside_another_moves_nothing_but_is_not_chosen_while_it_settles() -> None:
    story = calm()
    assert not any(r.target_region != "t-1" for r in say(story, RouteChange.WITHDRAWN, "t-1", 1))
    say(story, RouteChange.PEER_DOWN, "t-2", 1)
    (ranking,) = say(story, RouteChange.WITHDRAWN, "t-1", 0)
    assert ranking.target_region == "t-3", "the path to t-2 has just moved to another peer"
    story.run(SETTLE_MS // 1000, but("t-1", *LOST))
    assert story.last.target_region == "t-3"
    assert story.seconds_until_target("t-2", but("t-1", *LOST), 60) <= 30


def test_an_unsettled_path_is_better_than_none() -> None:
    story = Story.begun(STATED, targets=("t-1", "t-2"))
    story.run(60, CALM)
    say(story, RouteChange.PATH_CHANGED, "t-2", 1)
    (ranking,) = say(story, RouteChange.WITHDRAWN, "t-1", 0)
    assert ranking.target_region == "t-2"


def test_one_monitor_of_two_is_a_suspicion_and_both_are_a_fact() -> None:
    story = calm()
    for monitor in ("bmp-1", "bmp-2"):
        say(story, RouteChange.REACHABLE, "t-1", 2, monitor=monitor)
    say(story, RouteChange.WITHDRAWN, "t-1", 0, monitor="bmp-1")
    assert story.last.target_region == "t-1"
    say(story, RouteChange.WITHDRAWN, "t-1", 0, monitor="bmp-2")
    assert story.last.target_region == "t-2"


def test_a_monitor_that_lost_its_router_knows_nothing_and_closes_nothing() -> None:
    story = calm()
    say(story, RouteChange.WITHDRAWN, "t-2", 0)
    assert story.state_of("t-2") == "NO_ROUTE"
    assert say(story, RouteChange.ROUTER_LOST, "t-1", 0) == []
    (ranking,) = say(story, RouteChange.ROUTER_LOST, "t-2", 0)
    assert ranking.target_region == "t-1"
    assert story.state_of("t-2") is None


def test_the_emptiest_view_of_a_router_counts() -> None:
    story = calm()
    say(story, RouteChange.REACHABLE, "t-1", 2, view=View.PRE_POLICY)
    say(story, RouteChange.WITHDRAWN, "t-1", 0, view=View.POST_POLICY)
    assert story.last.target_region == "t-2", "a policy that refuses every route leaves none"


def test_all_routes_gone_is_panic_and_nowhere() -> None:
    story = calm()
    for target in ("t-1", "t-2", "t-3"):
        say(story, RouteChange.PEER_DOWN, target, 0)
    assert story.last.target_region is None
    assert story.last.mode == "PANIC"


def test_churn_and_regions_that_are_no_candidates_are_no_news() -> None:
    story = calm()
    assert say(story, RouteChange.CHURN, "t-1", 0) == []
    assert say(story, RouteChange.PEER_UP, "t-1", 0) == []
    assert say(story, RouteChange.WITHDRAWN, "elsewhere", 0) == []
    assert story.letters == []


def test_a_flapping_route_keeps_its_region_out_for_growing_periods() -> None:
    story = calm()
    for _ in range(3):
        say(story, RouteChange.WITHDRAWN, "t-1", 0)
        story.run(1, but("t-1", *LOST))
        say(story, RouteChange.REACHABLE, "t-1", 1)
        story.run(2, CALM)
    story.run(HEARTBEAT_S, CALM)
    assert story.state_of("t-1") == "EJECTED"


def alive(story: Story, over_ms: int, monitor: str = "bmp-1") -> list[FailoverRanking]:
    """A monitor says that it has been listening for so long."""
    return story.say(
        RouteEvent(monitor, PRIMARY, story.now_ms, RouteChange.ALIVE, router="", peer="", peer_as=0, over_ms=over_ms)
    )


def without_a_route_to_t_1(*, says_alive: bool) -> Story:
    """One monitor has said that no route leads to t-1, and probes say so too."""
    story = calm()
    if says_alive:
        assert alive(story, 0) == []
    say(story, RouteChange.WITHDRAWN, "t-1", 0)
    story.run(SILENT_MS // 1000 - 1, but("t-1", *LOST))
    assert story.state_of("t-1") == "NO_ROUTE"
    return story


def test_of_what_a_silent_monitor_has_closed_probes_decide() -> None:
    story = without_a_route_to_t_1(says_alive=True)
    story.run(2 + HEARTBEAT_S, but("t-1", *LOST))
    assert story.state_of("t-1") == "DOWN", "not open: it has not answered yet"
    story.run(2, CALM)
    assert story.state_of("t-1") is None


@pytest.mark.parametrize("says_alive", [False, True])
def test_a_monitor_that_goes_on_and_one_that_never_said_that_it_is_alive_are_believed(says_alive: bool) -> None:
    story = without_a_route_to_t_1(says_alive=says_alive)
    for second in range(10, 70, 10):
        if says_alive:
            assert alive(story, 1000 * second) == []
        story.run(10, but("t-1", *LOST))
    assert story.state_of("t-1") == "NO_ROUTE"


def test_silence_closes_nothing() -> None:
    story = calm()
    for monitor in ("bmp-1", "bmp-2"):
        alive(story, 0, monitor)
        say(story, RouteChange.REACHABLE, "t-1", 1, monitor=monitor)
    say(story, RouteChange.WITHDRAWN, "t-1", 0, monitor="bmp-1")
    for second in range(10, 90, 10):
        alive(story, 1000 * second, "bmp-1")  # of those that speak, it is now all
        story.run(10, CALM)
        assert story.last.target_region == "t-1"


def test_a_monitor_that_begins_anew_has_to_say_everything_anew() -> None:
    story = without_a_route_to_t_1(says_alive=True)
    alive(story, 0)
    story.run(HEARTBEAT_S, but("t-1", *LOST))
    assert story.state_of("t-1") == "DOWN"
    say(story, RouteChange.WITHDRAWN, "t-1", 0)
    story.run(HEARTBEAT_S, but("t-1", *LOST))
    assert story.state_of("t-1") == "NO_ROUTE"


def test_when_a_monitor_was_heard_is_in_the_snapshot() -> None:
    story = without_a_route_to_t_1(says_alive=True)
    twin = Story(_restored(story)).told_by(story)
    for each in (story, twin):
        each.run(20, but("t-1", *LOST))
        assert each.state_of("t-1") == "DOWN"
    assert twin.outputs == story.outputs[-len(twin.outputs) :]


@pytest.mark.parametrize("said", [0, 1])
def test_what_was_said_is_in_the_snapshot(said: int) -> None:
    story = calm()
    say(story, RouteChange.WITHDRAWN, "t-1", said)
    twin = Story(_restored(story)).told_by(story)
    for each in (story, twin):
        each.run(8, CALM)
        say(each, RouteChange.PATH_CHANGED, "t-2", 1)
        each.run(2 * HEARTBEAT_S, but("t-3", *LOST))
    assert twin.outputs == story.outputs[-len(twin.outputs) :]
    assert len(twin.rankings) >= 2


def _restored(story: Story) -> JournalFold:
    restored = new_fold()
    restored.restore([_through_bytes(s) for s in story.fold.snapshots()])
    return restored


def _through_bytes(snapshot: Snapshot) -> Any:
    return decode(encode(snapshot), Snapshot)
