"""Utilities and the network weight: anchored, monotone, bounded, and no liar outvotes a measurement."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.records import Array, Policy
from streams.core.baseline import baseline_weights, great_circle_km
from streams.core.weights import METRICS
from tests.streams.core.policy import STATED
from tests.streams.core.weighing import impairment, shares

POLICY = replace(STATED, latency_bad_ms=600.0, loss_good_ratio=0.002, loss_bad_ratio=0.3)
FLOOR = math.log(POLICY.utility_floor)
ANCHORS: Final = {
    "latency_ms": (POLICY.latency_good_ms, POLICY.latency_bad_ms),
    "loss_ratio": (POLICY.loss_good_ratio, POLICY.loss_bad_ratio),
    "delay_variation_ms": (POLICY.delay_variation_good_ms, POLICY.delay_variation_bad_ms),
    "bandwidth_bps": (POLICY.bandwidth_good_bps, POLICY.bandwidth_bad_bps),
}
EXPONENTS: Final = {
    "latency_ms": POLICY.latency_exponent,
    "loss_ratio": POLICY.loss_exponent,
    "delay_variation_ms": POLICY.delay_variation_exponent,
    "bandwidth_bps": POLICY.bandwidth_exponent,
}
VALUES: Final = {
    "latency_ms": st.floats(0, 65_536),
    "loss_ratio": st.floats(0, 1),
    "delay_variation_ms": st.floats(0, 65_536),
    "bandwidth_bps": st.floats(0, 1e15),
}
_METRIC = st.sampled_from(METRICS)
NAN = float("nan")
_ROUNDING = 1e-12


def utility(metric: str, value: float, policy: Policy = POLICY) -> float:
    return float(impairment(metric, np.array([value]), policy)[0]) * math.log(policy.utility_floor)


def optional(metric: str) -> st.SearchStrategy[float]:
    return st.one_of(st.just(NAN), VALUES[metric])


_PATH = st.fixed_dictionaries({m: optional(m) for m in METRICS})
_CONFIDENCE = st.floats(0, 1)


def contributions(
    measured: dict[str, float], injected: dict[str, float] | None = None, confidence: float = 1.0
) -> dict[str, float]:
    """Of one path."""
    columns: list[dict[str, Array]] = [
        {m: np.array([given_values.get(m, NAN)]) for m in METRICS} for given_values in (measured, injected or {})
    ]
    found = shares(columns[0], columns[1], np.array([confidence]), POLICY)
    return {name: float(value[0]) for name, value in found.items()}


def log_network(measured: dict[str, float], injected: dict[str, float] | None = None, confidence: float = 1.0) -> float:
    return sum(contributions(measured, injected, confidence).values())


@pytest.mark.parametrize("metric", METRICS)
def test_good_is_1_and_bad_is_the_floor_and_beyond_them_nothing_changes(metric: str) -> None:
    good, bad = ANCHORS[metric]
    better, worse = (good * 10, bad / 10) if metric == "bandwidth_bps" else (good / 10, bad * 10)
    assert utility(metric, good) == utility(metric, better) == 0
    assert utility(metric, bad) == utility(metric, worse) == pytest.approx(FLOOR)


@pytest.mark.parametrize("metric", METRICS)
def test_half_way_is_half_of_the_logarithm_in_ratios_but_for_loss(metric: str) -> None:
    good, bad = ANCHORS[metric]
    half = (good + bad) / 2 if metric == "loss_ratio" else math.sqrt(good * bad)
    assert utility(metric, half) == pytest.approx(FLOOR / 2)


def test_units_are_those_of_the_names() -> None:
    """20 ms and 4 Gbit/s are good, 600 ms, 30 % and 0.1 Gbit/s are bad: none in seconds, per cent or bytes."""
    assert utility("latency_ms", 20) == utility("bandwidth_bps", 4e9) == utility("loss_ratio", 0.002) == 0
    assert utility("latency_ms", 0.6) == 0
    assert utility("latency_ms", 600) == pytest.approx(FLOOR)
    assert utility("loss_ratio", 0.3) == pytest.approx(FLOOR)
    assert utility("bandwidth_bps", 1e8) == pytest.approx(FLOOR)


@pytest.mark.parametrize("metric", METRICS)
def test_what_nobody_knows_has_no_utility(metric: str) -> None:
    assert math.isnan(utility(metric, NAN))


@given(_METRIC, st.data())
def test_higher_latency_loss_or_variation_never_raises_a_utility_and_higher_bandwidth_never_lowers_it(
    metric: str, data: st.DataObject
) -> None:
    low, high = sorted(data.draw(st.tuples(VALUES[metric], VALUES[metric])))
    worse, better = (low, high) if metric == "bandwidth_bps" else (high, low)
    assert FLOOR <= utility(metric, worse) <= utility(metric, better) <= 0


@given(_PATH, _PATH, _CONFIDENCE, _METRIC, st.data())
def test_the_network_weight_is_monotone_in_each_metric_measured_or_injected(
    measured: dict[str, float], injected: dict[str, float], confidence: float, metric: str, data: st.DataObject
) -> None:
    low, high = sorted(data.draw(st.tuples(VALUES[metric], VALUES[metric])))
    worse, better = ({metric: low}, {metric: high}) if metric == "bandwidth_bps" else ({metric: high}, {metric: low})
    for one, other in (
        (log_network(measured | worse, injected, confidence), log_network(measured | better, injected, confidence)),
        (log_network(measured, injected | worse, confidence), log_network(measured, injected | better, confidence)),
    ):
        assert one <= other + _ROUNDING


@given(_PATH, _PATH, _CONFIDENCE)
def test_the_network_weight_is_above_0_and_1_at_most_and_no_share_is_a_bonus(
    measured: dict[str, float], injected: dict[str, float], confidence: float
) -> None:
    shares = contributions(measured, injected, confidence)
    assert list(shares) == [*METRICS, "uncertainty", "injected"]
    assert all(share <= 0 for name, share in shares.items() if name != "injected")
    assert sum(shares.values()) >= FLOOR - _ROUNDING
    assert 0 < math.exp(sum(shares.values())) <= 1 + _ROUNDING


@given(_PATH, _METRIC)
def test_a_metric_that_nobody_knows_is_left_out_of_the_mean(path: dict[str, float], metric: str) -> None:
    assert contributions(path | {metric: NAN})[metric] == 0
    others = {m: v for m, v in path.items() if m != metric and not math.isnan(v)}
    if others:
        known = sum(EXPONENTS[m] for m in others)
        mean = sum(EXPONENTS[m] * utility(m, v) for m, v in others.items()) / known
        assert log_network(path | {metric: NAN}) == pytest.approx(mean)


@given(_PATH, st.floats(0, 1))
def test_what_confidence_lacks_is_filled_with_pessimism(path: dict[str, float], confidence: float) -> None:
    assume(any(not math.isnan(v) for v in path.values()))
    pessimistic = math.log(POLICY.pessimistic_utility)
    mixed = confidence * log_network(path) + (1 - confidence) * pessimistic
    assert log_network(path, confidence=confidence) == pytest.approx(mixed)
    assert contributions(path, confidence=confidence)["uncertainty"] == pytest.approx((1 - confidence) * pessimistic)


def test_a_path_of_which_nothing_is_known_has_the_pessimistic_weight() -> None:
    assert math.exp(log_network({})) == pytest.approx(POLICY.pessimistic_utility)


@given(_METRIC, st.data(), _PATH)
def test_what_is_injected_shifts_less_than_the_same_values_measured(
    metric: str, data: st.DataObject, path: dict[str, float]
) -> None:
    one, other, kept = data.draw(st.tuples(VALUES[metric], VALUES[metric], VALUES[metric]))

    def shift(of_measured: bool) -> float:
        told = [log_network(path | {metric: v}, {metric: kept}) for v in (one, other)]
        lied = [log_network(path | {metric: kept}, {metric: v}) for v in (one, other)]
        return abs(told[0] - told[1]) if of_measured else abs(lied[0] - lied[1])

    assert shift(of_measured=False) <= 9 / 11 * shift(of_measured=True) + _ROUNDING


@given(_METRIC, st.data(), _PATH)
def test_a_liar_moves_a_measured_path_by_less_than_half_of_what_the_metric_can_cost(
    metric: str, data: st.DataObject, path: dict[str, float]
) -> None:
    known = path | {metric: data.draw(VALUES[metric])}
    total = sum(EXPONENTS[m] for m, v in known.items() if not math.isnan(v))
    moved = log_network(known, {metric: data.draw(VALUES[metric])}) - log_network(known)
    assert abs(moved) <= 0.45 * -FLOOR * EXPONENTS[metric] / total + _ROUNDING


@given(_METRIC, st.data())
def test_between_two_measured_paths_an_honest_anchor_apart_no_lie_about_one_metric_turns_them_round(
    metric: str, data: st.DataObject
) -> None:
    """Measured good beside measured bad: the worst lie about the good and the best about the bad leave their order."""
    good, bad = ANCHORS[metric]
    lie = data.draw(st.tuples(VALUES[metric], VALUES[metric]))
    assert log_network({metric: good}, {metric: lie[0]}) > log_network({metric: bad}, {metric: lie[1]})


@given(st.lists(st.tuples(_PATH, _PATH, _CONFIDENCE), min_size=2, max_size=12))
def test_each_path_is_weighed_as_if_it_were_alone(
    paths: list[tuple[dict[str, float], dict[str, float], float]],
) -> None:
    together = shares(
        {m: np.array([p[0][m] for p in paths]) for m in METRICS},
        {m: np.array([p[1][m] for p in paths]) for m in METRICS},
        np.array([p[2] for p in paths]),
        POLICY,
    )
    for i, (measured, injected, confidence) in enumerate(paths):
        alone = contributions(measured, injected, confidence)
        assert {name: value[i] for name, value in together.items()} == pytest.approx(alone, rel=1e-12, abs=1e-15)


def test_exponents_of_0_leave_a_metric_out() -> None:
    policy = replace(POLICY, latency_exponent=0.0)
    fast, slow = np.array([1.0]), np.array([600.0])
    unknown = {m: np.array([NAN]) for m in METRICS}
    weights = [
        sum(float(s[0]) for s in shares(unknown | {"latency_ms": v}, unknown, np.array([1.0]), policy).values())
        for v in (fast, slow)
    ]
    assert weights[0] == weights[1] == math.log(POLICY.pessimistic_utility)


_LATITUDE, _LONGITUDE = st.floats(-90, 90), st.floats(-180, 180)


def test_great_circles_are_those_of_the_earth() -> None:
    frankfurt, virginia, singapore = (50.1109, 8.6821), (38.9586, -77.3570), (1.3521, 103.8198)
    found = great_circle_km(*frankfurt, *np.array([virginia, singapore, frankfurt]).T)
    assert found == pytest.approx([6_540, 10_260, 0], rel=0.005, abs=0.01)
    assert great_circle_km(0, 0, np.array([0.0]), np.array([180.0])) == pytest.approx(20_015, rel=1e-3)


@given(_LATITUDE, _LONGITUDE, _LATITUDE, _LONGITUDE)
def test_a_distance_is_the_same_both_ways_and_half_round_the_earth_at_most(
    lat_1: float, lon_1: float, lat_2: float, lon_2: float
) -> None:
    there = great_circle_km(lat_1, lon_1, np.array([lat_2]), np.array([lon_2]))[0]
    back = great_circle_km(lat_2, lon_2, np.array([lat_1]), np.array([lon_1]))[0]
    assert 0 <= there <= 20_016
    assert there == pytest.approx(back, rel=1e-6, abs=1e-6)


_DISTANCE, _CAPACITY = st.floats(0, 20_020), st.floats(1e-6, 1)


@given(_DISTANCE, _DISTANCE, _CAPACITY, _CAPACITY)
def test_nearer_or_larger_never_weighs_less_before_anything_is_measured(
    km_1: float, km_2: float, capacity_1: float, capacity_2: float
) -> None:
    near, far = sorted((km_1, km_2))
    small, large = sorted((capacity_1, capacity_2))
    best, *others = baseline_weights(np.array([near, far, near]), np.array([large, large, small]), 4000.0)
    assert all(1e-6 <= weight <= best <= 1 for weight in others)


def test_at_the_scale_proximity_is_half() -> None:
    assert baseline_weights(np.array([4000.0]), np.array([0.5]), 4000.0) == pytest.approx([0.25])
