"""Failures, returns and operators, told as stories: who waits, who is ejected, and whose word comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from schemas.records import Directive, Event, Failback, FailoverRanking, Mode, OperatorDirective, Outcome
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import TARGETS, Seen, Story, configuration
from tests.streams.core.test_decision_scenarios import CALM, LOST, but, calm, nothing, since, targets

DEAD_T1 = but("t-1", *LOST)


def only_t1(target: str, second: int) -> Sequence[Seen]:
    return CALM(target, second) if target == "t-1" else LOST


def order(
    story: Story,
    kind: str,
    region: str | None = None,
    *,
    seconds: int = 30,
    name: str = "d-1",
    primary: str | None = PRIMARY,
) -> OperatorDirective:
    return OperatorDirective(name, kind, story.now_ms + 1000 * seconds, "ops", "the reason", primary, region)


def directed(story: Story, directive: OperatorDirective) -> list[FailoverRanking]:
    return story.say(directive, None)


def events(rankings: list[FailoverRanking]) -> list[str]:
    return [e for r in rankings for e in r.events]


# Who failed and comes back.


def test_a_restored_region_waits_as_long_as_the_policy_says_and_its_return_is_said() -> None:
    story = calm(replace(STATED, failback=Failback.DELAYED, failback_delay_ms=60_000))
    story.run(5, DEAD_T1)
    assert story.last.target_region == "t-2"
    assert targets(since(story, lambda: story.run(58, CALM))) == {"t-2"}
    assert [c.region_id for c in story.last.candidates if c.waits] == ["t-1"]
    assert story.last.reason == "t-2 is kept: t-1 is better, failed before, and waits (delayed failback)"
    after = since(story, lambda: story.run(20, CALM))
    (moved,) = (r for r in after if Event.TARGET_CHANGED in r.events)
    assert moved.target_region == "t-1"
    assert Event.TARGET_RESTORED in moved.events
    assert not any(c.waits for c in story.last.candidates)


def test_a_failure_while_it_waits_makes_a_restored_region_wait_from_anew() -> None:
    story = calm(replace(STATED, failback=Failback.DELAYED, failback_delay_ms=60_000, ejection_base_ms=0))
    story.run(5, DEAD_T1)
    story.run(50, CALM)
    story.run(5, DEAD_T1)
    assert targets(since(story, lambda: story.run(58, CALM))) == {"t-2"}
    assert story.seconds_until_target("t-1", CALM, 30) <= 30


def test_with_manual_failback_a_restored_region_waits_until_an_operator_pins_it() -> None:
    story = calm(replace(STATED, failback=Failback.MANUAL))
    story.run(5, DEAD_T1)
    assert targets(since(story, lambda: story.run(600, CALM))) == {"t-2"}
    (answer,) = directed(story, order(story, Directive.PIN, "t-1"))
    assert answer.target_region == "t-1"
    assert Event.TARGET_RESTORED in answer.events
    assert targets(since(story, lambda: story.run(90, CALM))) == {"t-1"}


def test_with_immediate_failback_a_restored_region_does_not_wait() -> None:
    story = calm(replace(STATED, failback=Failback.IMMEDIATE, loss_exponent=0.0))
    story.run(5, DEAD_T1)
    assert story.last.target_region == "t-2"
    assert story.seconds_until_target("t-1", CALM, 15) <= 15
    assert Event.TARGET_RESTORED in story.last.events


def test_one_that_waits_is_the_choice_when_nobody_else_is_left() -> None:
    story = calm(replace(STATED, failback=Failback.MANUAL))
    story.run(5, DEAD_T1)
    story.run(10, CALM)
    story.run(5, only_t1)
    assert story.last.target_region == "t-1"


def test_a_region_that_flaps_is_ejected_for_growing_periods() -> None:
    policy = replace(
        STATED,
        failback=Failback.IMMEDIATE,
        ejection_base_ms=10_000,
        ejection_max_ms=40_000,
        ejection_forgive_ms=300_000,
        loss_exponent=0.0,
        heartbeat_ms=1000,  # so that each second says how things stand
    )
    story = calm(policy)
    out_s = []
    for _ in range(5):
        story.run(5, DEAD_T1)
        assert story.state_of("t-1") == "DOWN"
        story.run(1, CALM)
        ejected = 0
        while story.state_of("t-1") == "EJECTED":
            story.run(1, CALM)
            ejected += 1
        out_s.append(ejected)
        story.run(20, CALM)
        assert story.last.target_region == "t-1"
    assert out_s == [0, 10, 20, 40, 40]


def test_what_flapped_is_forgiven_in_time() -> None:
    policy = replace(STATED, ejection_base_ms=10_000, ejection_forgive_ms=60_000)
    story = calm(policy)
    story.run(5, DEAD_T1)
    story.run(70, CALM)
    story.run(5, DEAD_T1)
    story.run(2, CALM)
    assert story.state_of("t-1") is None


def test_when_all_regions_are_bad_the_least_bad_is_ranked_and_it_is_said() -> None:
    story = Story.begun(replace(STATED, eligible_min=2))
    weather = {"t-1": [900.0, Outcome.TIMED_OUT], "t-2": [700.0, 700.0], "t-3": [900.0, Outcome.TIMED_OUT]}
    story.run(60, lambda target, _: weather[target])
    assert (story.last.target_region, story.last.mode) == ("t-2", Mode.NORMAL)
    story.run(30, lambda target, _: weather[target] if target == "t-2" else LOST)
    assert (story.last.target_region, story.last.mode) == ("t-2", Mode.PANIC)
    assert story.last.reason == "t-2 is the least bad: only 1 candidate is eligible"
    after = since(story, lambda: story.run(5, nothing))
    assert after[-1].target_region is None
    assert {story.state_of(t) for t in TARGETS} == {"DOWN"}


def test_a_known_dead_region_is_not_chosen_even_when_the_rest_is_not_seen() -> None:
    story = calm()
    story.run(40, lambda target, _: LOST if target == "t-1" else ())
    assert story.state_of("t-1") == "DOWN"
    assert story.last.target_region != "t-1"


# What operators order.


def test_a_pin_holds_though_its_target_is_down_and_the_ranking_says_who_and_why() -> None:
    story = calm()
    (answer,) = directed(story, order(story, Directive.PIN, "t-3", seconds=60))
    assert answer.target_region == "t-3"
    assert answer.reason == "t-3 is pinned by ops: the reason"
    assert Event.DIRECTIVE_ACCEPTED in answer.events
    after = since(story, lambda: story.run(30, but("t-3", *LOST)))
    assert targets(after) == {"t-3"}
    assert story.state_of("t-3") == "DOWN"
    assert story.last.reason == "t-3 is pinned by ops: the reason, though it is DOWN"
    assert [(d.directive_id, d.author, d.reason) for d in story.last.directives] == [("d-1", "ops", "the reason")]


def test_after_its_expiry_a_pin_is_said_to_have_ended_and_it_is_decided_again() -> None:
    story = calm()
    directed(story, order(story, Directive.PIN, "t-3", seconds=20))
    assert targets(since(story, lambda: story.run(19, CALM))) <= {"t-3"}
    after = since(story, lambda: story.run(15, CALM))
    assert events(after).count(Event.DIRECTIVE_ENDED) == 1
    assert story.last.target_region == "t-1"
    assert story.last.directives == []


def test_a_pin_that_expires_while_its_target_is_down_is_left_at_that_tick() -> None:
    story = calm()
    directed(story, order(story, Directive.PIN, "t-3", seconds=20))
    after = since(story, lambda: story.run(22, but("t-3", *LOST)))
    (ended,) = (r for r in after if Event.DIRECTIVE_ENDED in r.events)
    assert (ended.target_region, ended.reason) == ("t-1", "t-1 replaces t-3, which is DOWN")


def test_a_drain_leaves_the_target_at_once_and_the_drained_is_not_chosen_even_in_panic() -> None:
    story = calm()
    (answer,) = directed(story, order(story, Directive.DRAIN, "t-1", primary=None, seconds=120))
    assert answer.target_region == "t-2"
    assert answer.reason == "t-2 replaces t-1, which is DRAINED"
    after = since(
        story, lambda: story.run(20, lambda target, second: CALM(target, second) if target == "t-1" else LOST)
    )
    assert "t-1" not in targets(after)
    assert (story.last.target_region, story.last.mode) == (None, Mode.PANIC)
    story.run(20, CALM)
    assert "t-1" not in targets(since(story, lambda: story.run(60, CALM)))
    assert story.seconds_until_target("t-1", CALM, 60) <= 60


def test_a_freeze_keeps_the_target_whatever_happens_and_its_end_decides_again() -> None:
    story = calm()
    (answer,) = directed(story, order(story, Directive.FREEZE, seconds=40))
    assert answer.reason == "t-1 is frozen by ops: the reason"
    assert targets(since(story, lambda: story.run(20, DEAD_T1))) == {"t-1"}
    assert story.last.reason == "t-1 is frozen by ops: the reason, though it is DOWN"
    assert targets(since(story, lambda: story.run(19, nothing))) == {"t-1"}
    after = since(story, lambda: story.run(5, DEAD_T1))
    assert Event.DIRECTIVE_ENDED in events(after)
    assert story.last.target_region in ("t-2", "t-3")


@pytest.mark.parametrize(
    ("kind", "region"), [(Directive.PIN, "t-3"), (Directive.DRAIN, "t-1"), (Directive.FREEZE, None)]
)
def test_a_directive_for_another_primary_changes_nothing(kind: str, region: str | None) -> None:
    story, untold = calm(), calm()
    assert directed(story, order(story, kind, region, primary="us-9")) == []
    for told in (story, untold):
        told.run(20, but("t-1", 60.0, 60.0))
    assert story.outputs == untold.outputs


def test_a_pin_to_a_stranger_is_rejected_and_changes_nothing() -> None:
    story = calm()
    (answer,) = directed(story, order(story, Directive.PIN, "t-9"))
    assert answer.events == [Event.DIRECTIVE_REJECTED]
    assert answer.target_region == "t-1"
    assert answer.directives == []
    assert targets(since(story, lambda: story.run(20, CALM))) == {"t-1"}


def test_a_directive_whose_time_is_over_changes_nothing() -> None:
    story = calm()
    assert directed(story, order(story, Directive.PIN, "t-3", seconds=0)) == []
    assert targets(since(story, lambda: story.run(20, CALM))) == {"t-1"}


def test_a_directive_that_the_journal_holds_twice_is_folded_once() -> None:
    once, twice = calm(), calm()
    for story in (once, twice):
        directed(story, order(story, Directive.PIN, "t-3"))
    twice.repeat_source()
    assert directed(twice, order(twice, Directive.PIN, "t-3")) == []
    for story in (once, twice):
        story.run(60, CALM)
    assert twice.outputs == once.outputs


def test_a_directive_given_again_is_answered_again_and_changes_nothing_more() -> None:
    """Neither its end nor its place: a pin given after it still counts."""
    story = calm()
    first = order(story, Directive.PIN, "t-3", name="first")
    directed(story, first)
    directed(story, order(story, Directive.PIN, "t-2", name="second"))
    assert story.last.target_region == "t-2"
    (answer,) = directed(story, first)
    assert answer.events == [Event.DIRECTIVE_ACCEPTED]
    assert answer.target_region == "t-2"
    assert [d.directive_id for d in answer.directives] == ["first", "second"]


def test_the_same_id_with_other_content_replaces_a_directive_and_with_a_time_that_is_over_ends_it() -> None:
    story = calm()
    directed(story, order(story, Directive.PIN, "t-3"))
    (answer,) = directed(story, order(story, Directive.PIN, "t-2"))
    assert answer.target_region == "t-2"
    (ended,) = directed(story, order(story, Directive.PIN, "t-2", seconds=0))
    assert Event.DIRECTIVE_ENDED in ended.events
    assert ended.directives == []
    assert story.seconds_until_target("t-1", CALM, 20) <= 20


def test_configuration_by_compare_and_set_holds_beside_directives() -> None:
    story = calm()
    directed(story, order(story, Directive.PIN, "t-3", seconds=60))
    (accepted,) = story.say(configuration(version=2, based_on=1))
    (rejected,) = story.say(configuration(version=3, based_on=1, targets=("t-1",)))
    assert (Event.CONFIG_ACCEPTED in accepted.events, accepted.config_version) == (True, 2)
    assert (rejected.events, rejected.config_version) == ([Event.CONFIG_REJECTED], 2)
    assert len(rejected.candidates) == 3
    assert rejected.target_region == "t-3"
    (without,) = story.say(configuration(version=3, based_on=2, targets=("t-1", "t-2")))
    assert without.target_region == "t-1"  # what is no candidate any more cannot be pinned
    assert without.reason == "t-1 replaces t-3, which is no candidate any more"


def test_whatever_operators_and_the_network_do_the_sequence_has_no_gap() -> None:
    story = calm()
    kinds: Sequence[tuple[str, str | None]] = [
        (Directive.PIN, "t-3"),
        (Directive.DRAIN, "t-2"),
        (Directive.FREEZE, None),
        (Directive.PIN, "t-9"),
        (Directive.STOP_ACTIONS, None),
    ]
    for number, (kind, region) in enumerate(kinds):
        directed(story, order(story, kind, region, name=f"d-{number}", seconds=5 + number))
        story.run(4, DEAD_T1 if number % 2 else CALM)
    story.run(30, CALM)
    assert {b.sequence - a.sequence for a, b in pairwise(story.rankings)} == {1}
