"""Whether a target would take the traffic: what probers report gates, discounts when it is old, and is forgotten."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from schemas.records import Event, InjectedMetric, Outcome, Policy, ReadinessCheck, ReadinessReport, ReadinessRequest
from streams.core.gates import NOT_READY
from streams.refold import Refold
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import PHASE_MS, TARGETS, TICK_MS, Story, configuration, new_fold, steady

NETWORK = steady(t_1=20.0, t_2=24.0, t_3=60.0)
STALE_S, FORGET_S = 30, 120
POLICY = replace(
    STATED,
    readiness_stale_after_ms=STALE_S * 1000,
    readiness_forget_ms=FORGET_S * 1000,
    failback="delayed",
    failback_delay_ms=10_000,
    disruption_loss_ratio=0.05,
)
FAILED = "answered 500, and 200 was to come"
GATED = f"{NOT_READY}: http: {FAILED}"


def report(
    story: Story, target: str = "t-1", *, ready: bool = False, prober: str = "p-1", ago_ms: int = 0
) -> ReadinessReport:
    checks = [
        ReadinessCheck("capacity", True, "it can take 1, and 0.5 is needed"),
        ReadinessCheck("http", ready, FAILED),
    ]
    return ReadinessReport(PRIMARY, target, prober, story.now_ms - ago_ms, checks)


def all_ready(story: Story, *, but: str | None = None) -> None:
    for target in TARGETS:
        if target != but:
            story.say(report(story, target, ready=True))


def begun(policy: Policy = POLICY) -> Story:
    """A story in which t-1 is in use and all are known to be ready."""
    story = Story.begun(policy)
    story.run(6, NETWORK)
    all_ready(story)
    story.run(1, NETWORK)
    assert story.last.target_region == "t-1"
    return story


def run_reported(story: Story, seconds: int) -> None:
    """Seconds in which everybody but t-1 is reported to be ready."""
    for _ in range(seconds):
        all_ready(story, but="t-1")
        story.run(1, NETWORK)


def readiness_of(story: Story, target: str = "t-1") -> float:
    return next(c.readiness for c in story.last.candidates if c.region_id == target)


def asked_for(requests: list[ReadinessRequest]) -> list[str]:
    return [r.candidate_region for r in requests]


def test_a_target_that_fails_a_check_is_left_at_once_and_the_ranking_says_which() -> None:
    story = begun()
    (ranking,) = story.say(report(story))
    assert ranking.target_region == "t-2"
    assert Event.TARGET_CHANGED in ranking.events
    assert ranking.reason == f"t-2 replaces t-1, which is {GATED}"
    assert story.state_of("t-1") == GATED
    assert readiness_of(story) == 0


def test_it_comes_back_after_it_is_ready_again_and_the_failback_delay() -> None:
    story = begun()
    story.say(report(story))
    run_reported(story, 5)
    story.say(report(story, ready=True))
    assert story.state_of("t-1") is None
    run_reported(story, 8)
    assert story.last.target_region == "t-2", "failback waits"
    run_reported(story, 4)
    assert story.last.target_region == "t-1"
    assert Event.TARGET_RESTORED in [e for r in story.rankings[-6:] for e in r.events]


def test_of_several_probers_one_alone_is_no_fact_and_a_quorum_is() -> None:
    story = begun()
    story.say(report(story, ready=True, prober="p-2"))
    story.say(report(story, ready=True, prober="p-3"))
    assert story.say(report(story, prober="p-1")) == []
    story.run(1, NETWORK)
    assert story.state_of("t-1") is None
    (ranking,) = story.say(report(story, prober="p-3"))
    assert ranking.target_region == "t-2"


def test_a_prober_that_fell_silent_holds_up_no_quorum_while_another_reports() -> None:
    story = begun()
    story.say(report(story, ready=True, prober="p-2"))
    for _ in range(STALE_S + 1):
        story.say(report(story, ready=True))
        run_reported(story, 1)
    (ranking,) = story.say(report(story))
    assert ranking.target_region == "t-2"


def test_down_and_then_not_ready_is_one_failure_and_no_flapping() -> None:
    """Whoever fails twice is left out for a while after it recovers; this has failed once."""
    story = begun()
    down = lambda target, second: [Outcome.TIMED_OUT] * 2 if target == "t-1" else NETWORK(target, second)  # noqa: E731
    story.run(4, down)
    assert story.state_of("t-1") == "DOWN", "of two reasons the first"
    story.say(report(story))
    assert story.state_of("t-1") == "DOWN"
    run_reported(story, 4)
    assert story.state_of("t-1") == GATED, "it answers again, and is not ready"
    story.say(report(story, ready=True))
    run_reported(story, 1)
    assert story.state_of("t-1") is None, "no ejection"


def test_an_old_report_discounts_says_so_and_is_asked_again() -> None:
    story = begun()
    asked_before = len(story.requests)
    run_reported(story, STALE_S + 1)
    assert readiness_of(story) == POLICY.readiness_stale_ratio
    candidate = next(c for c in story.last.candidates if c.region_id == "t-1")
    assert candidate.contributions["readiness"] == pytest.approx(math.log(0.9), rel=1e-5)
    assert sum(candidate.contributions.values()) == pytest.approx(math.log(candidate.score), abs=1e-4)
    assert readiness_of(story, "t-2") == 1
    requests = [r for r in story.requests[asked_before:] if r.candidate_region == "t-1"]
    assert [r.reason for r in requests] == [f"the last report on t-1 is {STALE_S} s old"]
    assert (requests[0].target_region, requests[0].model) == ("t-1", "")
    story.say(report(story, ready=True))
    story.run(1, NETWORK)
    assert readiness_of(story) == 1


def test_what_failed_and_is_old_still_gates() -> None:
    story = begun()
    story.say(report(story))
    run_reported(story, STALE_S + 5)
    assert story.state_of("t-1") == GATED


def test_a_prober_that_is_gone_is_forgotten_and_then_neither_gates_nor_discounts() -> None:
    story = begun()
    story.say(report(story))
    run_reported(story, FORGET_S - 1)
    assert story.state_of("t-1") == GATED
    run_reported(story, 2)
    assert story.state_of("t-1") is None
    story.run(FORGET_S + 1, NETWORK)
    assert {readiness_of(story, t) for t in TARGETS} == {1.0}
    assert all("readiness" not in c.contributions for c in story.last.candidates)
    assert not story.fold.engines[PRIMARY]._state.reports.any


def test_without_any_prober_nothing_is_asked_discounted_or_gated() -> None:
    story = Story.begun(POLICY)
    story.run(6, NETWORK)
    story.run(3, steady(t_1=90.0, t_2=24.0, t_3=60.0))
    assert story.requests == []
    assert {readiness_of(story, t) for t in TARGETS} == {1.0}


def test_what_arrives_late_does_not_replace_what_is_newer_nor_count_as_new() -> None:
    story = begun()
    assert story.say(report(story, ago_ms=5000)) == []
    story.run(1, NETWORK)
    assert story.state_of("t-1") is None
    story.say(report(story, prober="p-9", ago_ms=FORGET_S * 1000))
    assert "p-9" not in story.fold.engines[PRIMARY]._state.reports.save()["latest"]["t-1"]


def test_a_prober_whose_clock_is_ahead_does_not_stay_fresh_for_longer() -> None:
    story = begun()
    story.say(report(story, ready=True, ago_ms=-4000))
    run_reported(story, STALE_S + 1)
    assert readiness_of(story) == POLICY.readiness_stale_ratio


def test_when_nobody_is_ready_the_least_bad_is_kept_rather_than_nowhere() -> None:
    """Maybe it is the prober whose network is gone."""
    story = begun()
    for target in TARGETS:
        story.say(report(story, target))
    assert story.last.mode == "PANIC"
    assert story.last.target_region is not None


def test_the_runner_up_is_asked_when_the_target_in_use_loses_probes_and_is_kept_all_the_same() -> None:
    far = steady(t_1=20.0, t_2=700.0, t_3=900.0)
    story = begun()
    story.run(20, far)
    before = len(story.requests)
    lossy = lambda target, second: (  # noqa: E731
        [Outcome.TIMED_OUT if i % 8 == 0 else 20.0 for i in range(24)] if target == "t-1" else far(target, second)
    )
    story.run(4, lossy)
    assert story.last.target_region == "t-1"
    request = story.requests[before]
    assert (request.candidate_region, request.target_region) == ("t-2", "t-1")
    assert request.reason == "the path to t-1 loses probes"


def test_a_challenger_is_asked_before_it_is_taken() -> None:
    story = begun()
    before = len(story.requests)
    story.run(12, steady(t_1=40.0, t_2=24.0, t_3=60.0))
    moved_at_ms = next(r.decided_at_ms for r in story.rankings if r.target_region == "t-2")
    asked = [r for r in story.requests[before:] if r.candidate_region == "t-2"]
    assert asked, "a failover-worthy one is looked at"
    assert asked[0].requested_at_ms < moved_at_ms


def test_the_target_is_asked_when_the_primary_may_be_unwell() -> None:
    story = begun()
    before = len(story.requests)
    story.say(InjectedMetric(PRIMARY, None, "healthy", 0.0, "ops", story.now_ms, 5000))
    assert asked_for(story.requests[before:]) == ["t-1"]
    assert story.requests[before].reason == f"{PRIMARY} may be unwell"


def test_a_report_on_a_stranger_is_a_dead_letter() -> None:
    story = begun()
    story.say(report(story, "mars"))
    assert "mars is no region" in story.letters[-1].detail


def test_another_configuration_keeps_what_is_known_of_those_that_stay() -> None:
    story = begun()
    story.say(report(story))
    story.say(configuration(2, 1, ["t-3", "t-1"], POLICY))
    assert story.state_of("t-1") == GATED
    assert story.last.target_region == "t-3"


def test_a_restart_from_a_snapshot_and_a_replay_in_strides_decide_the_same() -> None:
    story = begun()
    story.say(report(story))
    run_reported(story, 12)
    snapshots = story.fold.snapshots()
    other = Story(new_fold()).told_by(story)
    other.fold.restore(snapshots)
    at = len(story.outputs)
    for each in (story, other):
        each.run(STALE_S + 3, NETWORK)
        each.say(report(each, ready=True))
        run_reported(each, 15)
    assert other.outputs == story.outputs[at:]
    refold = Refold(topic="observations", topic_id="journal-1", partition=0, tick_ms=TICK_MS, phase_ms=PHASE_MS)
    made = [out for outputs in refold.apply_all(story.journal) for out in outputs]
    assert made == story.outputs
