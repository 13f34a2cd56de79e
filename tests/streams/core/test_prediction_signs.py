"""Signs of a disruption, one by one: what each says, of whom, and when it is over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Array
from streams.core.prediction_signs import BELIEFS, Signs
from streams.core.state import from_columns, from_scalars, to_columns, to_scalars
from tests.streams.core.policy import STATED
from tests.streams.core.test_prediction import CALM, UNMEASURED, Seen, metrics

T0 = 1_700_006_400_000  # midnight
HORIZON_MS = STATED.prediction_horizon_ms
HOUR_MS = 3_600_000
NAMES = list(BELIEFS)
A_ONLY = np.array([True, False, False])


def rows(signs: Signs, now_ms: int, *seen: Seen) -> dict[str, Array]:
    """(targets,) of each sign."""
    found = signs.rows(metrics(list(seen)), np.array([s is not UNMEASURED for s in seen]), STATED, now_ms)
    assert found.shape == (len(seen), len(NAMES))
    return dict(zip(NAMES, found.T, strict=True))


def calm(signs: Signs, now_ms: int) -> dict[str, Array]:
    return rows(signs, now_ms, CALM, CALM, CALM)


def test_a_path_that_shows_nothing_has_next_to_no_signs() -> None:
    found = calm(Signs(3), T0)
    # Silence and variation are shares of what would be a disruption.
    assert {n for n, v in found.items() if v[0] > 0} == {"usual", "silence", "variation"}
    assert found["usual"].tolist() == [1, 1, 1]
    assert found["silence"][0] == pytest.approx(0.03)


def test_a_path_that_is_not_measured_has_none_and_keeps_its_past() -> None:
    signs = Signs(2)
    high = replace(CALM, latency_ms=25.0)
    rows(signs, T0, high, high)
    found = rows(signs, T0 + HOUR_MS, UNMEASURED, CALM)
    assert np.isnan([v[0] for v in found.values()]).all()
    after = rows(signs, T0 + 2 * HOUR_MS, CALM, CALM)
    assert after["deviation"][0] > after["deviation"][1]


def test_disruptions_count_for_the_path_at_once_and_for_its_neighbours_less_and_fade() -> None:
    signs = Signs(3)
    before = calm(signs, T0)
    signs.begun(A_ONLY, STATED, T0 + 1000)
    after = calm(signs, T0 + 1000)
    assert after["recent"].tolist() == pytest.approx([np.log1p(1 / 0.3), 0, 0])
    assert after["others"][0] == before["others"][0]
    assert after["others"][1] > before["others"][1]
    later = calm(signs, T0 + 10 * HORIZON_MS)
    assert later["recent"][0] == pytest.approx(np.log1p(np.exp(-1) / 0.3), rel=0.05)
    assert later["past"][0] > 0.9 * after["past"][0]
    assert later["others"][1] < after["others"][1]


def test_an_hour_is_remembered_from_the_next_day_on_for_days() -> None:
    signs = Signs(3)
    at_ms = T0 + 9 * HOUR_MS
    signs.begun(A_ONLY, STATED, at_ms)
    hours = {after: calm(signs, at_ms + after * HOUR_MS)["hour"] for after in (0, 6, 13, 20, 24, 30, 48)}
    assert [after for after, of in hours.items() if of[0] > 0] == [24, 48]
    assert hours[24][0] > hours[48][0] > 0
    assert all(of[1:].tolist() == [0, 0] for of in hours.values())


def test_latency_that_rises_and_one_that_falls_both_deviate_and_only_one_comes_nearer_to_a_disruption() -> None:
    found = rows(Signs(2), T0, replace(CALM, latency_ms=22.0), replace(CALM, latency_ms=20 / 1.1))
    assert found["shock"][0] == pytest.approx(found["shock"][1])
    assert found["rise"].tolist() == pytest.approx([np.log(1.1) / np.log(STATED.disruption_latency_ratio), 0])


def test_a_route_that_changes_is_a_sign_of_its_target_for_minutes() -> None:
    signs = Signs(3)
    signs.route_changed([1], STATED, T0)
    assert calm(signs, T0)["route"].tolist() == pytest.approx([0, np.log(2), 0])
    assert calm(signs, T0 + 60 * HORIZON_MS)["route"][1] < 0.001


def test_a_policy_that_makes_anything_a_disruption_breaks_nothing() -> None:
    nothing = replace(STATED, disruption_latency_ratio=0.0, disruption_loss_ratio=0.0, disruption_latency_excess_ms=0.0)
    found = Signs(1).rows(metrics([replace(CALM, latency_ms=60_000.0)]), np.ones(1, bool), nothing, T0)
    assert np.isfinite(found).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_restart_and_other_numbers_change_no_bit(seed: int) -> None:
    random = np.random.default_rng(seed)
    signs, now_ms = Signs(3), T0
    for _ in range(40):
        now_ms += int(random.choice([1000, 10_000, HOUR_MS]))
        if random.random() < 0.5:
            signs.begun(random.random(3) < 0.3, STATED, now_ms)
        rows(signs, now_ms, *(replace(CALM, latency_ms=20 + 9 * random.random()) for _ in range(3)))
    scalars, arrays = signs.save()
    again = Signs.load(from_scalars(to_scalars(scalars)), from_columns(to_columns(arrays)))
    turned = again.renumber({0: 2, 1: 0, 2: 1}, 3)
    for later_ms in range(now_ms, now_ms + 4 * HOUR_MS, HOUR_MS // 2):
        one = calm(signs, later_ms)
        for name, other in calm(again, later_ms).items():
            assert other.tolist() == one[name].tolist()
        for name, other in calm(turned, later_ms).items():
            assert other[[2, 0, 1]] == pytest.approx(one[name])


def test_the_brink_is_where_losses_began_before_and_half_of_the_way_says_nothing() -> None:
    signs, ms = Signs(3), CALM.latency_ms
    full, half = replace(CALM, latency_ms=2 * ms), replace(CALM, latency_ms=2**0.5 * ms)
    for minute in range(30):
        assert calm(signs, T0 + 60_000 * minute)["brink"].tolist() == [0, 0, 0]
    signs.overflowed(A_ONLY, np.array([2 * ms, 2 * ms, ms]))
    near = rows(signs, T0 + 1_801_000, full, full, CALM)["brink"]
    assert 0.5 < near[0] < 1.0  # the base has come a little nearer
    assert near[1:].tolist() == [0, 0]
    assert rows(signs, T0 + 1_802_000, half, CALM, CALM)["brink"][0] < 0.05


def test_losses_without_a_queue_teach_no_brink() -> None:
    signs = Signs(3)
    for minute in range(30):
        calm(signs, T0 + 60_000 * minute)
    signs.overflowed(A_ONLY, np.array([CALM.latency_ms] * 3))
    assert rows(signs, T0 + 1_801_000, replace(CALM, latency_ms=40.0), CALM, CALM)["brink"].tolist() == [0, 0, 0]
