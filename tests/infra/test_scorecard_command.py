"""`proxima scorecard` as people run it: numbers, and mistakes in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

from streams.labelled import influence, predict, read_labelled, scores
from tests.infra.commands import fails, succeeds
from tests.streams.test_labelled import WEEK

FIELDS = [
    "auc_pooled", "auc_within", "brier", "brier_climatology", "skill", "skill_low", "ece", "positives_ratio",
    "predictions", "influence", "influence_max",
]  # fmt: skip
SHORT = "probe,at_utc,rtt_ms,change_point\n7,2016-10-18T00:01:00,10.5,0\n7,2016-10-18T00:05:00,,1\n"


def test_it_prints_the_figures_of_a_recorded_week() -> None:
    found = json.loads(succeeds("scorecard", WEEK, "--json"))
    assert list(found) == FIELDS
    week = read_labelled(WEEK)
    said = predict(week)
    expected = {**scores(said), **influence(week, said)}
    assert all(math.isclose(found[name], expected[name], abs_tol=1e-6) for name in FIELDS)
    assert found["skill"] > 0


def test_it_says_each_figure_in_words() -> None:
    lines = succeeds("scorecard", WEEK).splitlines()
    assert [line.split()[0] for line in lines] == FIELDS
    assert "climatology" in lines[3]


def test_of_too_little_nothing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "short.csv"
    path.write_text(SHORT)
    found = json.loads(succeeds("scorecard", path, "--json"))
    assert found == {**dict.fromkeys(FIELDS), "predictions": 0, "influence": 0, "influence_max": 0}
    assert "unknown" in succeeds("scorecard", path)


def test_a_bad_file_is_one_error_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(SHORT + "7,2016-10-18T00:09:00,fast,0\n")
    said = fails(1, "scorecard", path)
    assert len(said.splitlines()) == 1
    assert f"{path}, line 4" in said
    assert "rtt_ms is 'fast'" in said


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.csv") in fails(1, "scorecard", tmp_path / "none.csv")
