"""Remedies: the least disruptive first, one at a time, verified by what is measured, taken back if it was no use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.records import Remedy, RemedyEvent, RemedyLimits, RemedyReport
from streams.core.remedies import LEFT_MS, RESULT_GRACE_MS
from streams.core.remedy_states import IN_PLACE, TRANSITIONS, Phase
from tests.streams.core.treating import (
    LINK,
    MORE,
    PREFERENCE,
    PREPEND,
    World,
    configuration,
    helped_by,
    result,
)

ALL = (MORE, PREPEND, LINK, PREFERENCE)


def test_a_path_that_is_well_is_left_alone() -> None:
    assert World(configuration(*ALL)).run(300).said == []


def test_the_least_disruptive_remedy_is_tried_first_and_says_what_it_is_to_win() -> None:
    world = World(configuration(*ALL))
    world.path = helped_by({"standby": (62.0, 0.0)})
    verified = world.until("VERIFIED")
    (action,) = world.actions
    assert (action.remedy_id, action.operation, action.actuator) == ("standby", "APPLY", "edge")
    assert action.verification is not None
    assert action.verification.metric == "latency_ms"
    assert action.expected_gain == pytest.approx(0.2 * action.verification.from_value)
    assert "activate a redundant link" in action.reason
    assert verified.before is not None
    assert verified.after is not None
    assert verified.after <= action.verification.must_reach < action.verification.from_value <= verified.before
    assert verified.gain == pytest.approx(verified.before - verified.after)
    assert f"{verified.gain:.1f} ms won" in verified.reason


def test_an_action_follows_a_delay_three_times_as_long_within_4_s_and_a_loss_of_a_fifth_within_7() -> None:
    for sick, most_ms in (((180.0, 0.0), 4000), ((60.0, 0.2), 7000)):
        world = World(configuration(LINK))
        world.path, began_ms = helped_by({}, sick), world.now_ms
        world.until("STARTED", 20)
        assert world.now_ms - began_ms <= most_ms, sick


def test_loss_is_mended_by_less_loss() -> None:
    world = World(configuration(LINK))
    world.path = helped_by({"standby": (64.0, 0.0)}, (60.0, 0.2))
    verified = world.until("VERIFIED")
    assert verified.metric == "loss_ratio"
    assert "points of loss won" in verified.reason


def test_a_remedy_that_wins_delay_and_brings_loss_has_not_helped() -> None:
    world = World(configuration(LINK))
    world.path = helped_by({"standby": (60.0, 0.3)})
    world.until("NOT_HELPED")
    assert world.asked() == [("standby", "APPLY"), ("standby", "ROLL_BACK")]


def test_what_did_not_help_is_rolled_back_before_the_next_is_tried() -> None:
    world = World(configuration(*ALL))
    world.path = helped_by({"prepend-t1": (70.0, 0.0)})
    world.until("VERIFIED")
    tried = ["standby", "prefer-t2"]
    there_and_back = [(r, o) for r in tried for o in ("APPLY", "ROLL_BACK")]
    assert world.asked() == [*there_and_back, ("prepend-t1", "APPLY")]
    assert world.in_place == {"prepend-t1"}


def test_where_both_paths_are_bad_everything_is_rolled_back_and_the_breaker_opens_after_so_many_failures() -> None:
    limits = RemedyLimits(breaker_failures=3, breaker_open_ms=3_600_000, actions_max=100, region_actions_max=100)
    world = World(configuration(LINK, limits=limits))
    world.path = helped_by({})
    opened = world.until("BREAKER_OPENED")
    assert [e for _, e in world.story].count("NOT_HELPED") == 3
    assert opened.breaker == "OPEN"
    assert "3 failures in a row" in opened.reason
    world.run(60)
    assert world.in_place == set()
    assert world.asked() == 3 * [("standby", "APPLY"), ("standby", "ROLL_BACK")]
    assert world.story[-1] == ("standby", "UNMENDED")
    assert "breaker OPEN" in world.reports[-1].reason


def test_an_open_breaker_lets_one_try_through_after_its_time_and_then_twice_as_long_none() -> None:
    limits = RemedyLimits(breaker_failures=1, breaker_open_ms=100_000, actions_max=100, region_actions_max=100)
    world = World(configuration(LINK, limits=limits))
    world.path = helped_by({})
    opened = [world.until("BREAKER_OPENED", 1000).at_ms for _ in range(3)]
    first, second = opened[1] - opened[0], opened[2] - opened[1]
    assert 100_000 <= first < 150_000
    assert 200_000 <= second < 250_000


def test_a_success_closes_the_breaker() -> None:
    limits = RemedyLimits(breaker_failures=1, breaker_open_ms=50_000, actions_max=100, region_actions_max=100)
    world = World(configuration(LINK, limits=limits))
    world.path = helped_by({})
    world.until("BREAKER_OPENED")
    world.path = helped_by({"standby": (61.0, 0.0)})
    assert world.until("VERIFIED").breaker == "CLOSED"


def test_only_one_remedy_of_a_primary_changes_at_a_time() -> None:
    world = World(configuration(*ALL))
    world.path = helped_by({})
    for _ in range(300):
        world.run(1)
        busy = [t for t in world.mending.primaries["eu"].treatments.values() if t.phase is not Phase.IDLE]
        assert len(busy) <= 1
    assert len(world.actions) > 6


def test_a_path_that_healed_is_left_to_itself_again_after_the_remedys_time() -> None:
    link = replace(LINK, revert_after_ms=60_000)
    world = World(configuration(link))
    world.path = helped_by({"standby": (62.0, 0.0)})
    world.until("VERIFIED")
    world.path = helped_by({}, (60.0, 0.0))  # healed: with and without it
    reverting = world.until("REVERTING")
    assert reverting.at_ms - world.reports[-3].at_ms >= 60_000
    world.run(120)
    assert world.story[-1] == ("standby", "WITHDRAWN")
    assert world.in_place == set()


def test_a_remedy_that_is_withdrawn_in_vain_stays_twice_as_long_the_next_time() -> None:
    link = replace(LINK, revert_after_ms=60_000)
    limits = RemedyLimits(actions_max=100, region_actions_max=100)
    world = World(configuration(link, limits=limits))
    world.path = helped_by({"standby": (62.0, 0.0)})
    stays = []
    for _ in range(3):
        verified = world.until("VERIFIED", 1000)
        stays.append(world.until("REVERTING", 1000).at_ms - verified.at_ms)
    assert stays == [60_000, 120_000, 240_000]


def test_a_remedy_may_be_kept_for_good() -> None:
    world = World(configuration(replace(LINK, revert_after_ms=0)))
    world.path = helped_by({"standby": (62.0, 0.0)})
    world.until("VERIFIED")
    world.run(20_000)
    assert world.story[-1] == ("standby", "VERIFIED")


def test_a_target_that_was_left_because_of_its_path_is_mended_too() -> None:
    world = World(configuration(LINK))
    world.path = helped_by({"standby": (62.0, 0.0)})
    world.run(1)
    world.target = "ap"  # before it was bad often enough to be treated
    world.until("VERIFIED")


def test_a_target_that_was_left_while_its_path_was_well_is_no_business_of_ours() -> None:
    world = World(configuration(LINK))
    world.target = "ap"
    world.run(30)
    world.path = helped_by({})
    assert world.run(LEFT_MS // 1000).said == []


def test_a_predicted_disruption_activates_a_link_and_moves_no_traffic() -> None:
    world = World(configuration(PREFERENCE, LINK))
    world.foretold = True
    world.until("VERIFIED")
    assert world.asked() == [("standby", "APPLY")]
    assert "predicted to be disrupted" in world.actions[0].reason
    world = World(configuration(PREFERENCE))
    world.foretold = True
    assert world.run(60).said == []


def test_an_actuator_that_never_answers_fails_when_the_action_has_expired() -> None:
    limits = RemedyLimits(breaker_failures=1)
    world = World(configuration(LINK, limits=limits), answer=lambda _: None)
    world.path = helped_by({})
    failed = world.until("NOT_APPLIED")
    (action,) = world.actions
    assert failed.at_ms == action.expires_at_ms + RESULT_GRACE_MS
    assert "never began" in failed.reason
    assert ("standby", "BREAKER_OPENED") in world.story


def test_what_was_begun_and_has_no_end_is_rolled_back() -> None:
    world = World(configuration(LINK), answer=lambda _: None)
    world.path = helped_by({})
    world.until("STARTED")
    world.result(result(world.actions[0], "STARTED"))
    failed = world.until("NOT_APPLIED")
    assert "may be there in part" in failed.reason
    assert world.asked() == [("standby", "APPLY"), ("standby", "ROLL_BACK")]


@pytest.mark.parametrize("outcome", ["REFUSED", "EXPIRED"])
def test_nothing_needs_to_be_rolled_back_where_nothing_was_done(outcome: str) -> None:
    world = World(configuration(LINK, limits=RemedyLimits(breaker_failures=1)), answer=lambda _: outcome)
    world.path = helped_by({})
    world.run(60)
    assert world.asked() == [("standby", "APPLY")]
    assert world.story[:3] == [("standby", e) for e in ("STARTED", "NOT_APPLIED", "BREAKER_OPENED")]


def test_what_failed_may_be_there_in_part_and_is_rolled_back() -> None:
    world = World(configuration(LINK), answer=lambda a: "FAILED" if a.operation == "APPLY" else "APPLIED")
    world.path = helped_by({})
    world.until("WITHDRAWN")
    assert world.asked() == [("standby", "APPLY"), ("standby", "ROLL_BACK")]


def test_a_dry_run_is_not_asked_again_and_again_and_is_no_failure() -> None:
    world = World(configuration(LINK), answer=lambda _: "DRY_RUN")
    world.path = helped_by({})
    world.run(200)
    assert world.asked() == [("standby", "APPLY")]
    assert world.story == [("standby", e) for e in ("STARTED", "NOT_APPLIED", "UNMENDED")]
    assert world.reports[-1].breaker == "CLOSED"


def test_what_is_done_after_it_was_given_up_is_rolled_back() -> None:
    world = World(configuration(LINK), answer=lambda _: None)
    world.path = helped_by({})
    world.until("NOT_APPLIED")
    world.answer = lambda _: "APPLIED"
    assert world.result(result(world.actions[0], "APPLIED")) is None
    assert "after it had been given up" in world.until("REVERTING").reason
    assert world.asked()[:2] == [("standby", "APPLY"), ("standby", "ROLL_BACK")]


def test_what_cannot_be_rolled_back_is_stranded_said_and_tried_again_later() -> None:
    limits = RemedyLimits(breaker_open_ms=100_000)
    world = World(configuration(LINK, limits=limits))
    world.path, world.answer = helped_by({}), lambda a: "APPLIED" if a.operation == "APPLY" else "FAILED"
    stranded = world.until("STRANDED")
    assert world.asked() == [("standby", "APPLY"), *3 * [("standby", "ROLL_BACK")]]
    assert "look at edge yourself" in stranded.reason
    world.answer = lambda _: "APPLIED"
    withdrawn = world.until("WITHDRAWN")
    assert withdrawn.at_ms - stranded.at_ms >= 100_000


def test_an_operator_stops_everything_even_taking_back_and_it_goes_on_afterwards() -> None:
    world = World(configuration(LINK))
    world.path = helped_by({})
    world.until("APPLIED")
    world.stop(lasts_ms=300_000)
    asked = len(world.actions)
    world.run(299)
    assert len(world.actions) == asked
    assert world.story[-1] == ("standby", "STOPPED")
    assert world.until("NOT_HELPED", 5)
    assert world.asked()[-1] == ("standby", "ROLL_BACK")


def test_a_stop_of_another_primary_stops_nothing_here() -> None:
    world = World(configuration(LINK))
    world.stop(primary="ap")
    world.path = helped_by({"standby": (61.0, 0.0)})
    world.until("VERIFIED")


def test_a_stop_keeps_a_remedy_from_being_planned_and_says_why() -> None:
    world = World(configuration(LINK))
    world.stop()
    world.path = helped_by({})
    world.run(100)
    assert world.actions == []
    assert world.story == [("standby", "STOPPED")]


def test_so_many_actions_of_a_primary_and_no_more_within_the_window() -> None:
    limits = RemedyLimits(actions_max=3, window_ms=1_000_000, breaker_failures=100)
    world = World(configuration(LINK, PREFERENCE, limits=limits))
    world.path = helped_by({})
    capped = world.until("CAPPED", 1000)
    assert [o for _, o in world.asked()].count("APPLY") == 3
    assert [o for _, o in world.asked()].count("ROLL_BACK") == 3
    assert "3 actions of this primary in 16.6667 min are the most" in capped.reason
    world.run(950)
    assert [o for _, o in world.asked()].count("APPLY") > 3


def test_so_many_actions_into_a_region_whoever_asks() -> None:
    limits = RemedyLimits(region_actions_max=2)
    world = World(configuration(LINK, limits=limits))
    others = [configuration(LINK, primary=f"home-{i}", limits=limits) for i in range(3)]
    for each in others:
        world.mending.configure(each)
    world.path = helped_by({})
    applied: list[str] = []
    for _ in range(20):
        world.run(1)
        sight = world.mending.primaries["eu"]._sights["us"]
        for each in others:
            world.mending.see(each.primary_region, {"us": sight}, "us", world.now_ms)
    applied = [a.primary_region for a in world.actions if a.operation == "APPLY"]
    assert len(applied) == 2
    assert any(r.event == "CAPPED" and "into us of every primary" in r.reason for r in world.reports)


def test_a_remedy_that_is_configured_no_more_is_withdrawn() -> None:
    world = World(configuration(LINK))
    world.path = helped_by({"standby": (62.0, 0.0)})
    world.until("VERIFIED")
    world.configure(PREFERENCE)
    world.until("WITHDRAWN")
    assert world.in_place == set()
    assert set(world.mending.primaries["eu"].treatments) == {"prefer-t2"}


def test_a_remedy_that_is_configured_otherwise_is_withdrawn_as_it_was_and_then_is_the_new_one() -> None:
    world = World(configuration(PREFERENCE))
    world.path = helped_by({"prefer-t2": (62.0, 0.0)})
    world.until("VERIFIED")
    world.configure(replace(PREFERENCE, value=300.0))
    world.until("VERIFIED")
    assert [(a.operation, a.value) for a in world.actions] == [
        ("APPLY", 200.0), ("ROLL_BACK", 200.0), ("APPLY", 300.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"action_id": "0" * 32}, "is not the last action"),
        ({"actuator": "somebody"}, "is not who was asked"),
        ({"primary_region": "ap"}, "ap has no remedies"),
        ({"remedy_id": "format-disk"}, "has no remedy format-disk"),
        ({"operation": "ROLL_BACK"}, "is no ROLL_BACK"),
    ],
)
def test_results_that_nobody_asked_for_move_nothing(change: dict[str, str], why: str) -> None:
    world = World(configuration(LINK), answer=lambda _: None)
    world.path = helped_by({})
    world.until("STARTED")
    before = world.mending.save()
    found = world.result(result(world.actions[0], "APPLIED", **change))
    assert found is not None
    assert why in found
    assert world.mending.save() == before


def test_a_result_that_comes_twice_counts_once() -> None:
    world = World(configuration(LINK))
    world.path = helped_by({})
    world.until("APPLIED")
    found = world.result(result(world.actions[0], "APPLIED"))
    assert found is not None
    assert "answered already" in found


def test_nobody_looking_is_neither_good_nor_bad() -> None:
    world = World(configuration(LINK))
    world.path, world.fresh = helped_by({}), False
    assert world.run(60).said == []


def test_state_that_went_through_a_snapshot_at_every_tick_says_the_same() -> None:
    def story(*, saved: bool) -> list[object]:
        world = World(configuration(*ALL, limits=RemedyLimits(breaker_failures=1, breaker_open_ms=60_000)))
        world.path = helped_by({"prepend-t1": (70.0, 0.0)})
        world.run(200, saved=saved)
        world.path = helped_by({}, (60.0, 0.2))
        world.run(200, saved=saved)
        world.stop(30_000)
        world.run(100, saved=saved)
        return list(world.said)

    kept, saved = story(saved=False), story(saved=True)
    assert kept == saved
    assert len(kept) > 20


def test_what_is_said_of_a_primary_is_numbered_upwards_and_no_action_has_anothers_id() -> None:
    world = World(configuration(*ALL))
    world.path = helped_by({})
    world.run(400)
    numbers = [s.sequence for s in world.said]
    assert numbers == sorted(set(numbers))
    ids = [a.action_id for a in world.actions]
    assert len(set(ids)) == len(ids)


def test_every_phase_can_be_left_and_every_event_is_said_by_some_transition() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(Phase)
    assert {step.phase for step in TRANSITIONS.values()} == set(Phase)
    besides = {RemedyEvent.BREAKER_OPENED, RemedyEvent.CAPPED, RemedyEvent.STOPPED, RemedyEvent.UNMENDED}
    assert {step.event for step in TRANSITIONS.values()} | besides == set(RemedyEvent)
    assert set(Phase) - IN_PLACE == {Phase.IDLE}


def test_whoever_leaves_a_phase_that_may_have_changed_something_asks_for_a_roll_back() -> None:
    for (phase, signal), step in TRANSITIONS.items():
        if phase in (Phase.VERIFYING, Phase.HELD) and step.phase is not Phase.HELD:
            assert step.operation == "ROLL_BACK", (phase, signal)


def test_a_remedy_of_another_target_is_not_for_this_path() -> None:
    world = World(configuration(replace(LINK, target_region="ap"), PREFERENCE))
    world.path = helped_by({"prefer-t2": (62.0, 0.0)})
    world.until("VERIFIED")
    assert {a.remedy_id for a in world.actions} == {"prefer-t2"}


def test_costs_may_be_ordered_otherwise() -> None:
    cheap = replace(MORE, cost=1)
    world = World(configuration(LINK, cheap))
    world.path = helped_by({"more": (60.0, 0.0)})
    world.until("VERIFIED")
    assert world.asked() == [("more", "APPLY")]


def test_a_primary_without_remedies_costs_nothing() -> None:
    world = World(configuration())
    world.path = helped_by({})
    assert world.run(30).said == []
    assert world.mending.primaries == {}


def test_reports_are_sentences() -> None:
    world = World(configuration(*ALL))
    world.path = helped_by({"more": (61.0, 0.0)})
    world.until("VERIFIED", 400)
    for report in world.reports:
        assert isinstance(report, RemedyReport)
        assert 20 < len(report.reason) < 300
        assert "nan" not in report.reason


def test_remedies_of_many_shapes_are_kept_apart() -> None:
    many = [Remedy(f"r{i}", "us", "LOCAL_PREFERENCE", "edge", value=float(i)) for i in range(5)]
    limits = RemedyLimits(breaker_failures=1, actions_max=100, region_actions_max=100)
    world = World(configuration(*many, limits=limits))
    world.path = helped_by({"r4": (60.0, 0.0)})
    world.until("VERIFIED", 400)
    assert [r for r, o in world.asked() if o == "APPLY"] == [r.remedy_id for r in many]
