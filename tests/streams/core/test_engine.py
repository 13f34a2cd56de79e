"""The whole decision for one primary, told as stories: what moves a target, what does not, and what is said of it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from schemas.codec import encode
from schemas.records import (
    Advice,
    BandwidthMeasurement,
    Event,
    InjectedMetric,
    Mode,
    Outcome,
    Policy,
    Reason,
    RegionCatalog,
)
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY, each, panes
from tests.streams.core.story import CATALOGUE, T0, TARGETS, Network, Seen, Story, configuration, new_fold, steady

CALM = steady(t_1=20.0, t_2=30.0, t_3=60.0)


@cache
def _calm(seconds: int, policy: Policy | None) -> Story:
    story = Story.begun(policy)
    story.run(seconds, CALM)
    assert story.last.target_region == "t-1"
    assert [c.region_id for c in story.last.candidates] == ["t-1", "t-2", "t-3"]
    return story


def calm(seconds: int = 60, policy: Policy | None = None) -> Story:
    """A story in which t-1 is in use, t-2 the next best and t-3 the last."""
    return deepcopy(_calm(seconds, policy))


def but(target: str, *seen: Seen, of: Network = CALM) -> Network:
    """The network as it was, but for one target."""
    return lambda t, second: seen if t == target else of(t, second)


def among(weather: dict[str, Sequence[Seen]]) -> Network:
    """What each target's probes see, all the time."""
    return lambda target, _: weather[target]


def injected(
    metric: str, value: float, target: str | None = "t-1", *, at_ms: int, ttl_ms: int = 5000
) -> InjectedMetric:
    return InjectedMetric(PRIMARY, target, metric, value, "somebody", at_ms, ttl_ms)


def weight_of(story: Story, target: str) -> float:
    return story.weights[-1].paths()[target].weight


# What moves the target.


def test_a_brownout_of_the_target_in_use_moves_the_target_within_ten_seconds() -> None:
    story = calm()
    assert story.seconds_until_target("t-2", but("t-1", 60.0, 60.0), 10) <= 10
    assert Event.TARGET_CHANGED in story.last.events
    assert story.last.previous_target_region == "t-1"
    assert "t-1" in story.last.reason
    assert "t-2" in story.last.reason


def test_a_target_that_is_hard_down_is_left_within_five_seconds() -> None:
    story = calm()
    assert story.seconds_until_target("t-2", but("t-1", Outcome.TIMED_OUT, Outcome.TIMED_OUT), 5) <= 5
    assert Event.TARGET_CHANGED in story.last.events
    assert story.last.reason == "t-2 replaces t-1, which is DOWN"
    assert {c.region_id: c.ineligible_reason for c in story.last.candidates}["t-1"] == "DOWN"


def test_a_challenger_has_to_lead_for_the_dwell_and_the_reason_says_by_what_it_led() -> None:
    story = calm(policy=replace(STATED, margin_ratio=0.01, dwell_ms=8000, dwell_min_ms=8000))
    assert 8 <= story.seconds_until_target("t-2", but("t-1", 33.0, 33.0), 30) <= 25
    assert re.fullmatch(r"t-2 replaces t-1: it leads by \d+\.\d\d%, most of all in latency_ms", story.last.reason)


def test_a_brownout_that_is_over_and_forgotten_within_the_dwell_moves_nothing() -> None:
    story = calm(policy=replace(STATED, dwell_ms=40_000, dwell_min_ms=40_000))
    known = len(story.rankings)
    story.run(5, but("t-1", 60.0, 60.0))
    story.run(60, CALM)
    assert "t-2" in {r.candidates[0].region_id for r in story.rankings[known:]}
    assert {r.target_region for r in story.rankings} == {None, "t-1"}
    assert story.last.candidates[0].region_id == "t-1"


