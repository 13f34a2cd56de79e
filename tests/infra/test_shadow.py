"""A shadow policy beside the one in force: when they differ, since when, and how much of the time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.shadow import Beside, Turn
from schemas.records import FailoverConfiguration, FailoverRanking, Policy
from streams.core.engine import FailoverEngine
from streams.replay import engine_under
from tests.infra.test_watch import P, ranking

A, B = "us-east-1", "eu-central-1"


def at(decided_at_ms: int, target: str | None, sequence: int | None = None) -> FailoverRanking:
    return ranking(decided_at_ms if sequence is None else sequence, decided_at_ms=decided_at_ms, target_region=target)


def beside(shadow: list[FailoverRanking], real: list[FailoverRanking], from_ms: int = 0) -> Beside:
    found = Beside(from_ms, grace_ms=100)
    for each in shadow:
        found.shadow(each, partition=0)
    for each in real:
        found.real(each)
    return found


def times(turns: list[Turn]) -> list[tuple[int, bool]]:
    return [(t.at_ms, t.agree) for t in turns]


def test_as_long_as_they_choose_the_same_nothing_is_said() -> None:
    both = beside([at(1000, A), at(2000, B)], [at(1000, A), at(2000, B)])
    assert both.passed(0, 9100) == []
    assert both.totals()["compared_ms"] == 8000
    assert both.totals()["differing_ratio"] == 0


def test_a_difference_is_said_with_both_targets_and_when_it_ends_how_long_it_was() -> None:
    both = beside([at(1000, A), at(2000, B)], [at(1000, A), at(5000, B)])
    differ, again = both.passed(0, 9100)
    assert differ == Turn(P, 2000, False, B, A, 1, 0.0)
    assert again == Turn(P, 5000, True, B, B, 1, 0.75)
    assert both.totals() == {
        "primaries": 1, "differences": 1, "compared_ms": 8000, "differing_ms": 3000, "differing_ratio": 0.375
    }  # fmt: skip


def test_a_real_ranking_may_reach_us_a_grace_later() -> None:
    both = beside([at(1000, A), at(2000, B)], [at(1000, A)])
    assert both.passed(0, 2099) == []
    both.real(at(2000, B))
    assert both.passed(0, 5000) == []


def test_one_that_comes_too_late_counts_from_when_it_comes() -> None:
    both = beside([at(1000, A), at(2000, B)], [at(1000, A)])
    assert times(both.passed(0, 4100)) == [(2000, False)]
    both.real(at(2000, B))
    assert times(both.passed(0, 5100)) == [(4000, True)]


def test_what_happened_before_the_beginning_is_known_and_not_counted() -> None:
    both = beside([at(1000, A), at(6000, B)], [at(900, B)], from_ms=3000)
    assert times(both.passed(0, 9100)) == [(3000, False), (6000, True)]
    assert both.totals()["compared_ms"] == 6000
    assert both.totals()["differing_ms"] == 3000


def test_two_decisions_at_the_same_moment_are_one() -> None:
    double = [at(1000, A, 1), at(2000, B, 2), at(2000, A, 3)]
    assert beside(double, double).passed(0, 9000) == []


def test_a_repeated_real_ranking_counts_once() -> None:
    both = beside([at(1000, A)], [at(1000, A, 1), at(2000, B, 2), at(1000, A, 1), at(2000, B, 2)])
    assert times(both.passed(0, 9000)) == [(2000, False)]


def test_nothing_is_compared_until_both_have_said_something() -> None:
    assert beside([at(1000, A)], []).passed(0, 9000) == []
    assert beside([], [at(1000, A)]).passed(0, 9000) == []


def test_the_rest_is_compared_at_the_end() -> None:
    both = beside([at(1000, A), at(2050, B)], [at(1000, A)])
    assert both.passed(0, 2100) == []
    assert times(both.finish()) == [(2050, False)]


targets = st.lists(st.tuples(st.integers(1, 50), st.sampled_from([A, B, None])), max_size=12)


@settings(max_examples=200, deadline=None)
@given(targets, targets, st.integers(0, 30), st.lists(st.integers(0, 200), max_size=8))
def test_however_time_is_cut_the_same_is_found(
    shadow: list[tuple[int, str | None]], real: list[tuple[int, str | None]], from_ms: int, cuts: list[int]
) -> None:
    def course(steps: list[tuple[int, str | None]]) -> list[FailoverRanking]:
        return [at(ms, target, n) for n, (ms, target) in enumerate(sorted(steps, key=lambda s: s[0]), start=1)]

    whole = beside(course(shadow), course(real), from_ms)
    turns = whole.passed(0, 300)
    pieces = beside(course(shadow), course(real), from_ms)
    assert [t for cut in [*sorted(cuts), 300] for t in pieces.passed(0, cut)] == turns
    assert pieces.totals() == whole.totals()
    assert [t.agree for t in turns] == [n % 2 == 1 for n in range(len(turns))]
    mine, its = course(shadow), course(real)
    chosen = [(_target(mine, ms), _target(its, ms)) for ms in range(from_ms, 200)]
    assert whole.totals()["differing_ms"] == sum("?" not in pair and pair[0] != pair[1] for pair in chosen)


def _target(rankings: list[FailoverRanking], ms: int) -> Any:
    return next((r.target_region for r in reversed(rankings) if r.decided_at_ms <= ms), "?")


def test_an_engine_goes_by_its_policy_whatever_configurations_and_snapshots_say() -> None:
    mine = Policy(dwell_ms=9999)
    configuration = FailoverConfiguration(P, [A, B], 1)
    engine = engine_under(mine)(configuration, {})
    assert engine.configuration == replace(configuration, policy=mine)
    engine.configure(replace(configuration, version=2, based_on=1), {})
    assert (engine.configuration.version, engine.configuration.policy) == (2, mine)
    restored = engine_under(mine).load(*FailoverEngine(configuration, {}).save())
    assert restored.configuration == replace(configuration, policy=mine)
