"""Paths that congest gradually, and models that must not count: what prediction is worth, and what it may cost.

Most of it is for `make soak`: each of these takes a minute of a CPU, or several.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from schemas.records import Array, DisruptionPrediction, Policy
from streams.backtest import course_of, run_trace, score
from streams.core.foresight import Foreseen, Foresight
from streams.core.outcomes import Outcomes
from streams.core.prediction import Predictor
from streams.core.prediction_signs import SIGNS, Signs
from streams.trace_files import Trace
from tests.streams.congestion import DAY_STEPS, DEVELOPMENT, JUDGING, STEP_MS, Day, congesting, judged

SOAK = "PROXIMA_SOAK" in os.environ
OFF = replace(Policy(), prediction_weight=0.0)
DAYS, DAYS_MISLED = 1.5, 0.5 if SOAK else 0.2
LEARNT_AFTER = DAY_STEPS // 2  # steps: before that a model has not seen enough to be trusted
# Of all days judged together; of one alone chance has its part.
IN_TIME_RATIO_MIN = 0.8
FALSE_MOVES_PER_DAY_MAX = 1.0
LOST_WITHIN_MS = 10_800_000  # trust, after what made the model right is over
Change = Callable[[int, Array], Array]


@cache
def run(seed: int, days: float, policy: Policy) -> tuple[Day, Array]:
    day = congesting(seed, days)
    return day, run_trace(day.trace, policy).chosen


def regret_ms(trace: Trace, policy: Policy) -> float:
    return score([(course_of(trace, 1000.0), run_trace(trace, policy))], 1000.0).regret_ms


def test_the_same_seed_gives_the_same_day_and_seeds_of_judging_were_not_developed_with() -> None:
    one, again, other = congesting(1, 0.1), congesting(1, 0.1), congesting(2, 0.1)
    np.testing.assert_array_equal(one.trace.rtt_ms, again.trace.rtt_ms)
    assert one.episodes == again.episodes
    assert not np.array_equal(one.trace.rtt_ms, other.trace.rtt_ms, equal_nan=True)
    assert not set(DEVELOPMENT) & set(JUDGING)


@pytest.mark.parametrize("seed", DEVELOPMENT)
def test_nothing_is_lost_before_an_episode_says_so_and_the_path_stays_the_nearest_till_then(seed: int) -> None:
    day = congesting(seed)
    rtt_ms = day.trace.rtt_ms
    real = [e for e in day.episodes if e.first_lost is not None]
    assert 0.3 < len(real) / len(day.episodes) < 0.7
    assert len(real) >= 15
    for e in day.episodes:
        until = e.ends if e.first_lost is None else e.first_lost
        assert not np.isnan(rtt_ms[e.begins : until, 0]).any()
        ramp = rtt_ms[e.begins : until]
        assert np.median(ramp[:, 0]) < np.median(ramp[:, 1:], axis=0).min()


def test_who_never_moves_leaves_nothing_in_time_and_who_moves_for_nothing_is_told() -> None:
    day = congesting(0)
    steps = len(day.trace.rtt_ms)
    stays = judged(day, np.zeros(steps, int))
    assert (stays.left_in_time, stays.false_moves_per_day) == (0, 0.0)
    knows = np.zeros(steps, int)
    for e in day.episodes:
        if e.first_lost is not None:
            knows[e.first_lost - 1 : e.ends] = 1
    assert judged(day, knows).in_time_ratio == 1
    assert judged(day, knows).false_moves_per_day == 0
    restless = np.arange(steps) // 400 % 2
    assert judged(day, restless).false_moves_per_day > 10


@pytest.mark.soak
def test_the_target_moves_before_the_first_probe_is_lost() -> None:
    days = []
    for seed in JUDGING:
        off, on = (judged(*run(seed, DAYS, policy), LEARNT_AFTER) for policy in (OFF, Policy()))
        print(f"seed {seed}: {on.left_in_time} of {on.episodes} in time, {on.false_moves_per_day:.1f} false a day")
        assert off.in_time_ratio < 0.2, "without prediction there is no reason to move"
        days.append(on)
    assert sum(d.left_in_time for d in days) >= IN_TIME_RATIO_MIN * sum(d.episodes for d in days)
    assert sum(d.false_moves_per_day for d in days) / len(days) <= FALSE_MOVES_PER_DAY_MAX


# -- adversaries


def mislead(monkeypatch: pytest.MonkeyPatch, change: Change) -> list[float]:
    """A model that says something else than it has learnt; the influence it has at each tick."""
    steps, seen = Predictor.steps, list[float]()

    def misled(self: Predictor, *given: Any, judge: Callable[[Outcomes], None]) -> list[DisruptionPrediction | None]:
        def judged_otherwise(o: Outcomes) -> None:
            judge(o._replace(probability=change(o.said_at_ms, o.probability)))

        return [_changed(p, change) for p in steps(self, *given, judge=judged_otherwise)]

    monkeypatch.setattr(Predictor, "steps", misled)
    watch(monkeypatch, seen)
    return seen


def watch(monkeypatch: pytest.MonkeyPatch, seen: list[float]) -> None:
    """Note the influence at each tick."""
    through = Foresight.steps

    def noted(self: Foresight, *given: Any, **named: Any) -> list[Foreseen]:
        found = through(self, *given, **named)
        seen.extend(each.influence for each in found)
        return found

    monkeypatch.setattr(Foresight, "steps", noted)


def _changed(prediction: DisruptionPrediction | None, change: Change) -> DisruptionPrediction | None:
    if prediction is None:
        return None
    said = change(prediction.predicted_at_ms, np.array([p.probability for p in prediction.paths]))
    paths = [replace(p, probability=float(q)) for p, q in zip(prediction.paths, said, strict=True)]
    return replace(prediction, paths=paths)


def noise(at_ms: int, probability: Array) -> Array:
    return np.random.default_rng(at_ms).random(len(probability))


def shuffled(_: int, probability: Array) -> Array:
    """Each path has another's."""
    return np.roll(probability, 1)


