"""The logistic regression: many at once are as one by one, belief gives way to labels, and a restart changes no bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, optim

from schemas.records import Array
from streams.core.prediction_model import SOLVE_EVERY, LogisticModel
from streams.core.state import from_columns, from_scalars, to_columns, to_scalars

SIGNS = 4
SEEDS = st.integers(0, 1 << 32)


def model(deviation: float = 1.0) -> LogisticModel:
    return LogisticModel(np.array([-2.0, 0.3, 0.0, -0.5]), np.full(SIGNS, deviation))


def labels(seed: int, rows: int) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    signs = np.column_stack((np.ones(rows), random.normal(size=(rows, SIGNS - 1)) * [1, 3, 0.1]))
    chance = 1 / (1 + np.exp(-(signs @ [-3.0, 1.0, 0.5, 0.0])))
    return signs, random.random(rows) < chance


def of_one(learnt: LogisticModel, signs: Array) -> float:
    """As `probabilities`, in plain floats."""
    odds = sum(float(w) * float(x) for w, x in zip(learnt.weights, signs, strict=True))
    return 1 / (1 + float(np.exp(-min(max(odds, -30), 30))))


@settings(deadline=None)
@given(SEEDS, st.integers(1, 60))
def test_many_predictions_are_those_of_one_by_one_bit_for_bit(seed: int, rows: int) -> None:
    learnt = model()
    learnt.learn(*labels(seed, 200), 1.0)
    signs, _ = labels(seed + 1, rows)
    together = learnt.probabilities(signs)
    assert together.tolist() == [float(learnt.probabilities(row[None])[0]) for row in signs]
    assert together == pytest.approx([of_one(learnt, row) for row in signs])
    assert (together > 0).all()
    assert (together < 1).all()


@settings(deadline=None)
@given(SEEDS, st.floats(0.05, 1.0))
def test_a_batch_is_one_step_of_newton_on_the_posterior(seed: int, share: float) -> None:
    learnt, before = model(0.1), model(0.1)
    signs, hit = labels(seed, SOLVE_EVERY)
    gradient, precision = np.zeros(SIGNS), np.eye(SIGNS) / 0.1**2
    for row, came in zip(signs, hit, strict=True):
        p = of_one(before, row)
        gradient += share * (float(came) - p) * row
        precision += share * p * (1 - p) * np.outer(row, row)
    learnt.learn(signs, hit, share)
    step = np.linalg.solve(precision, gradient)
    step *= min(1.0, 0.5 / np.abs(step).max())
    np.testing.assert_allclose(learnt.weights, before.weights + step, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(learnt.precision, precision, rtol=1e-9)


@settings(deadline=None)
@given(SEEDS, st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_nothing_moves_before_there_are_labels_enough_and_none_is_lost(seed: int, sizes: list[int]) -> None:
    learnt = model()
    since = 0
    for number, size in enumerate(sizes):
        before = learnt.weights
        learnt.learn(*labels(seed + number, size), 1.0)
        since += size
        assert (learnt.weights is before) == (since < SOLVE_EVERY)
        since = since if since < SOLVE_EVERY else 0
        assert learnt.waiting == since
    assert learnt.labels == sum(sizes)


def test_labels_outweigh_belief_and_find_what_rivers_regression_finds() -> None:
    signs, hit = labels(5, 20_000)
    learnt = model()
    river = linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.3), intercept_lr=0)
    for at in range(0, len(hit), SOLVE_EVERY):
        learnt.learn(signs[at : at + SOLVE_EVERY], hit[at : at + SOLVE_EVERY], 1.0)
    for row, came in zip(signs.tolist(), hit.tolist(), strict=True):
        river.learn_one(dict(enumerate(row)), came)
    assert learnt.weights == pytest.approx([-3.0, 1.0, 0.5, 0.0], abs=0.25)
    test = labels(6, 500)[0]
    reference = [river.predict_proba_one(dict(enumerate(row)))[True] for row in test.tolist()]
    assert np.abs(learnt.probabilities(test) - reference).mean() < 0.02


def test_what_is_believed_firmly_moves_little() -> None:
    moved = []
    for deviation in (0.03, 1.0):
        learnt = model(deviation)
        learnt.learn(*labels(7, 640), 1.0)
        moved.append(np.abs(learnt.weights - model().weights).max())
    assert moved[0] < 0.2 < moved[1]


def test_surprises_do_not_throw_the_weights_about() -> None:
    learnt = model(10.0)
    signs = np.tile([1.0, 0.0, 0.0, 0.0], (SOLVE_EVERY, 1))
    learnt.weights = np.array([-20.0, 0, 0, 0])  # where the curvature is next to nothing
    learnt.learn(signs, np.ones(SOLVE_EVERY, bool), 1.0)
    assert learnt.weights[0] == pytest.approx(-19.5)


def test_what_is_forgotten_is_what_was_learnt_and_not_what_was_believed() -> None:
    learnt = model()
    learnt.learn(*labels(8, 640), 1.0)
    weights = learnt.weights
    learnt.learn(*labels(9, 0), 1.0, keep=0.0)
    np.testing.assert_array_equal(learnt.precision, model().precision)
    np.testing.assert_array_equal(learnt.weights, weights)


@settings(deadline=None)
@given(SEEDS, st.integers(0, 150))
def test_a_restart_changes_no_bit(seed: int, rows: int) -> None:
    learnt, again = model(), model()
    learnt.learn(*labels(seed, rows), 0.3)
    scalars, arrays = learnt.save()
    again.restore(from_scalars(to_scalars(scalars)), from_columns(to_columns(arrays)))
    for each in (learnt, again):
        each.learn(*labels(seed + 1, 100), 0.3)
    test, _ = labels(seed + 2, 20)
    assert again.probabilities(test).tolist() == learnt.probabilities(test).tolist()
    assert again.labels == learnt.labels
