"""What a trusted prediction does: it demotes and is said, asks the runner-up in time, and changes nothing in shadow."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import DisruptionPrediction, Event, Policy, ReadinessRequest
from streams.core import influence
from streams.core.engine import FailoverEngine
from streams.core.foresight import demotion
from streams.core.influence import Influence, Trust
from streams.core.prediction import Predictor
from streams.core.readiness import Outlook, Readiness
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import T0, TARGETS, Story, new_fold, steady
from tests.streams.test_refold import assert_same, with_losses

CALM = steady(t_1=20.0, t_2=30.0, t_3=60.0)
shares = st.floats(0, 1)


@given(shares, shares, shares, st.floats(0, 100))
def test_a_demotion_is_never_above_0_and_grows_with_probability_and_influence_down_to_the_floor(
    p: float, other: float, c: float, weight: float
) -> None:
    policy, (low, high) = replace(STATED, prediction_weight=weight), sorted((p, other))
    less, more = demotion(np.array([low, high]), c, policy).tolist()
    assert 0 >= less >= more >= math.log(policy.utility_floor) * (1 + 1e-12)
    assert demotion(np.array([p]), 0.0, policy)[0] == demotion(np.array([0.0]), c, policy)[0] == 0
    assert demotion(np.array([p]), low, policy)[0] >= demotion(np.array([p]), high, policy)[0]


# -- stories with a model that says what it is told to


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Probabilities by target; the model says these, and its influence stays what the story makes it."""
    said = dict.fromkeys(TARGETS, 0.001)

    steps = Predictor.steps

    def prescribed(self: Predictor, *given: Any, **named: Any) -> list[DisruptionPrediction | None]:
        return [_as_told(p, said) for p in steps(self, *given, **named)]

    monkeypatch.setattr(Predictor, "steps", prescribed)
    monkeypatch.setattr(Influence, "step", lambda self, *_: self)
    return said


def _as_told(prediction: DisruptionPrediction | None, said: dict[str, float]) -> DisruptionPrediction | None:
    if prediction is None:
        return None
    return replace(prediction, paths=[replace(p, probability=said[p.target_region]) for p in prediction.paths])


def trusted(story: Story, value: float = 1.0) -> None:
    engine: FailoverEngine = story.fold.engines[PRIMARY]
    engine._state.model.foresight._influence = Influence(Trust.TRUSTED if value else Trust.SHADOW, value)


def begun(policy: Policy = STATED, value: float = 1.0) -> Story:
    story = Story.begun(policy)
    story.run(60, CALM)
    assert story.last.target_region == "t-1"
    trusted(story, value)
    return story


def test_the_target_moves_before_anything_has_failed_and_the_ranking_says_why(told: dict[str, float]) -> None:
    story = begun()
    told["t-1"] = 0.9
    story.run(30, CALM)
    assert story.last.target_region == "t-2"
    moved = next(r for r in story.rankings if Event.TARGET_CHANGED in r.events and r.target_region == "t-2")
    assert "most of all in prediction" in moved.reason
    for candidate in moved.candidates:
        assert candidate.contributions["prediction"] <= 0
        total = sum(candidate.contributions.values())
        assert total == pytest.approx(math.log(candidate.score), abs=1e-4)
    first = {c.region_id: c for c in moved.candidates}["t-1"]
    assert first.contributions["prediction"] == pytest.approx(math.log(1 - 0.9 * STATED.prediction_weight), rel=1e-5)
    assert first.eligible


def test_the_runner_up_is_asked_once_and_no_later_than_the_target_moves(told: dict[str, float]) -> None:
    story = begun()
    told["t-1"] = 0.9
    story.run(30, CALM)
    [request] = story.requests
    assert (request.target_region, request.candidate_region) == ("t-1", "t-2")
    moved = next(r for r in story.rankings if r.target_region == "t-2")
    assert request.requested_at_ms <= moved.decided_at_ms
    assert request.expires_at_ms == request.requested_at_ms + STATED.prediction_horizon_ms
    assert story.predictions[-1].influence == 1.0


def test_what_was_said_last_stands_while_the_path_is_disrupted(told: dict[str, float]) -> None:
    story = begun()
    told["t-1"] = 0.9
    story.run(20, CALM)
    story.run(20, lambda t, s: [45.0, 45.0] if t == "t-1" else CALM(t, s))  # slower by more than half: disrupted
    assert {p.target_region for p in story.predictions[-1].paths} == {"t-2", "t-3"}
    t_1 = {c.region_id: c for c in story.last.candidates}["t-1"]
    assert t_1.contributions["prediction"] < -1.5


