"""Scores of probabilities, held against what is slow and plain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Array
from streams.core.skill import auc, auc_within, brier, calibration, ece, skill, skill_low

SOME = st.lists(
    st.tuples(st.sampled_from([0.01, 0.02, 0.3, 0.30001, 0.9]), st.booleans(), st.integers(-1, 3)), max_size=40
)


def arrays(rows: list[tuple[float, bool, int]]) -> tuple[Array, Array, Array]:
    return (
        np.array([r[0] for r in rows], np.float64),
        np.array([r[1] for r in rows], bool),
        np.array([r[2] for r in rows], np.int64),
    )


def won(probability: Array, hit: Array) -> tuple[float, int]:
    pairs = [(a, b) for a in probability[hit].tolist() for b in probability[~hit].tolist()]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs), len(pairs)


@given(SOME)
def test_auc_is_the_share_of_pairs_in_which_the_hit_was_higher(rows: list[tuple[float, bool, int]]) -> None:
    probability, hit, path = arrays(rows)
    pooled, pairs = won(probability, hit)
    assert auc(probability, hit) == pytest.approx(pooled / pairs if pairs else math.nan, nan_ok=True)
    each = [won(probability[path == p], hit[path == p]) for p in np.unique(path)]
    total = sum(pairs for _, pairs in each)
    expected = sum(won for won, _ in each) / total if total else math.nan
    assert auc_within(probability, hit, path) == pytest.approx(expected, nan_ok=True)


@given(SOME)
def test_calibration_counts_every_prediction_once(rows: list[tuple[float, bool, int]]) -> None:
    probability, hit, _ = arrays(rows)
    found = calibration(probability, hit, 4)
    assert found.counts.sum() == len(rows)
    assert (found.counts * found.predicted).sum() == pytest.approx(probability.sum())
    assert (found.counts * found.rate).sum() == pytest.approx(hit.sum())
    assert len(found.counts) <= 4
    assert (np.diff(found.predicted) > 0).all()


def test_knowing_which_path_breaks_pays_pooled_and_not_within() -> None:
    probability = np.array([0.5, 0.5, 0.5, 0.1, 0.1, 0.1])
    hit = np.array([True, True, False, False, False, True])
    path = np.array([7, 7, 7, 8, 8, 8])
    assert auc(probability, hit) == pytest.approx(6 / 9)
    assert auc_within(probability, hit, path) == 0.5


def test_brier_and_skill_by_hand() -> None:
    hit = np.array([True, False, False, False])
    assert brier(np.full(4, 0.25), hit) == pytest.approx((0.75**2 + 3 * 0.25**2) / 4)
    assert skill(np.array([1.0, 0.0, 0.0, 0.0]), np.full(4, 0.25), hit) == 1.0
    assert skill(np.full(4, 0.25), np.full(4, 0.25), hit) == 0.0
    assert skill(np.full(4, 0.5), np.full(4, 0.25), hit) < 0


def test_ece_is_the_mean_distance_of_what_was_said_and_what_came() -> None:
    said = np.repeat([0.1, 0.5], 10)
    hit = np.tile([True, False], 10)  # half of each come true
    assert ece(said, hit, 2) == pytest.approx(0.2)
    assert ece(np.full(20, 0.5), hit) == 0.0


def test_nothing_has_no_score() -> None:
    nothing, none = np.empty(0), np.empty(0, bool)
    assert np.isnan([auc(nothing, none), brier(nothing, none), ece(nothing, none), skill(nothing, nothing, none)]).all()
    assert math.isnan(auc_within(nothing, none, np.empty(0, np.int64)))
    assert math.isnan(skill_low(nothing, nothing, none, np.empty(0, np.int64), seed=1))
    assert math.isnan(auc(np.array([0.1, 0.2]), np.array([True, True])))
    assert math.isnan(skill(np.array([0.1]), np.array([0.0]), np.array([False])))


def course(blocks: int, seed: int = 3) -> tuple[Array, Array, Array, Array]:
    """A prediction that is half-right, a yardstick, what came, and blocks in which all is the same."""
    random = np.random.default_rng(seed)
    of_block = random.random(blocks) < 0.3
    hit = np.repeat(of_block, 20)
    return np.where(hit, 0.5, 0.25), np.full(len(hit), 0.3), hit, np.repeat(np.arange(blocks), 20)


def test_the_bound_of_a_skill_is_below_it_and_nearer_the_more_is_known() -> None:
    few, many = course(20), course(400)
    gaps = [skill(*of[:3]) - skill_low(*of, seed=1) for of in (few, many)]
    assert gaps[0] > gaps[1] > 0
    assert skill_low(*few, seed=1) == skill_low(*few, seed=1)
    assert skill_low(*few, seed=1, level=0.99) < skill_low(*few, seed=1, level=0.5)


def test_predictions_that_share_what_befalls_them_are_no_more_proof_than_one() -> None:
    probability, yardstick, hit, block = course(60)
    apart = skill_low(probability, yardstick, hit, np.arange(len(hit)), seed=1)
    assert skill_low(probability, yardstick, hit, block, seed=1) < apart


def test_the_bound_covers_as_often_as_it_says() -> None:
    true = skill(*course(100_000, 0)[:3])
    below = [skill_low(*course(60, seed), seed=1, draws=200) < true for seed in range(1, 201)]
    assert 0.88 <= np.mean(below) <= 0.99  # 0.95, the other 5 % are above
