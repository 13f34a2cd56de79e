"""What arrivals of a train say: the link's rate, whatever a bucket, a queue or a relay's hiccup did to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.probes.budget import HOUR_S, HourlyBudget
from producers.probes.trains import HEADER, MAGIC, Kind, Train, judge, report_of, slope

BITS = 1428 * 8
LINE_BPS = 1e9


def arrived(
    packets: int, rate_bps: float, *, bucket: int = 0, lost_before: int = 0, lost_behind: frozenset[int] = frozenset()
) -> Train:
    """As a perfect link delivers: `bucket` packets at line rate, the last `lost_before` dropped by a full queue."""
    gaps_s = np.where(np.arange(packets) < bucket, BITS / LINE_BPS, BITS / rate_bps)
    gaps_s[0] = 0
    at_ns = np.cumsum(gaps_s) * 1e9
    kept = [i for i in range(packets - lost_before) if i not in lost_behind]
    return Train(packets, BITS, LINE_BPS, np.array(kept, dtype=float), at_ns[kept] - at_ns[kept[0]])


rates = st.floats(1e5, 5e8)


@given(rates, st.integers(24, 200))
def test_an_undisturbed_train_says_the_links_rate(rate_bps: float, packets: int) -> None:
    found = slope(arrived(packets, rate_bps))
    assert found is not None
    assert found.bps == pytest.approx(rate_bps, rel=1e-3)
    assert found.uncertainty_ratio < 0.01


@given(rates, st.integers(0, 30))
def test_a_bucket_of_half_the_train_does_not_hide_the_rate(rate_bps: float, bucket: int) -> None:
    found = slope(arrived(72, rate_bps, bucket=bucket))
    assert found is not None
    assert found.bps == pytest.approx(rate_bps, rel=0.06)


@given(rates, st.integers(1, 50))
def test_what_a_full_queue_drops_leaves_no_gap(rate_bps: float, lost: int) -> None:
    found = slope(arrived(72, rate_bps, lost_before=lost))
    assert found is not None
    assert found.bps == pytest.approx(rate_bps, rel=1e-3)


@given(rates, st.frozensets(st.integers(1, 71), max_size=20))
def test_what_is_lost_behind_the_narrow_link_is_no_slower_link(rate_bps: float, lost: frozenset[int]) -> None:
    found = slope(arrived(72, rate_bps, lost_behind=lost))
    assert found is not None
    assert found.bps == pytest.approx(rate_bps, rel=1e-3)


@given(rates, st.integers(0, 60))
def test_one_hiccup_of_a_relay_moves_nothing(rate_bps: float, at: int) -> None:
    train = arrived(72, rate_bps)
    train.arrived_ns[at : at + 6] = train.arrived_ns[at + 6]  # six that waited for the seventh's moment
    found = slope(train)
    assert found is not None
    assert found.bps == pytest.approx(rate_bps, rel=0.02)


def test_two_trains_that_agree_have_settled_and_one_that_a_hiccup_spoiled_is_outvoted() -> None:
    assert judge([arrived(20, 1e7)])[1] is False
    found, settled = judge([arrived(20, 1e7), arrived(30, 1e7)])
    assert settled
    assert found is not None
    assert found.bps == pytest.approx(1e7, rel=1e-3)
    assert judge([arrived(20, 1e7), arrived(30, 2e7)])[1] is False
    found, settled = judge([arrived(20, 1e7), arrived(30, 2e7), arrived(45, 1.05e7)])
    assert settled
    assert found is not None
    assert found.bps == pytest.approx(1.05e7, rel=1e-3)
    assert found.uncertainty_ratio == pytest.approx(0.025, rel=0.1)


def test_a_bucket_larger_than_the_first_train_is_not_settled_by_that() -> None:
    assert judge([arrived(20, 1e7, bucket=20), arrived(30, 1e7, bucket=30)])[1] is False
    found, settled = judge([arrived(20, 1e7, bucket=20), arrived(30, 1e7, bucket=30), arrived(45, 1e7, bucket=10)])
    assert not settled
    assert found is not None
    assert found.bps == pytest.approx(1e7, rel=0.01)
    assert found.uncertainty_ratio >= 0.05


def test_what_came_as_fast_as_it_was_sent_met_no_narrow_link() -> None:
    found, settled = judge([arrived(20, LINE_BPS), arrived(30, LINE_BPS)])
    assert not settled
    assert found is not None
    assert found.uncertainty_ratio == 1.0


def test_a_train_that_somebody_held_up_as_a_whole_does_not_outvote_the_others() -> None:
    found, settled = judge([arrived(20, 1e7), arrived(30, 1.3e7), arrived(45, LINE_BPS)])
    assert not settled
    assert found is not None
    assert found.bps == pytest.approx(1.3e7, rel=0.01)
    assert 0.1 < found.uncertainty_ratio < 0.2
    found, _ = judge([arrived(20, 1e7), arrived(30, 0.7e7), arrived(45, 1.3e7)])
    assert found is not None
    assert found.bps == pytest.approx(1e7, rel=0.01)
    assert found.uncertainty_ratio == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize("arrivals", [0, 1, 7])
def test_too_few_arrivals_say_nothing(arrivals: int) -> None:
    assert judge([arrived(24, 1e7, lost_before=24 - arrivals)] if arrivals else []) == (None, False)


def test_all_at_the_same_moment_say_nothing() -> None:
    assert slope(Train(24, BITS, LINE_BPS, np.arange(24.0), np.zeros(24))) is None


@given(st.binary(max_size=2000))
def test_a_report_of_any_bytes_is_read_or_is_none(body: bytes) -> None:
    found = report_of(HEADER.pack(MAGIC, Kind.REPORT, b"12345678") + body)
    if found is not None:
        _, index, at_ns = found
        assert len(index) == len(at_ns) == len(set(index.tolist()))
        assert (np.diff(at_ns) >= 0).all()
        if len(index):
            judge([Train(24, BITS, LINE_BPS, index, at_ns)])


@given(st.lists(st.tuples(st.floats(0, 900), st.integers(0, 500)), max_size=60))
def test_nobody_spends_more_than_the_budget_within_any_hour(steps: list[tuple[float, int]]) -> None:
    now_s = 0.0
    budget = HourlyBudget(1000, lambda: now_s)
    spent: list[tuple[float, int]] = []
    for pause_s, wanted in steps:
        now_s += pause_s
        if budget.left("a") >= wanted:
            budget.spend("a", wanted)
            spent.append((now_s, wanted))
        assert sum(s for at_s, s in spent if at_s > now_s - HOUR_S) <= 1000
        assert budget.left("b") == 1000


def test_a_budget_comes_back_after_an_hour() -> None:
    now_s = 0.0
    budget = HourlyBudget(1000, lambda: now_s)
    budget.spend("a", 1000)
    assert budget.left("a") == 0
    now_s = HOUR_S * 1.02
    assert budget.left("a") == 1000
