"""The adversaries are what their names say, and the same every time."""

from __future__ import annotations

import re

import numpy as np
import pytest

from streams.backtest import course_of
from tests.streams.adversaries import adversaries

TRACES = adversaries(seed=1)


def test_the_same_seed_gives_the_same_traces_and_another_gives_others() -> None:
    again, others = adversaries(seed=1), adversaries(seed=2)
    assert list(again) == list(TRACES) == list(others)
    for name, trace in TRACES.items():
        np.testing.assert_array_equal(trace.rtt_ms, again[name].rtt_ms)
        same = np.array_equal(trace.rtt_ms, others[name].rtt_ms, equal_nan=True)
        assert same == name.startswith("labelled"), name


@pytest.mark.parametrize("name", TRACES)
def test_every_round_trip_takes_time_and_there_is_a_choice(name: str) -> None:
    rtt_ms = TRACES[name].rtt_ms
    assert len(TRACES[name].candidates) == rtt_ms.shape[1] >= 2
    assert np.nanmin(rtt_ms) > 0


@pytest.mark.parametrize("name", [n for n in TRACES if "loses" in n])
def test_about_as_much_is_lost_as_the_name_says(name: str) -> None:
    [percent] = re.findall(r"(\d+) %", name)
    lost = np.isnan(TRACES[name].rtt_ms).mean(axis=0).max()
    assert lost == pytest.approx(int(percent) / 100, abs=0.1 if "bursts" in name else 0.05)


def test_the_one_that_times_out_is_still_the_best_on_average() -> None:
    trace = TRACES["times out every tenth step and is best on average"]
    cost_ms = course_of(trace, 1000.0).cost_ms.mean(axis=0)
    assert trace.candidates[cost_ms.argmin()] == "near"


def test_what_degrades_is_best_first_and_worst_at_last() -> None:
    rtt_ms = TRACES["the best degrades slowly"].rtt_ms
    assert rtt_ms[0].argmin() == 0
    assert rtt_ms[-1].argmax() == 0