@pytest.mark.parametrize("rtt_ms", [20.0, 20.2, 30.0])
def test_one_lost_probe_moves_nothing(rtt_ms: float) -> None:
    """Not even with a challenger as good as the target in use."""
    network = steady(t_1=20.0, t_2=rtt_ms, t_3=60.0)
    story = Story.begun()
    story.run(60, network)
    known = len(story.rankings)
    story.run(1, but("t-1", 20.0, Outcome.TIMED_OUT, of=network), agents=("agent-1",))
    story.run(30, network)
    assert {r.target_region for r in story.rankings[known:]} == {"t-1"}
    assert not [r for r in story.rankings[known:] if Event.TARGET_CHANGED in r.events]


def test_a_better_target_by_less_than_the_margin_moves_nothing_and_the_reason_says_so() -> None:
    story = Story.begun(replace(STATED, margin_ratio=0.05))
    story.run(60, steady(t_1=20.0, t_2=22.0, t_3=60.0))
    story.run(60, steady(t_1=22.0, t_2=21.0, t_3=60.0))
    assert story.last.target_region == "t-1"
    assert story.last.candidates[0].region_id == "t-2"
    assert story.last.reason == "t-1 is kept: t-2 is better by less than the margin"


def test_when_every_candidate_is_down_the_target_is_nowhere_and_the_first_that_answers_is_taken() -> None:
    story = calm()
    lost = (Outcome.TIMED_OUT, Outcome.TIMED_OUT)
    story.run(6, lambda *_: lost)
    assert (story.last.target_region, story.last.mode) == (None, Mode.PANIC)
    story.run(20, lambda *_: lost)
    assert story.last.events == [Event.HEARTBEAT]
    assert {r.reason for r in story.rankings if r.mode == Mode.PANIC} == {"nowhere: no candidate is known to be alive"}
    story.run(2, lambda target, _: [60.0, 60.0] if target == "t-3" else lost)
    assert (story.last.target_region, story.last.mode) == ("t-3", Mode.NORMAL)


def test_paths_of_which_nobody_reports_any_more_make_it_thin_and_the_target_is_kept() -> None:
    story = calm()
    story.run(15, None)
    assert (story.last.target_region, story.last.mode) == ("t-1", Mode.THIN)
    assert {c.ineligible_reason for c in story.last.candidates} == {"STALE"}
    assert story.last.reason == "t-1 is kept: no path has fresh data"


def test_when_only_the_target_in_use_falls_silent_it_is_left() -> None:
    story = calm()
    story.run(15, but("t-1"))
    assert story.last.target_region == "t-2"
    assert story.last.reason == "t-2 replaces t-1, which is STALE"


# When it is us who do not see.


def test_a_journal_silence_of_a_minute_declares_nobody_stale_or_dead() -> None:
    story = calm()
    known = len(story.rankings)
    story.second += 60  # we were cut off: no record, not even a tick
    story.run(30, CALM)
    after = story.rankings[known:]
    assert after
    assert {r.target_region for r in after} == {"t-1"}
    assert {r.mode for r in after} == {Mode.NORMAL}
    assert all(c.eligible for r in after for c in r.candidates)


def test_an_old_backlog_does_not_move_the_target() -> None:
    """An agent comes back and tells that t-1 was lost five slow windows ago; now it answers."""
    story = calm()
    story.run(240, CALM, agents=("agent-1",))
    then = range(T0 + 60_000, T0 + 150_000, 1000)
    story.say(panes(each("t-1", Outcome.TIMED_OUT, at_ms=then, probes=2, agent="agent-2")))
    known = len(story.rankings)
    story.run(20, CALM)
    assert {r.target_region for r in story.rankings[known:]} == {"t-1"}
    assert all(c.eligible for r in story.rankings[known:] for c in r.candidates)


# What is published.


def test_a_quiet_network_is_told_by_a_heartbeat_and_nothing_else() -> None:
    story = calm()
    known = len(story.rankings)
    story.run(60, CALM)
    quiet = story.rankings[known:]
    assert [r.events for r in quiet] == [[Event.HEARTBEAT]] * 6
    at_ms = [r.decided_at_ms for r in quiet]
    assert {later - earlier for earlier, later in pairwise(at_ms)} == {STATED.heartbeat_ms}
    assert all(r.stale_after_ms == 3 * STATED.heartbeat_ms for r in quiet)


