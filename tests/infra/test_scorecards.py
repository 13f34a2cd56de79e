"""A model's scorecard as people see it: one line in `watch` and in `explain`, whatever is known of the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from infra.explain import explain, text
from infra.scorecards import in_a_line
from infra.watch import paths
from schemas.records import PredictionScorecard
from tests.infra.test_watch import NOW_MS, P, drawn, ranking, viewed, weights
from tests.schemas.strategies import record_of

CARD = PredictionScorecard(
    primary_region=P, scored_at_ms=NOW_MS - 2000, model="m-1", horizon_ms=30_000, trust="TRUSTED", influence=0.62,
    outcomes=1000.0, hits=40.0, drifts=0, brier=0.01, brier_climatology=0.012, skill=0.2, skill_low=0.093,
    auc_pooled=0.91, auc_within=0.87, calibration_error=0.004, foretold_ratio=0.75, lead_ms=25_000.0,
    false_alarms_per_day=3.2,
)  # fmt: skip
NEW = PredictionScorecard(P, NOW_MS, "m-1", 30_000, "WARMING", 0.0, 0.0, 0.0, 0)


def test_a_trusted_model_is_told_with_its_figures() -> None:
    assert in_a_line(CARD) == (
        "Prediction by m-1: it has 62 % of its influence; skill +0.200 (surely above +0.093), AUC 0.91, 0.87 within a "
        "path, 75 % of disruptions foretold 25 s before, 3.2 false alarms a day."
    )


def test_of_a_new_model_it_is_said_that_nothing_is_known() -> None:
    assert in_a_line(NEW) == "Prediction by m-1: too little is known of it yet, so it has no influence."
    assert "not surely better" in in_a_line(replace(NEW, trust="SHADOW"))


@settings(max_examples=50)
@given(record_of("PredictionScorecard"))
def test_whatever_a_card_says_it_is_one_line(card: PredictionScorecard) -> None:
    assert len(in_a_line(card).splitlines()) == 1


def test_watch_shows_the_latest_below_the_paths() -> None:
    view = viewed(ranking(1), weights(), CARD, replace(NEW, scored_at_ms=NOW_MS - 3000))
    assert "skill +0.200" in " ".join(drawn(paths(view, P, NOW_MS)).split())


@pytest.mark.parametrize("width", [60, 100])
def test_explain_says_it_and_hands_it_over_as_data(width: int) -> None:
    found = explain(ranking(1), weights(), NOW_MS, CARD)
    shown = text(found, width)
    assert "62 % of its influence" in " ".join(shown.split())
    assert all(len(line) <= width for line in shown.splitlines())
    assert found.facts()["scorecard"]["skill"] == 0.2
    assert explain(ranking(1), weights(), NOW_MS).facts()["scorecard"] is None