@pytest.mark.slow
@pytest.mark.parametrize("change", [pytest.param(noise, marks=pytest.mark.soak), shuffled])
def test_a_model_that_knows_nothing_never_counts_and_nothing_is_chosen_otherwise(
    monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    day, without = run(DEVELOPMENT[0], DAYS_MISLED, OFF)
    seen = mislead(monkeypatch, change)
    assert run_trace(day.trace, Policy()).chosen.tolist() == without.tolist()
    assert len(seen) == len(without)
    assert not any(seen)


@pytest.mark.soak
def test_signs_that_are_noise_earn_nothing_and_nothing_is_chosen_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    day, without = run(DEVELOPMENT[0], 0.5, OFF)
    rows, rng, seen = Signs.rows, np.random.default_rng(7), list[float]()
    # As large as signs are; what is not known of a path stays unknown.
    monkeypatch.setattr(Signs, "rows", lambda *given: 0 * rows(*given) + rng.exponential(0.3, (3, SIGNS)))
    watch(monkeypatch, seen)
    assert run_trace(day.trace, Policy()).chosen.tolist() == without.tolist()
    assert len(seen) == len(without)
    assert not any(seen)


@pytest.mark.soak
def test_a_model_that_begins_to_be_wrong_loses_its_influence_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    day, switch = congesting(DEVELOPMENT[1], 0.8), round(0.6 * DAY_STEPS)
    seen = mislead(monkeypatch, lambda at_ms, p: p if at_ms < switch * STEP_MS else shuffled(at_ms, p))
    with_ms, without_ms = regret_ms(day.trace, Policy()), regret_ms(day.trace, OFF)
    influence = np.array(seen[: len(day.trace.rtt_ms)])
    assert influence[switch] > 0
    lost = int((influence[switch:] == 0).argmax())
    print(f"lost after {lost * STEP_MS / 3.6e6:.2f} h; regret {with_ms:.2f} ms with, {without_ms:.2f} ms without")
    assert 0 < lost * STEP_MS <= LOST_WITHIN_MS
    assert not influence[switch + lost :].any()
    assert with_ms <= 1.02 * without_ms


@pytest.mark.soak
def test_where_queues_announce_nothing_any_more_predictions_do_no_harm() -> None:
    """The model learns that they do, keeps a little skill, and so keeps some influence."""
    day = congesting(DEVELOPMENT[1], 0.8, misleading_from=0.6)
    with_ms, without_ms = regret_ms(day.trace, Policy()), regret_ms(day.trace, OFF)
    print(f"regret {with_ms:.2f} ms with, {without_ms:.2f} ms without")
    assert with_ms <= 1.02 * without_ms