def test_the_sequence_has_no_gap_whatever_happens() -> None:
    story = Story.begun()
    random = np.random.default_rng(5)
    for _ in range(40):
        weather: dict[str, Sequence[Seen]] = {
            target: [Outcome.TIMED_OUT if random.random() < 0.2 else float(random.uniform(10, 200)) for _ in range(2)]
            for target in TARGETS
        }
        story.run(int(random.integers(1, 6)), among(weather))
        story.say(injected("latency_ms", float(random.uniform(1, 500)), at_ms=story.now_ms))
    assert len(story.rankings) > 40
    assert [r.sequence for r in story.rankings] == list(range(1, len(story.rankings) + 1))
    decided = [r.decided_at_ms for r in story.rankings]
    assert decided == sorted(decided)
    assert len({r.decision_id for r in story.rankings}) == len(story.rankings)


def test_a_decision_id_is_a_function_of_the_content_and_a_journal_of_its_bytes() -> None:
    story, again = calm(30), calm(30)
    assert story.outputs == again.outputs
    for ranking in story.rankings:
        content = encode(replace(ranking, decision_id=""))
        assert ranking.decision_id == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_paths_are_published_every_tick_and_rankings_only_when_there_is_something_to_say() -> None:
    story = calm()
    decided = [w.decided_at_ms for w in story.weights[2:]]  # the first two: at once, and the edge within T0's second
    assert decided == [T0 + 300 + 1000 * second for second in range(1, 61)]
    assert len(story.rankings) < 15
    assert story.weights[-1].targets == list(TARGETS)
    assert weight_of(story, "t-1") > weight_of(story, "t-2") > weight_of(story, "t-3")
    assert story.last.evidence_at_ms <= story.now_ms


def test_a_ranking_tells_the_newest_evidence_it_rests_on() -> None:
    story = calm(30)
    assert story.weights[-1].evidence_at_ms == T0 + 30_000
    story.run(5, None)
    assert story.weights[-1].evidence_at_ms == T0 + 30_000


def test_records_lost_for_ever_are_said_with_the_next_tick_once_and_above_the_numbers_reached() -> None:
    story = calm()
    story.lose(3, reached={PRIMARY: story.last.sequence + 5})
    known = len(story.rankings)
    story.run(20, CALM)
    after = story.rankings[known:]
    assert [Event.GAP in r.events for r in after] == [True, False]
    assert after[0].decided_at_ms == T0 + 61_300
    assert after[0].sequence == story.rankings[known - 1].sequence + 6


# Configuration.


def test_the_first_configuration_is_answered_at_once_though_nothing_is_measured() -> None:
    story = Story()
    story.say(CATALOGUE, None)
    (first,) = story.say(configuration())
    assert Event.CONFIG_ACCEPTED in first.events
    assert (first.sequence, first.config_version, first.mode, first.target_region) == (1, 1, Mode.THIN, None)
    assert {c.ineligible_reason for c in first.candidates} == {"NO_DATA"}
    assert first.reason == "nowhere: too little fresh data"


def test_a_configuration_based_on_the_version_in_force_is_accepted_at_once() -> None:
    story = calm()
    (answer,) = story.say(configuration(version=2, based_on=1, policy=replace(STATED, margin_ratio=0.2)))
    assert Event.CONFIG_ACCEPTED in answer.events
    assert answer.config_version == 2
    assert answer.target_region == "t-1"


def test_a_configuration_based_on_another_version_is_rejected_and_the_one_in_force_stays() -> None:
    story = calm()
    story.say(configuration(version=2, based_on=1))
    (answer,) = story.say(configuration(version=3, based_on=1, policy=replace(STATED, heartbeat_ms=1)))
    assert Event.CONFIG_REJECTED in answer.events
    assert Event.CONFIG_ACCEPTED not in answer.events
    assert answer.config_version == 2
    known = len(story.rankings)
    story.run(20, CALM)
    assert len(story.rankings) - known <= 3  # the heartbeat is still the old one


