"""A scorecard says of a model what is true of it, in sums that a snapshot holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.alarms import Alarmed, Alarms
from streams.core.outcomes import Climatology, Outcomes
from streams.core.scorecard import BLOCK_HORIZONS, Scorecard, auc, bins
from streams.core.state import from_columns, from_scalars, to_columns, to_scalars
from tests.streams.core.predicting import DAY, EVERY_MS, HORIZON_MS, T0, Model, World

ALARM = 0.25
PATHS = 6


def carded(card: Scorecard, world: World, moments: int, model: Model) -> list[Outcomes]:
    seen = list(world.run(moments, model))
    for outcomes in seen:
        card.learn(outcomes, HORIZON_MS, ALARM)
    return seen


def restored(card: Scorecard) -> Scorecard:
    scalars, arrays = card.save()
    return Scorecard.load(from_scalars(to_scalars(scalars)), from_columns(to_columns(arrays)))


def exact_auc(p: np.ndarray, hit: np.ndarray) -> float:
    above = (p[hit][:, None] > p[~hit]).mean()
    return float(above + (p[hit][:, None] == p[~hit]).mean() / 2)


def test_its_figures_are_those_of_the_outcomes() -> None:
    card = Scorecard(PATHS)
    seen = carded(card, World(1), DAY // 8, "knows")
    figures = card.figures()
    last = seen[-1].known_at_ms // (BLOCK_HORIZONS * HORIZON_MS)  # the open block does not count yet
    over = [o for o in seen if o.known_at_ms // (BLOCK_HORIZONS * HORIZON_MS) < last]
    p, usual, hit = (np.concatenate([getattr(o, n) for o in over]) for n in ("probability", "climatology", "hit"))
    brier, yardstick = ((p - hit) ** 2).mean(), ((usual - hit) ** 2).mean()
    # Three hours fade by an eighth of a day.
    assert figures.outcomes == pytest.approx(len(p), rel=0.07)
    assert figures.brier == pytest.approx(brier, rel=0.1)
    assert figures.skill == pytest.approx(1 - brier / yardstick, abs=0.03)
    assert figures.auc_pooled == pytest.approx(exact_auc(p, hit), abs=0.02)
    assert figures.auc_within == pytest.approx(figures.auc_pooled, abs=0.05)
    off = sum(abs(p[some].sum() - hit[some].sum()) for some in (p > 0.1, p < 0.1))
    assert figures.calibration_error == pytest.approx(off / len(p), abs=0.001)
    assert sum(count for *_, count in figures.calibration) == pytest.approx(figures.outcomes, rel=0.02)
    assert figures.skill_low < figures.skill


def test_of_a_model_without_a_clue_it_says_so() -> None:
    card = Scorecard(PATHS)
    carded(card, World(2), DAY // 8, "noise")
    figures = card.figures()
    assert figures.skill < -10
    assert figures.auc_pooled == pytest.approx(0.5, abs=0.1)
    assert figures.false_alarms_per_day > 100


def test_a_snapshot_changes_no_bit() -> None:
    world, card = World(3), Scorecard(PATHS)
    carded(card, world, 500, "knows")
    other = restored(card)
    for outcomes in world.run(300, "knows"):
        assert card.learn(outcomes, HORIZON_MS, ALARM) == other.learn(outcomes, HORIZON_MS, ALARM)
    assert card.figures() == other.figures()
    assert to_columns(card.save()[1]) == to_columns(other.save()[1])


def test_a_path_that_is_renumbered_keeps_its_record_and_one_that_goes_takes_its_own_along() -> None:
    card = Scorecard(PATHS)
    carded(card, World(4), 400, "knows")
    before = card.figures()
    card.renumber({0: 2, 1: 0}, 4)
    after = card.figures()
    assert after.skill == before.skill, "what was proven stays proven"
    assert sum(c for *_, c in after.calibration) < sum(c for *_, c in before.calibration)
    card.learn(Outcomes(T0, T0, np.array([3]), np.array([0.5]), np.array([0.1]), np.array([True])), HORIZON_MS, ALARM)


def test_what_is_recent_is_forgotten_and_the_long_run_is_not() -> None:
    card, world = Scorecard(PATHS), World(5)
    carded(card, world, DAY // 4, "noise")
    list(world.run(BLOCK_HORIZONS * HORIZON_MS // EVERY_MS, "knows"))  # a gap, so that no block has both
    card.begin_anew()
    assert card.hits == card.blocks == 0
    carded(card, world, 1, "knows")
    card.begin_anew()
    carded(card, world, DAY // 4, "knows")
    assert card.figures().skill > 0
    assert card.skill_low < 0, "a month counts too"


@given(st.lists(st.floats(1e-12, 1 - 1e-12), min_size=1, max_size=50))
def test_bins_keep_the_order_of_probabilities(p: list[float]) -> None:
    place = bins(np.sort(np.array(p)))
    assert (np.diff(place) >= 0).all()
    assert place.min() >= 0


def test_an_auc_within_paths_does_not_see_that_paths_differ() -> None:
    missed, hit = np.zeros((2, 4)), np.zeros((2, 4))
    missed[0, 0], hit[0, 0], missed[1, 3], hit[1, 3] = 100, 1, 1, 100
    assert auc(missed, hit) == 0.5
    assert auc(missed.sum(axis=0), hit.sum(axis=0)) > 0.9
    assert np.isnan(auc(missed, np.zeros((2, 4))))


# -- alarms


def alarmed(*said: tuple[float | None, bool]) -> Alarmed:
    """One path; None: not predicted, for it is disrupted."""
    alarms, found = Alarms(1), Alarmed()
    for number, (p, hit) in enumerate(said):
        some = [] if p is None else [p]
        at_ms = T0 + number * EVERY_MS
        outcomes = Outcomes(
            at_ms, at_ms, np.arange(len(some)), np.array(some), np.array(some), np.array([hit] * len(some), bool)
        )
        now = alarms.learn(outcomes, ALARM)
        found = Alarmed(*(a + b for a, b in zip(found, now, strict=True)))
    return found


def test_an_alarm_before_a_disruption_has_a_lead() -> None:
    said = [(0.01, False), (0.3, False), (0.6, True), (0.7, True), (0.8, True), (None, False), (0.01, False)]
    assert alarmed(*said) == Alarmed(false=0, disruptions=1, foretold=1, lead_ms=3 * EVERY_MS)


def test_a_disruption_without_an_alarm_was_not_foretold() -> None:
    assert alarmed((0.01, True), (0.02, True), (None, False)) == Alarmed(disruptions=1)


def test_a_probability_that_wavers_about_the_threshold_is_one_false_alarm() -> None:
    assert alarmed((0.3, False), (0.2, False), (0.3, False), (0.2, False), (0.1, False)) == Alarmed(false=1)


def test_an_alarm_of_a_path_that_vanishes_without_a_disruption_was_false() -> None:
    assert alarmed((0.3, False), (None, False)) == Alarmed(false=1)


# -- the yardstick


def test_climatology_says_of_an_unknown_path_what_all_do_and_of_a_known_one_its_own() -> None:
    climatology = Climatology(3)
    assert climatology.rates() == pytest.approx(0.01)
    for _ in range(2000):
        climatology.learn(np.array([0, 1]), np.array([True, False]))
    often, never, unknown = climatology.rates()
    assert often > 0.95
    assert never < 0.03
    assert unknown == pytest.approx(0.5, abs=0.02)
    kept = climatology.renumber({0: 1}, 2)
    assert (kept.labels[1], kept.hits[1], kept.labels[0]) == (2000, 2000, 0)
