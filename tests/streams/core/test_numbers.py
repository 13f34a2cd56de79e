"""Rounding and bounds: what is compared and published, and what so few probes prove."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.numbers import normal_cdf, proven_share, significant

_POSITIVE = st.floats(1e-290, 1e300)
_FINITE = st.one_of(st.just(0.0), _POSITIVE, _POSITIVE.map(lambda x: -x))
_COUNT = st.floats(0, 1e9)
_Z = 1.645  # one-sided 95 %


def share(failed: float, sent: float, z: float = _Z) -> float:
    return float(proven_share(np.array([failed]), np.array([sent]), z)[0])


@given(_FINITE)
def test_rounding_is_to_six_digits_and_a_second_time_changes_nothing(value: float) -> None:
    rounded = float(significant(value))
    assert abs(rounded - value) <= 5.000001e-6 * abs(value)
    assert float(significant(rounded)) == rounded
    assert rounded == pytest.approx(float(f"{rounded:.5e}"), rel=1e-15, abs=0)


@given(_FINITE, _FINITE)
def test_rounding_never_turns_an_order_round(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert significant(low) <= significant(high)


@given(_FINITE)
def test_rounding_treats_both_signs_alike(value: float) -> None:
    assert significant(-value) == -significant(value)


@given(_POSITIVE, st.integers(-3, 3))
def test_a_last_bit_that_differs_between_processors_is_rounded_away_unless_it_lies_at_a_half(
    value: float, bits: int
) -> None:
    other = value
    for _ in range(abs(bits)):
        other = math.nextafter(other, math.inf * bits)
    sixth_digit = 10.0 ** (math.floor(math.log10(value)) - 5)
    into = value / sixth_digit % 1
    if abs(into - 0.5) > 1e-6:
        assert significant(value) == significant(other)


def test_zero_nan_and_infinities_stay_as_they_are() -> None:
    given_values = np.array([0.0, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(significant(given_values), given_values)


@given(st.floats(0, 1e-290))
def test_what_has_faded_to_next_to_nothing_stays_a_number(value: float) -> None:
    # exp(-age / tau) passes through here on its way to 0: a path that is silent for six hours.
    assert 0 <= significant(value) <= 1e-290 * 1.00001


@given(_COUNT, _COUNT)
def test_the_share_of_losses_that_is_proven_lies_between_0_and_the_share_that_was_seen(a: float, b: float) -> None:
    failed, sent = sorted((a, b))
    if sent > 0:
        assert 0 <= share(failed, sent) <= failed / sent * (1 + 1e-12)


@given(_COUNT, _COUNT, _COUNT)
def test_more_losses_among_as_many_probes_never_prove_less(a: float, b: float, c: float) -> None:
    fewer, more, sent = sorted((a, b, c))
    if sent > 0:
        assert share(fewer, sent) <= share(more, sent) + 1e-12


@given(st.floats(0, 1), st.floats(1e-6, 1e6), st.floats(1, 1e3))
def test_the_same_share_among_more_probes_never_proves_less(ratio: float, sent: float, times: float) -> None:
    assert share(ratio * sent, sent) <= share(ratio * sent * times, sent * times) + 1e-12


def test_one_lost_probe_proves_next_to_no_loss_and_a_hundred_prove_it() -> None:
    assert share(1, 20) < 0.012
    assert share(1, 60) < 0.004
    assert share(1, 1) < 0.28
    assert 0.37 < share(400, 1000) < 0.4
    assert share(0, 20) == 0
    assert math.isnan(share(0, 0))


@given(st.floats(1e-320, 1e-3))
def test_counts_that_have_faded_prove_nothing_and_break_nothing(faded: float) -> None:
    # Half an hour in which the agent could send nothing: the fast window's counts are 1e-260.
    assert share(faded, faded) <= faded


@given(_COUNT, _COUNT, st.floats(0, 5), st.floats(0, 5))
def test_what_has_to_be_proven_more_surely_is_never_proven_more(a: float, b: float, z_1: float, z_2: float) -> None:
    failed, sent = sorted((a, b))
    surer, less_sure = max(z_1, z_2), min(z_1, z_2)
    if sent > 0:
        assert share(failed, sent, surer) <= share(failed, sent, less_sure) + 1e-12


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=5))
def test_the_normal_distribution_is_symmetric_and_grows(values: list[float]) -> None:
    x = np.array(values)
    assert normal_cdf(x) + normal_cdf(-x) == pytest.approx(np.ones(len(x)))
    assert (normal_cdf(x) <= normal_cdf(x + 0.1)).all()


def test_the_normal_distributions_quantiles_are_those_of_the_tables() -> None:
    assert normal_cdf(np.array([0.0, 1.645, -1.96])) == pytest.approx([0.5, 0.95, 0.025], abs=1e-4)
