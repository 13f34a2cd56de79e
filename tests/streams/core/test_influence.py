"""Influence is earned by proof, rises with it, and is lost by itself: no model without skill ever has any."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.influence import SKILL_OF_FULL, Influence, Trust, influence_of
from streams.core.scorecard import Scorecard
from streams.core.state import from_scalars, to_scalars
from tests.streams.core.predicting import DAY, EVERY_MS, HORIZON_MS, Model, World

HOUR = 3_600_000 // EVERY_MS
LOST_WITHIN_H = 2.0  # of journal time, after a model has begun to be wrong


@dataclass
class Watch:
    """A model judged block by block; `course`: (hours, state) after each."""

    seed: int
    card: Scorecard = field(default_factory=lambda: Scorecard(6))
    influence: Influence = field(default_factory=Influence)
    course: list[tuple[float, Influence]] = field(default_factory=list)
    moments: int = 0

    def __post_init__(self) -> None:
        self.world = World(self.seed)

    def run(self, hours: float, model: Model) -> list[tuple[float, Influence]]:
        """The course of these hours."""
        known = len(self.course)
        for outcomes in self.world.run(round(hours * HOUR), model):
            self.moments += 1
            block = self.card.learn(outcomes, HORIZON_MS, 0.25)
            if block is not None:
                self.influence = self.influence.step(self.card, block, outcomes.known_at_ms)
                self.course.append((self.moments / HOUR, self.influence))
        return self.course[known:]


@given(st.floats(-1e9, 1.0), st.floats(-1e9, 1.0))
def test_it_is_a_share_that_rises_with_the_bound(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= influence_of(low) <= influence_of(high) <= 1
    assert influence_of(min(low, 0.0)) == 0
    assert influence_of(-float("inf")) == 0
    assert influence_of(SKILL_OF_FULL) == 1


@pytest.mark.parametrize("model", ["climatology", "noise", "shuffled"])
@pytest.mark.parametrize("seed", range(4))
def test_a_model_without_skill_never_has_any(model: Model, seed: int) -> None:
    course = Watch(seed).run(30, model)
    assert all(state.value == 0 for _, state in course)
    assert {state.trust for _, state in course} <= {Trust.WARMING, Trust.SHADOW}


@pytest.mark.parametrize("seed", range(3))
def test_a_model_with_skill_earns_it_after_it_has_been_seen_for_some_hours(seed: int) -> None:
    course = Watch(seed).run(24, "timid")
    first = next(hours for hours, state in course if state.value > 0)
    assert 0.5 < first < 12
    assert course[-1][1].value > 0.5
    assert course[-1][1].trust is Trust.TRUSTED


@pytest.mark.parametrize("wrong", ["shuffled", "noise"])
@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_begins_to_be_wrong_loses_it_in_time_and_gets_it_not_back(wrong: Model, seed: int) -> None:
    watch = Watch(seed)
    assert watch.run(24, "knows")[-1][1].value > 0
    course = watch.run(10, wrong)
    lost = next(hours for hours, state in course if state.value == 0) - 24
    print(f"{wrong} {seed}: lost after {lost:.2f} h, drifts {watch.influence.drifts}")
    assert lost <= LOST_WITHIN_H
    assert all(state.value == 0 for hours, state in course if hours >= 24 + lost)


def test_after_drift_it_is_earned_again() -> None:
    watch = Watch(7)
    watch.run(24, "knows")
    course = watch.run(3, "nervous")
    assert course[-1][1].drifts == 1
    assert course[-1][1].drifted_at_ms > 0
    assert course[-1][1].value == 0
    assert watch.run(24, "knows")[-1][1].value > 0


def test_two_hours_of_noise_cost_more_than_a_day_of_skill_saves() -> None:
    watch = Watch(7)
    watch.run(24, "knows")
    watch.run(2, "noise")
    assert watch.run(24, "knows")[-1][1].trust is Trust.SHADOW
    assert watch.card.skill_low < 0


def test_a_snapshot_holds_it() -> None:
    watch = Watch(8)
    watch.run(6, "knows")
    assert Influence.load(from_scalars(to_scalars(watch.influence.save()))) == watch.influence


def test_it_is_judged_now_and_then_and_not_at_every_label() -> None:
    assert len(Watch(9).run(2, "knows")) == pytest.approx(2 * DAY / 24 / 30, abs=1)
