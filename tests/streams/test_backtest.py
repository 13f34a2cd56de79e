"""Costs, yardsticks and scores of backtests, against slow and plain code; the engine over traces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.traces import OVERLAY, overlay_rtt_ms
from schemas.records import Policy
from schemas.validate import REGION_ID
from streams.backtest import (
    NOWHERE,
    YARDSTICKS,
    Run,
    course_of,
    region_ids,
    run_trace,
    score,
    yardstick,
    yardsticks,
)
from streams.trace_files import Trace, read_trace

DATA = Path(__file__).parents[2] / "producers" / "data" / "overlay_rtt"
TIMEOUT_MS = 1000.0
LOST = math.nan

rtts = st.one_of(st.just(LOST), st.floats(0.1, 3000.0))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    steps, candidates = draw(st.integers(4, 40)), draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(rtts, min_size=candidates, max_size=candidates), min_size=steps, max_size=steps))
    return trace(*zip(*rows, strict=True))


def trace(*paths: Sequence[float]) -> Trace:
    return Trace(tuple(f"path_{i}" for i in range(len(paths))), np.column_stack([np.asarray(p, float) for p in paths]))


def slow_cost(rtt_ms: float) -> float:
    return rtt_ms if rtt_ms <= TIMEOUT_MS else TIMEOUT_MS


def slow_choices(name: str, costs: list[list[float]]) -> list[int]:
    """What a yardstick chooses, each step for itself, from the definition."""
    chosen = []
    for step, now in enumerate(costs):
        past = costs[:step]
        if name == "oracle":
            wanted = now
        elif not past:
            wanted = [0.0] * len(now)
        elif name == "last-value":
            wanted = past[-1]
        elif name == "static":
            wanted = [sum(c) for c in zip(*past[: len(costs) // 4], strict=True)] if len(costs) >= 4 else now
        else:
            wanted = past[0]
            for row in past[1:]:
                wanted = [mean + 0.3 * (cost - mean) for mean, cost in zip(wanted, row, strict=True)]
        chosen.append(wanted.index(min(wanted)))
    return chosen


# -- costs and scores


@given(traces())
def test_a_lost_probe_and_a_late_answer_cost_the_timeout(t: Trace) -> None:
    course = course_of(t, TIMEOUT_MS)
    assert course.cost_ms.tolist() == [[slow_cost(x) for x in row] for row in t.rtt_ms.tolist()]
    assert ((course.cost_ms == t.rtt_ms) | (course.lost_ratio == 1)).all()
    assert course_of(trace([LOST, 499.0, 500.0, 501.0]), 500.0).lost_ratio[:, 0].tolist() == [1, 0, 0, 1]


@given(traces(), st.data())
def test_a_score_is_what_plain_code_adds_up_over_the_last_three_quarters(t: Trace, data: st.DataObject) -> None:
    steps, candidates = t.rtt_ms.shape
    chosen = data.draw(st.lists(st.integers(NOWHERE, candidates - 1), min_size=steps, max_size=steps))
    found = score([(course_of(t, TIMEOUT_MS), Run(np.array(chosen), np.ones(steps)))], TIMEOUT_MS)
    costs = [[slow_cost(x) for x in row] for row in t.rtt_ms.tolist()]
    counted = range(steps // 4, steps)
    mine = {s: TIMEOUT_MS if chosen[s] == NOWHERE else costs[s][chosen[s]] for s in counted}
    lost = {s: chosen[s] == NOWHERE or not t.rtt_ms[s][chosen[s]] <= TIMEOUT_MS for s in counted}
    bad = [s for s in counted if lost[s] or (mine[s] > 1.5 * min(costs[s]) and mine[s] > min(costs[s]) + 10)]
    somewhere = [chosen[s] for s in counted if chosen[s] != NOWHERE]
    assert found.steps == len(counted)
    assert found.regret_ms == pytest.approx(sum(mine[s] - min(costs[s]) for s in counted) / len(counted))
    assert found.mean_cost_ms == pytest.approx(sum(mine.values()) / len(counted))
    assert found.lost_ratio == pytest.approx(sum(lost.values()) / len(counted))
    assert found.bad_ratio == pytest.approx(len(bad) / len(counted))
    assert found.nowhere_ratio == pytest.approx(1 - len(somewhere) / len(counted))
    assert found.switches == sum(a != b for a, b in pairwise(somewhere))


def test_what_happens_in_the_first_quarter_counts_nowhere() -> None:
    t = trace([LOST] * 5 + [10.0] * 15, [20.0] * 20)
    run = Run(np.array([0, 1, 0, 1, 0] + [0] * 15), np.ones(20))
    found = score([(course_of(t, TIMEOUT_MS), run)], TIMEOUT_MS)
    assert (found.steps, found.regret_ms, found.switches, found.lost_ratio, found.bad_ratio) == (15, 0, 0, 0, 0)


def test_primaries_are_added_up_step_by_step() -> None:
    short, long = trace([10.0] * 4, [20.0] * 4), trace([10.0] * 40, [30.0] * 40)
    runs = [(course_of(t, TIMEOUT_MS), Run(np.ones(len(t.rtt_ms), int), np.ones(1))) for t in (short, long)]
    found = score(runs, TIMEOUT_MS)
    assert found.steps == 33
    assert found.regret_ms == pytest.approx((3 * 10 + 30 * 20) / 33)


# -- yardsticks


@given(traces())
def test_yardsticks_choose_what_their_definitions_say(t: Trace) -> None:
    course = course_of(t, TIMEOUT_MS)
    for name in YARDSTICKS:
        chosen, slow = yardstick(name, course).chosen.tolist(), slow_choices(name, course.cost_ms.tolist())
        first = course.scored_from if name == "static" else 0
        assert chosen[first:] == slow[first:], name


@given(traces())
def test_nobody_beats_the_oracle_whose_regret_is_nothing(t: Trace) -> None:
    course = course_of(t, TIMEOUT_MS)
    assert score([(course, yardstick("oracle", course))], TIMEOUT_MS).regret_ms == 0
    assert all(score([(course, run)], TIMEOUT_MS).regret_ms >= 0 for run in yardsticks(course).values())


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("Haifa_Santiago", {"static": (15.68, 0), "last-value": (1.15, 384), "ewma": (1.11, 120)}),
        ("Singapore_HongKong", {"static": (8.46, 0), "last-value": (2.72, 83), "ewma": (1.97, 9)}),
        ("HongKong_Kazakhstan", {"static": (32.1, 0), "last-value": (7.95, 159), "ewma": (8.42, 103)}),
    ],
)
def test_on_the_recorded_traces_the_yardsticks_reach_the_known_figures(
    folder: str, expected: dict[str, tuple[float, int]]
) -> None:
    course = course_of(read_trace(DATA / folder), TIMEOUT_MS)
    for name, (regret_ms, switches) in expected.items():
        found = score([(course, yardstick(name, course))], TIMEOUT_MS)
        assert found.regret_ms == pytest.approx(regret_ms, abs=0.006), name
        assert found.switches == switches, name


# -- the engine over a trace


def two_paths(seed: int, steps: int = 60) -> Trace:
    """The better one changes every 15 steps, and one probe in ten is lost."""
    rng = np.random.default_rng(seed)
    rtt_ms = rng.gamma(4.0, 1.0, (steps, 2)) + np.where((np.arange(steps) // 15 % 2)[:, None] == [0, 1], 40.0, 90.0)
    rtt_ms[rng.random(rtt_ms.shape) < 0.1] = LOST
    return Trace(("b_Path", "A path"), rtt_ms)


def everybody(t: Trace) -> dict[str, Run]:
    runs = yardsticks(course_of(t, TIMEOUT_MS))
    return {"engine": run_trace(t, Policy())} | {name: run for name, run in runs.items() if name != "oracle"}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 59), st.lists(rtts, min_size=2, max_size=2))
def test_the_choice_for_a_step_never_knows_that_step(seed: int, step: int, other: list[float]) -> None:
    t = two_paths(seed)
    changed = replace(t, rtt_ms=t.rtt_ms.copy())
    changed.rtt_ms[step] = other
    changed.rtt_ms[step + 1 :] = 7.0
    after = everybody(changed)
    for name, run in everybody(t).items():
        assert run.chosen[: step + 1].tolist() == after[name].chosen[: step + 1].tolist(), name


def test_the_engine_starts_with_no_target_and_follows_the_better_path() -> None:
    t = trace([50.0] * 40 + [300.0] * 40, [100.0] * 80)
    run = run_trace(t, Policy())
    assert run.chosen[0] == NOWHERE
    assert set(run.chosen[1:40]) == {0}
    assert run.chosen[-1] == 1
    assert len(run.decide_us) == 80
    assert (run.decide_us > 0).all()


def test_an_engine_that_loses_every_path_has_no_target_and_says_so() -> None:
    t = trace([50.0] * 20 + [LOST] * 20)
    run = run_trace(t, Policy())
    found = score([(course_of(t, TIMEOUT_MS), run)], TIMEOUT_MS)
    assert run.chosen[-1] == NOWHERE
    assert found.nowhere_ratio > 0.3
    assert found.regret_ms == 0, "nobody could do better"


def test_an_answer_above_the_timeout_is_an_answer_to_the_engine_and_beyond_what_can_be_measured_is_lost() -> None:
    late, endless = (run_trace(trace([50.0] * 20 + [slow] * 20), Policy()) for slow in (60_000.0, 70_000.0))
    assert late.chosen[-1] == 0
    assert endless.chosen[-1] == NOWHERE


def test_the_policy_decides_how_the_engine_follows() -> None:
    t = two_paths(1)
    quick, slow = (run_trace(t, Policy(dwell_ms=d, dwell_min_ms=0)).chosen for d in (0, 1_000_000))
    assert (np.diff(quick) != 0).sum() >= (np.diff(slow) != 0).sum()
    assert quick.tolist() != slow.tolist()


def test_a_longer_step_in_the_policys_time_is_the_same_as_shorter_durations() -> None:
    t, p = two_paths(2), Policy()
    whole = ("stale_after_ms", "dwell_ms", "dwell_min_ms", "heartbeat_ms", "prediction_every_ms",
             "prediction_horizon_ms", "failback_delay_ms", "ejection_base_ms", "ejection_max_ms",
             "ejection_forgive_ms")  # fmt: skip
    durations = {f: getattr(p, f) / 5 for f in ("fast_tau_ms", "slow_tau_ms")}
    durations |= {f: getattr(p, f) // 5 for f in whole}
    scaled = run_trace(t, replace(p, **durations), step_policy_ms=1000)
    assert run_trace(t, p, step_policy_ms=5000).chosen.tolist() == scaled.chosen.tolist()


@given(st.lists(st.text(max_size=80), max_size=12))
def test_every_name_becomes_a_region_id_of_its_own(names: list[str]) -> None:
    found = region_ids(names)
    assert len(found) == len(set(found)) == len(names)
    assert all(REGION_ID.fullmatch(i) for i in found)
    assert region_ids(["Haifa_Boston_Santiago", "a", "A"]) == ["haifa-boston-santiago", "a", "a-2"]


def test_recorded_traces_are_read_as_they_are() -> None:
    t = read_trace(DATA / "HongKong_Kazakhstan")
    assert t.candidates == ("HongKong_Kazakhstan", "HongKong_Latvia_Kazakhstan")
    for i, path in enumerate(p for p in OVERLAY if p.startswith("HongKong_Kazakhstan/")):
        np.testing.assert_array_equal(t.rtt_ms[:, i].astype(np.float32), overlay_rtt_ms(path))
