"""The drift test is river's, kept as numbers."""

from __future__ import annotations

import json
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from river import drift

from streams.core.drift import PageHinkley


@given(
    st.lists(st.floats(-5, 5), max_size=120),
    st.sampled_from([2.0, 7.0]),
    st.sampled_from([0.0, 0.25, 0.5]),
    st.sampled_from([1, 8]),
)
def test_it_alarms_when_rivers_does(values: list[float], threshold: float, allowance: float, least: int) -> None:
    theirs = drift.PageHinkley(min_instances=least, delta=allowance, threshold=threshold, alpha=0.9999, mode="down")
    ours = PageHinkley(threshold, allowance, least)
    for value in values:
        theirs.update(value)
        ours, drifted = ours.step(value)
        ours = PageHinkley(**json.loads(json.dumps(ours.save())))
        assert drifted == theirs.drift_detected


def test_a_fall_is_found_and_a_rise_is_not() -> None:
    test, found = PageHinkley(7.0, 0.25, 1), []
    for number, value in enumerate([0.0] * 50 + [3.0] * 50 + [-1.0] * 10):
        test, drifted = test.step(value)
        if drifted:
            found.append(number)
    assert len(found) == 1
    assert 100 <= found[0] < 105


def test_what_it_does_not_need_is_not_loaded_and_is_there_for_who_does() -> None:
    program = """
import sys, streams.core.drift
assert "scipy.stats" not in sys.modules
from river.drift import KSWIN
other = KSWIN(seed=1)  # it samples its window
for number in range(300):
    other.update(number % 7)
assert 0 < other.p_value <= 1
import scipy.stats
assert scipy.stats.norm.cdf(0) == 0.5
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_used_while_it_is_put_off_is_loaded_at_once() -> None:
    program = """
import sys
from streams.core.drift import _on_demand
with _on_demand("colorsys"):
    from colorsys import rgb_to_hsv
    assert rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
assert sys.modules["colorsys"].rgb_to_hsv is rgb_to_hsv
"""
    subprocess.run([sys.executable, "-c", program], check=True)