def test_the_same_configuration_a_second_time_is_accepted_again_and_changes_nothing() -> None:
    story = calm()
    (answer,) = story.say(configuration())
    assert answer.events == [Event.CONFIG_ACCEPTED]
    assert answer.config_version == 1


def test_a_candidate_that_joins_by_configuration_reorders_nobody_and_keeps_what_was_measured() -> None:
    story = calm()
    before = {c.region_id: c.score for c in story.last.candidates}
    (answer,) = story.say(configuration(version=2, based_on=1, targets=("t-4", *reversed(TARGETS))))
    assert [c.region_id for c in answer.candidates if c.region_id != "t-4"] == ["t-1", "t-2", "t-3"]
    assert {c.region_id: c.score for c in answer.candidates if c.region_id != "t-4"} == pytest.approx(before, rel=1e-2)
    assert {c.region_id: c.ineligible_reason for c in answer.candidates}["t-4"] == "UNKNOWN_REGION"
    assert answer.target_region == "t-1"
    story.run(20, CALM)
    assert story.last.target_region == "t-1"


def test_a_target_that_is_no_candidate_any_more_is_left_at_once_and_the_reason_names_it() -> None:
    story = calm()
    (answer,) = story.say(configuration(version=2, based_on=1, targets=("t-2", "t-3")))
    assert answer.target_region == "t-2"
    assert answer.previous_target_region == "t-1"
    assert Event.TARGET_CHANGED in answer.events
    assert answer.reason == "t-2 replaces t-1, which is no candidate any more"


def test_a_first_configuration_based_on_another_is_a_dead_letter() -> None:
    story = Story()
    assert story.say(configuration(version=2, based_on=1)) == []
    assert [letter.reason for letter in story.letters] == [Reason.OUT_OF_RANGE]


# Regions.


def test_panes_of_a_primary_without_configuration_are_a_dead_letter_that_names_it() -> None:
    story = calm(5)
    story.say(panes(each("t-1", 20.0, at_ms=[T0]), PRIMARY), "us-9")
    (letter,) = story.letters
    assert letter.reason == Reason.UNKNOWN_REGION
    assert letter.found_by == "decide"
    assert "us-9" in letter.detail


def test_a_candidate_that_is_not_in_the_catalogue_is_not_eligible_until_it_is() -> None:
    story = Story()
    story.say(RegionCatalog(1, [r for r in CATALOGUE.regions if r.region_id != "t-1"]), None)
    story.say(configuration())
    story.run(30, CALM)
    assert story.last.target_region == "t-2"
    assert {c.region_id: c.ineligible_reason for c in story.last.candidates}["t-1"] == "UNKNOWN_REGION"
    story.say(replace(CATALOGUE, version=2), None)
    story.run(30, CALM)
    assert story.last.target_region == "t-1"


def test_an_older_catalogue_changes_nothing() -> None:
    story = Story()
    story.say(replace(CATALOGUE, version=2), None)
    story.say(configuration())
    story.say(RegionCatalog(1, []), None)
    story.run(30, CALM)
    assert story.last.target_region == "t-1"


def test_probes_of_a_region_that_nobody_knows_are_a_dead_letter_and_the_others_in_the_record_count() -> None:
    story = calm()
    samples = each("t-1", 20.0, at_ms=[story.now_ms]) + each("t-9", 20.0, at_ms=[story.now_ms])
    story.say(panes(samples))
    (letter,) = story.letters
    assert (letter.reason, "t-9" in letter.detail) == (Reason.UNKNOWN_REGION, True)


def test_the_same_flush_twice_is_folded_once() -> None:
    at_ms = [T0 + 60_000]
    record = panes([s for a in ("agent-1", "agent-2") for s in each("t-1", 500.0, at_ms=at_ms, probes=10, agent=a)])
    once, twice, never = calm(), calm(), calm()
    for story in (once, twice):
        story.say(record)
    twice.repeat_source()
    twice.say(record)
    for story in (once, twice, never):
        story.run(1, CALM)
    assert weight_of(once, "t-1") < 0.9 * weight_of(never, "t-1")
    assert twice.outputs == once.outputs


