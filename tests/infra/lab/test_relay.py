"""What a link does to packets, by the clock: late, lost, queued, and never out of order."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.lab.relay import Direction


def direction(**change: object) -> Direction:
    found = Direction(-1, -1, random.Random(7))
    found.change(change, 0.0)
    return found


def test_a_delay_is_added_and_a_shorter_one_counts_at_once() -> None:
    link = direction(delay_ms=50)
    assert link.due_s(100, 1.0) == pytest.approx(1.05)
    link.change({"delay_ms": 10}, 1.0)
    assert link.due_s(100, 1.01) == pytest.approx(1.02)


@given(
    st.lists(st.floats(0, 0.01), min_size=2, max_size=100),
    st.floats(0, 20),
    st.floats(0, 20),
    st.sampled_from([0.0, 10.0]),
)
def test_packets_never_overtake_each_other(gaps_s: list[float], delay: float, jitter: float, rate: float) -> None:
    link = direction(delay_ms=delay, jitter_ms=jitter, rate_mbit=rate, queue_ms=1e9)
    now_s, due = 0.0, []
    for gap_s in gaps_s:
        now_s += gap_s
        found = link.due_s(1000, now_s)
        assert found is not None
        assert found >= now_s
        due.append(found)
    assert all(a <= b for a, b in pairwise(due))


def test_a_rate_spaces_packets_and_a_full_queue_drops_them() -> None:
    link = direction(rate_mbit=8, queue_ms=10.5)  # 1,000 bytes a millisecond
    due = [link.due_s(1000, 0.0) for _ in range(20)]
    assert due[:10] == pytest.approx([(i + 1) / 1000 for i in range(10)])
    assert due[10:] == [None] * 10
    assert link.counters["overflowed"] == 10


def test_a_bucket_lets_what_was_saved_in_a_rest_through_at_once() -> None:
    link = direction(rate_mbit=8, bucket_bytes=3000, queue_ms=1e9)
    due = [link.due_s(1000, 1.0) for _ in range(5)]
    assert due == pytest.approx([1.0, 1.0, 1.0, 1.001, 1.002])


def test_loss_is_within_its_binomial_interval() -> None:
    link = direction(loss_ratio=0.05)
    lost = sum(link.due_s(100, i / 1000) is None for i in range(20_000))
    assert abs(lost - 1000) < 5 * (20_000 * 0.05 * 0.95) ** 0.5
    assert link.counters["lost"] == lost


def test_a_trace_is_replayed_step_by_step_and_its_last_step_stays_until_a_delay_is_set() -> None:
    link = direction(delay_ms=99)
    link.change({"trace": [10.0, None, 20.0], "step_ms": 1000}, 5.0)
    assert link.due_s(100, 5.5) == pytest.approx(5.51)
    assert link.due_s(100, 6.5) is None
    assert link.due_s(100, 7.5) == pytest.approx(7.52)
    assert link.due_s(100, 99.0) == pytest.approx(99.02)
    link.change({"delay_ms": 99}, 100.0)
    assert link.due_s(100, 100.0) == pytest.approx(100.099)
