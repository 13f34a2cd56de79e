"""Files in which a person marked what happened: what is read, what counts, and that nobody looks ahead."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import TraceError
from streams.labelled import (
    HORIZON_STEPS,
    SKIP_STEPS,
    Labelled,
    Predicted,
    influence,
    policy_of,
    predict,
    read_labelled,
    scores,
)

ROOT = Path(__file__).parents[2]
WEEK = ROOT / "producers/data/labelled_rtt/ripe_atlas_2016-10-18_2016-10-25.csv.gz"
GOOD = (
    "probe,at_utc,rtt_ms,change_point\n"
    "7,2016-10-18T00:01:00,10.5,0\n7,2016-10-18T00:05:00,,1\n9,2016-10-18T00:00:30,20,0\n9,2016-10-18T00:04:29,21,0\n"
)
STEP_MS = 240_000


def said(path: Path) -> str:
    with pytest.raises(TraceError) as raised:
        read_labelled(path)
    return str(raised.value)


def a_week(seed: int, steps: int = 300, probes: int = 3) -> Labelled:
    """Levels that change at random, often soon after they did; a probe that begins late, one that ends early."""
    random = np.random.default_rng(seed)
    begun = random.random((steps, probes)) < 0.02
    begun[6:] |= begun[:-6] & (random.random((steps - 6, probes)) < 0.3)
    rtt_ms = 100 + 10 * (np.cumsum(begun, axis=0) % 2) + random.exponential(0.5, (steps, probes))
    rtt_ms[random.random((steps, probes)) < 0.01] = np.nan
    there = np.ones((steps, probes), bool)
    there[:20, 1] = there[-10:, 2] = False
    rtt_ms[~there] = np.nan
    begun &= there
    return Labelled(tuple("abc"[:probes]), 1_476_748_800_000, STEP_MS, there, rtt_ms, begun)


def by_place(found: Predicted) -> dict[tuple[int, int], float]:
    places = zip(found.step.tolist(), found.path.tolist(), strict=True)
    return dict(zip(places, found.probability.tolist(), strict=True))


# -- reading


def test_a_file_is_put_on_a_grid_of_steps_plain_or_zipped_in_any_order(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "a.csv", tmp_path / "a.csv.gz"
    plain.write_text(GOOD)
    header, *rows = GOOD.splitlines(keepends=True)
    zipped.write_bytes(gzip.compress((header + "".join(reversed(rows))).encode()))
    found = read_labelled(plain)
    assert (found.probes, found.step_ms, found.began_ms) == (("7", "9"), 239_000, 1_476_748_830_000)
    np.testing.assert_array_equal(found.rtt_ms, [[10.5, 20], [np.nan, 21]])
    np.testing.assert_array_equal(found.begun, [[False, False], [True, False]])
    assert read_labelled(zipped).probes == ("9", "7")
    assert read_labelled(zipped).there.all()


def test_two_of_a_probe_within_one_step_become_two_steps_and_a_gap_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    times = ("00:00:00", "00:04:00", "00:08:00", "00:11:59", "00:16:00", "00:28:00")
    path.write_text("probe,at_utc,rtt_ms,change_point\n" + "".join(f"7,2016-10-18T{t},1,0\n" for t in times))
    assert read_labelled(path).there[:, 0].tolist() == [True, True, True, True, True, False, False, True]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "line 1", "header"),
        ("probe,at,rtt_ms,change_point\n", "line 1", "not 'probe,at_utc,rtt_ms,change_point'"),
        ("probe,at_utc,rtt_ms,change_point\n", "a.csv", "no line below the header"),
        (GOOD + "7,2016-10-18T00:09:00,fast,0\n", "line 6", "rtt_ms is 'fast'"),
        (GOOD + "7,2016-10-18T00:09:00,nan,0\n", "line 6", "rtt_ms is 'nan'"),
        (GOOD + "7,2016-10-18T00:09:00,-1,0\n", "line 6", "rtt_ms is '-1'"),
        (GOOD + "7,2016-10-18T00:09:00,1e9,0\n", "line 6", "rtt_ms is '1e9'"),
        (GOOD + "7,yesterday,1,0\n", "line 6", "at_utc is 'yesterday'"),
        (GOOD + "7,2016-10-18T00:09:00,1,yes\n", "line 6", "change_point is 'yes'"),
        (GOOD + "7,2016-10-18T00:05:00,1,0\n", "line 6", "probe 7 was at 2016-10-18T00:05:00 already"),
        (GOOD + ",2016-10-18T00:09:00,1,0\n", "line 6", "probe is empty"),
        (GOOD + "7,2016-10-18T00:09:00,1\n", "line 6", "3 values, not 4"),
        (GOOD + "7,9999-10-18T00:09:00,1,0\n", "a.csv", "5 lines for"),
        (GOOD + "7\xff", "a.csv", "decode"),
    ],
)
def test_a_mistake_is_said_with_its_file_and_line(tmp_path: Path, text: str, where: str, what: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("latin-1"))
    found = said(path)
    assert str(path) in found
    assert where in found
    assert what in found


# -- what counts


def test_a_probes_first_steps_do_not_count_nor_its_last_whose_horizon_is_not_over() -> None:
    week = a_week(1)
    found = predict(week)
    steps = {path: found.step[found.path == path] for path in range(3)}
    assert [(int(s.min()), int(s.max())) for s in steps.values()] == [(200, 296), (220, 296), (200, 286)]
    assert len(found.hit) == sum(week.there.sum(axis=0) - SKIP_STEPS - HORIZON_STEPS)


def test_what_came_is_whether_a_change_is_marked_within_the_next_three_steps() -> None:
    week = a_week(2)
    found = predict(week)
    for step, path, hit in zip(found.step, found.path, found.hit, strict=True):
        assert hit == week.begun[step + 1 : step + 1 + HORIZON_STEPS, path].any()
    assert found.hit.any()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(210, 290))
def test_nothing_that_comes_later_changes_what_was_said(seed: int, at: int) -> None:
    week, other = a_week(seed), a_week(seed + 1)
    mixed = replace(
        week,
        rtt_ms=np.vstack((week.rtt_ms[:at], other.rtt_ms[at:])),
        begun=np.vstack((week.begun[:at], other.begun[at:])),
    )
    before, after = by_place(predict(week)), by_place(predict(mixed))
    assert {p: v for p, v in after.items() if p[0] < at} == {p: v for p, v in before.items() if p[0] < at}
    assert before != after


def test_a_label_is_learnt_from_only_when_the_horizon_is_over() -> None:
    """The climatology, which knows labels alone, is another only three steps after."""
    week = a_week(3)
    marked = week.begun.copy()
    marked[240] = ~marked[240]
    before, after = predict(week), predict(replace(week, begun=marked))
    changed = before.step[before.climatology != after.climatology]
    assert int(changed.min()) == 240


def test_the_policy_is_the_default_one_at_another_pace() -> None:
    policy = policy_of(STEP_MS)
    assert (policy.prediction_every_ms, policy.prediction_horizon_ms) == (STEP_MS, 3 * STEP_MS)
    assert policy.slow_tau_ms / policy.fast_tau_ms == pytest.approx(140_000 / 7300)


# -- the recorded week


@pytest.fixture(scope="module")
def recorded() -> dict[str, float]:
    return scores(predict(read_labelled(WEEK)))


def test_on_the_recorded_week_predictions_are_better_than_climatology(recorded: dict[str, float]) -> None:
    assert recorded["auc_pooled"] >= 0.75
    assert recorded["auc_within"] >= 0.72
    assert recorded["skill"] > 0.01
    assert recorded["skill_low"] > 0
    assert recorded["ece"] < 0.005
    assert recorded["predictions"] == 34_804
    assert recorded["positives_ratio"] == pytest.approx(0.00925, abs=1e-5)


def test_labels_that_mean_nothing_are_not_found_to_mean_something() -> None:
    week = read_labelled(WEEK)
    random = np.random.default_rng(1)
    shuffled = np.column_stack([random.permutation(column) for column in week.begun.T])
    said = predict(replace(week, begun=shuffled))
    found = scores(said)
    assert found["auc_within"] < 0.6
    assert found["skill_low"] < 0
    assert influence(week, said) == {"influence": 0, "influence_max": 0}


def test_what_is_not_proven_does_not_count_and_what_is_does() -> None:
    week = read_labelled(WEEK)
    middle = len(week.there) // 2
    first = replace(week, there=week.there[:middle], rtt_ms=week.rtt_ms[:middle], begun=week.begun[:middle])
    said = predict(first)
    assert scores(said)["skill_low"] < 0
    assert influence(first, said)["influence"] == 0
    told = replace(week, begun=np.roll(week.begun, 5, axis=0) & week.there)  # when the level has changed already
    said = predict(told)
    assert influence(told, said)["influence"] == pytest.approx(0.1, abs=0.05)