# What is said from outside.


def test_an_injected_metric_counts_until_it_expires() -> None:
    story = calm()
    honest = weight_of(story, "t-1")
    story.say(injected("latency_ms", 600.0, at_ms=story.now_ms, ttl_ms=5000))
    story.run(4, CALM)
    lied = weight_of(story, "t-1")
    assert lied < 0.7 * honest
    story.run(1, CALM)
    assert weight_of(story, "t-1") == pytest.approx(honest, rel=0.01)


def test_an_injected_metric_of_the_past_expires_from_when_it_was_observed_and_one_of_the_future_from_now() -> None:
    story = calm()
    honest = weight_of(story, "t-1")
    story.say(injected("latency_ms", 600.0, at_ms=story.now_ms - 6000, ttl_ms=5000))
    story.run(1, CALM)
    assert weight_of(story, "t-1") == pytest.approx(honest, rel=0.01)
    story.say(injected("latency_ms", 600.0, at_ms=story.now_ms + 3_600_000, ttl_ms=5000))
    story.run(6, CALM)
    assert weight_of(story, "t-1") == pytest.approx(honest, rel=0.01)


def test_a_metric_about_a_region_that_nobody_knows_is_a_dead_letter() -> None:
    story = calm(5)
    story.say(injected("latency_ms", 1.0, "t-9", at_ms=story.now_ms))
    assert [letter.reason for letter in story.letters] == [Reason.UNKNOWN_REGION]


def test_a_capacity_that_shrinks_makes_a_candidate_weigh_less() -> None:
    story = calm()
    before = weight_of(story, "t-1")
    story.say(injected("capacity_ratio", 0.25, at_ms=story.now_ms))
    story.run(1, CALM)
    assert weight_of(story, "t-1") == pytest.approx(
        before * math.sqrt(1 - 0.3 * 0.75), rel=0.01
    )  # baseline_exponent is 1/2


def test_a_measured_bandwidth_counts() -> None:
    story = calm()
    before = weight_of(story, "t-1")
    story.say(BandwidthMeasurement("agent-1", PRIMARY, "t-1", story.now_ms, 1e8, 0.1, 100_000))
    story.run(1, CALM)
    assert weight_of(story, "t-1") < 0.8 * before


def test_a_primary_said_to_be_unhealthy_is_a_reason_to_prepare_and_not_to_move() -> None:
    story = calm()
    story.say(injected("healthy", 0.0, None, at_ms=story.now_ms, ttl_ms=60_000))
    story.run(11, CALM)
    assert story.last.advice == Advice.PREPARE
    assert story.last.target_region == "t-1"
    assert f"; {PRIMARY} is not healthy, as somebody said" in story.last.reason


# State.


def test_a_fold_restored_from_its_snapshots_goes_on_with_the_same_bytes() -> None:
    story = Story.begun()
    story.run(45, CALM)
    story.say(injected("latency_ms", 500.0, at_ms=story.now_ms, ttl_ms=20_000))
    story.run(3, but("t-1", 60.0, 60.0))
    restored = Story(new_fold()).told_by(story)
    restored.fold.restore(story.fold.snapshots())
    known = len(story.outputs)
    for told in (story, restored):
        told.run(20, but("t-1", 60.0, Outcome.TIMED_OUT))
        told.say(configuration(version=2, based_on=1, targets=("t-3", "t-1")))
        told.run(60, CALM)
    assert len(restored.outputs) > 80
    assert restored.outputs == story.outputs[known:]


def test_a_network_that_flaps_faster_than_the_dwell_moves_the_target_once_at_most() -> None:
    def flapping(target: str, second: int) -> Sequence[Seen]:
        return [20.0 + 25.0 * (second % 2)] * 2 if target == "t-1" else CALM(target, second)

    story = calm()
    known = len(story.rankings)
    story.run(90, flapping)
    assert sum(Event.TARGET_CHANGED in r.events for r in story.rankings[known:]) <= 1