def test_in_shadow_every_byte_is_the_same_whatever_is_predicted(told: dict[str, float]) -> None:
    told["t-1"] = 0.99
    stories = [begun(replace(STATED, prediction_weight=w), value=0.0) for w in (0.0, 0.98)]
    for story in stories:
        story.run(40, CALM)
    one, other = ([o for o in s.outputs if o.topic in ("failover-rankings", "path-weights")] for s in stories)
    assert one == other
    assert not stories[1].requests
    assert all("prediction" not in c.contributions for r in stories[1].rankings for c in r.candidates)


def test_a_scorecard_is_published_every_minute(told: dict[str, float]) -> None:
    story = begun()
    story.run(180, CALM)
    at_ms = [card.scored_at_ms for card in story.scorecards]
    assert len(at_ms) == 5
    assert all(59_000 <= b - a <= 61_000 for a, b in pairwise(at_ms[1:]))


def test_that_trust_is_won_and_lost_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([Influence(Trust.TRUSTED, 0.5), Influence(Trust.TRUSTED, 0.7), Influence(Trust.WARMING, 0.0, 1)])
    monkeypatch.setattr(Influence, "step", lambda self, *_: next(states, self))
    story = Story.begun(replace(STATED, prediction_horizon_ms=3000, prediction_every_ms=1000))
    story.run(150, CALM)
    events = [(e, r.decided_at_ms) for r in story.rankings for e in r.events if e.startswith("PREDICTION")]
    assert [e for e, _ in events] == ["PREDICTION_TRUSTED", "PREDICTION_DISTRUSTED"]
    said = [(c.trust, c.influence, c.drifts) for c in story.scorecards]
    assert [c for c in said if c[1] or c[2]][:3] == [("TRUSTED", 0.5, 0), ("TRUSTED", 0.7, 0), ("WARMING", 0.0, 1)]
    assert events[0][1] in [c.scored_at_ms for c in story.scorecards], "a change is said at once"


# -- the same bytes, in lists and from snapshots


@pytest.fixture
def fickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust that comes and goes with every block, by nothing but the record."""
    monkeypatch.setattr(influence, "_HITS_MIN", 0.0)
    monkeypatch.setattr(influence, "_BLOCKS_MIN", 0.0)
    monkeypatch.setattr(influence, "influence_of", lambda low: abs(hash(f"{low:.6f}"[-2:])) % 3 / 2)


def fickle_story(seed: int) -> Story:
    policy = replace(STATED, prediction_horizon_ms=2000, prediction_every_ms=1000, alarm_probability=0.001)
    story = Story.begun(policy)
    views = {agent: with_losses(0.15, seed) for agent in ("agent-1", "agent-2")}
    story.run_each(150, views)
    return story


@pytest.mark.usefixtures("fickle")
@pytest.mark.parametrize("seed", range(3))
def test_many_ticks_at_once_give_the_same_while_trust_comes_and_goes(seed: int) -> None:
    story = fickle_story(seed)
    counted = {"prediction" in r.candidates[0].contributions for r in story.rankings}
    assert counted == {True, False}
    assert story.requests
    assert_same(story.journal, random.Random(seed))


@pytest.mark.usefixtures("fickle")
def test_a_restart_from_a_snapshot_gives_the_same() -> None:
    story = fickle_story(9)
    one, other = new_fold(), new_fold()
    half = len(story.journal) * 2 // 3
    for record in story.journal[:half]:
        one.apply(record)
    other.restore(one.snapshots())
    for record in story.journal[half:]:
        assert other.apply(record) == one.apply(record)
    assert other.snapshots() == one.snapshots()


# -- readiness requests


def asked(*probabilities: float, value: float = 1.0, runner_up: str | None = "b") -> list[ReadinessRequest | None]:
    state, found = Readiness(), []
    for number, p in enumerate(probabilities):
        state, request = state.step("p", Outlook("a", p, value, runner_up, "m"), STATED, T0 + number)
        found.append(request)
    return found


def test_a_request_comes_once_an_episode() -> None:
    threshold = STATED.alarm_probability
    said = asked(0.0, threshold, 0.9, 0.6 * threshold, threshold, 0.4 * threshold, threshold)
    assert [r is not None for r in said] == [False, True, False, False, False, False, True]


def test_nobody_is_asked_in_shadow_nor_where_there_is_nobody() -> None:
    assert asked(0.9, 0.9, value=0.0) == [None, None]
    assert asked(0.9, 0.9, runner_up=None) == [None, None]


def test_another_target_is_another_episode() -> None:
    state, _ = Readiness().step("p", Outlook("a", 0.9, 1.0, "b", "m"), STATED, T0)
    state, request = state.step("p", Outlook("b", 0.9, 1.0, "a", "m"), STATED, T0)
    assert request is not None
    assert (request.target_region, request.candidate_region) == ("b", "a")
    assert state.step("p", None, STATED, T0) == (Readiness(), None)
