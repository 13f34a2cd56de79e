"""The built-in policy among adversaries: hardly dearer than the better of two simple habits, whatever the network."""

from __future__ import annotations

import pytest

from schemas.records import Policy
from streams.backtest import course_of, run_trace, score, yardstick
from tests.streams.adversaries import adversaries

TIMEOUT_MS = 1000.0
COST_RATIO_MAX = 1.10  # a policy that also spares switches may cost a little, and no more
TRACES = adversaries(seed=1)


@pytest.mark.parametrize("name", TRACES)
def test_the_built_in_policy_costs_hardly_more_than_the_better_of_static_and_ewma(name: str) -> None:
    trace = TRACES[name]
    course = course_of(trace, TIMEOUT_MS)
    simple = {y: score([(course, yardstick(y, course))], TIMEOUT_MS) for y in ("static", "ewma")}
    ours = score([(course, run_trace(trace, Policy()))], TIMEOUT_MS)
    least_ms = min(s.mean_cost_ms for s in simple.values())
    figures = f"{ours.mean_cost_ms:.1f} ms ({ours.switches} switches, {ours.lost_ratio:.1%} lost); " + ", ".join(
        f"{y} {s.mean_cost_ms:.1f} ms ({s.switches})" for y, s in simple.items()
    )
    print(f"{ours.mean_cost_ms / least_ms:5.2f}  {name}: {figures}")
    assert ours.mean_cost_ms <= COST_RATIO_MAX * least_ms, figures
