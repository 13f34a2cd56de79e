"""Damping: who fails again and again stays out for longer and longer, up to a bound, and is forgiven."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Array, Failback, Policy
from streams.core.damping import ARRAYS, Damping
from streams.core.state import from_columns, to_columns
from tests.streams.core.policy import STATED

POLICY = replace(STATED, ejection_base_ms=10_000, ejection_max_ms=70_000, ejection_forgive_ms=1_000_000)
_POLICIES = st.builds(
    lambda base, more, forgive, failback, delay: replace(
        STATED,
        ejection_base_ms=base,
        ejection_max_ms=base + more,
        ejection_forgive_ms=forgive,
        failback=failback,
        failback_delay_ms=delay,
    ),
    st.integers(0, 60_000),
    st.integers(0, 600_000),
    st.integers(1, 600_000),
    st.sampled_from(list(Failback)),
    st.integers(0, 60_000),
)
_MOMENTS = st.lists(
    st.tuples(st.integers(0, 30_000), st.lists(st.booleans(), min_size=3, max_size=3)), min_size=1, max_size=40
)


def observed(damping: Damping, dead: Array, policy: Policy, now_ms: int) -> Array:
    """Who is ejected, as a mask also when nobody is."""
    found = damping.observe(dead, policy, now_ms)
    return np.zeros(len(dead), bool) if found is None else found


def waiting(damping: Damping, eligible: Array, policy: Policy, now_ms: int) -> Array:
    """Who waits, as a mask also when nobody does."""
    found = damping.waits(eligible, policy, now_ms)
    return np.zeros(len(eligible), bool) if found is None else found


def dead(*which: bool) -> Array:
    return np.array(which)


def period_ms(damping: Damping, policy: Policy, now_ms: int) -> int:
    """How long the only target stays out after it failed and recovered at this moment."""
    observed(damping, dead(True), policy, now_ms - 1)
    assert not observed(damping, dead(True), policy, now_ms - 1).any()  # dead is said to be dead
    out = observed(damping, dead(False), policy, now_ms)
    until_ms = int(damping.ejected_until_ms[0])
    assert out[0] == (until_ms > now_ms)
    return max(until_ms - now_ms, 0)


def test_ejections_double_from_the_second_failure_on_and_are_capped() -> None:
    damping = Damping(1)
    periods = [period_ms(damping, POLICY, 100_000 * n) for n in range(1, 8)]
    assert periods == [0, 10_000, 20_000, 40_000, 70_000, 70_000, 70_000]


def test_a_thousand_failures_overflow_nothing() -> None:
    damping = Damping(1)
    periods = [period_ms(damping, replace(POLICY, ejection_max_ms=10**12), 10_000 * n) for n in range(1, 1000)]
    assert periods == sorted(periods)
    assert periods[-1] == 10**12


def test_each_forgiving_time_without_a_failure_forgives_one() -> None:
    policy = replace(POLICY, ejection_forgive_ms=200_000)
    damping = Damping(1)
    assert [period_ms(damping, policy, 100_000 * n) for n in range(1, 5)] == [0, 10_000, 20_000, 40_000]
    observed(damping, dead(False), policy, 400_000 + 2 * 200_000)  # two of four are forgiven
    assert period_ms(damping, policy, 900_000) == 20_000
    observed(damping, dead(False), policy, 900_000 + 50 * 200_000)
    assert period_ms(damping, policy, 900_000 + 51 * 200_000) == 0


def test_time_spent_dead_forgives_nothing() -> None:
    policy = replace(POLICY, ejection_forgive_ms=200_000)
    damping = Damping(1)
    period_ms(damping, policy, 100_000)
    for now_ms in range(150_000, 3_000_000, 50_000):
        observed(damping, dead(True), policy, now_ms)
    observed(damping, dead(False), policy, 3_000_000)
    assert damping.ejected_until_ms[0] == 3_010_000


@settings(max_examples=150)
@given(_MOMENTS, _POLICIES)
def test_an_ejection_is_never_longer_than_the_bound_and_never_said_of_the_dead(
    moments: list[tuple[int, list[bool]]], policy: Policy
) -> None:
    damping, now_ms = Damping(3), 1_000_000
    for passed_ms, who in moments:
        now_ms += passed_ms
        out = observed(damping, dead(*who), policy, now_ms)
        assert not (out & dead(*who)).any()
        assert (damping.ejected_until_ms <= now_ms + policy.ejection_max_ms).all()
        assert (damping.failures >= 0).all()


@settings(max_examples=100)
@given(_MOMENTS, _POLICIES, st.integers(0, 40), st.permutations([0, 1, 2]))
def test_saved_loaded_or_renumbered_it_goes_on_the_same(
    moments: list[tuple[int, list[bool]]], policy: Policy, cut: int, place: list[int]
) -> None:
    one, other, now_ms = Damping(3), Damping(3), 1_000_000
    for number, (passed_ms, who) in enumerate(moments):
        now_ms += passed_ms
        if number == cut:
            other = Damping.load(from_columns(to_columns(one.save())))
            other = other.renumber({0: place[0], 1: place[1], 2: place[2]}, 3)
        there = place if number >= cut else [0, 1, 2]
        theirs = np.empty(3, bool)
        theirs[there] = who
        np.testing.assert_array_equal(
            observed(one, dead(*who), policy, now_ms), observed(other, theirs, policy, now_ms)[there]
        )
        np.testing.assert_array_equal(
            waiting(one, ~dead(*who), policy, now_ms), waiting(other, ~theirs, policy, now_ms)[there]
        )
        if number % 3 == 0:
            one.leave(number % 2)
            other.leave(there[number % 2])
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name)[there], err_msg=name)


# Failback.


def left(policy: Policy, seconds_good: int) -> bool:
    """Whether a target that was left at 0 waits after so long a time of being eligible again."""
    damping = Damping(2)
    damping.leave(0)
    assert not waiting(damping, np.array([False, True]), policy, 1000)[
        0
    ]  # what is not eligible does not wait, it fails
    waits = waiting(damping, np.array([True, True]), policy, 2000)
    for second in range(seconds_good):
        waits = waiting(damping, np.array([True, True]), policy, 3000 + 1000 * second)
    assert not waits[1]
    return bool(waits[0])


@pytest.mark.parametrize(
    ("failback", "waits"),
    [(Failback.IMMEDIATE, [False] * 4), (Failback.DELAYED, [True, True, False, False]), (Failback.MANUAL, [True] * 4)],
)
def test_who_was_left_because_it_failed_waits_as_the_policy_says(failback: str, waits: list[bool]) -> None:
    policy = replace(STATED, failback=failback, failback_delay_ms=30_000)
    assert [left(policy, seconds) for seconds in (0, 29, 30, 1000)] == waits


def test_an_interruption_begins_the_delay_anew_and_whoever_is_chosen_waits_no_more() -> None:
    policy = replace(STATED, failback=Failback.DELAYED, failback_delay_ms=30_000)
    damping = Damping(1)
    damping.leave(0)
    for now_ms, eligible, waits in (
        (0, True, True),
        (29_000, False, False),
        (31_000, True, True),
        (60_000, True, True),
    ):
        assert waiting(damping, np.array([eligible]), policy, now_ms)[0] == waits
    assert not waiting(damping, np.array([True]), policy, 61_000)[0]
    damping.leave(0)
    damping.choose(0)
    assert not waiting(damping, np.array([True]), replace(policy, failback=Failback.MANUAL), 62_000)[0]
