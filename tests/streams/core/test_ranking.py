"""Order of the candidates: bounded, explained, gated with reasons, and nobody's coming or going reorders the others."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Mode
from streams.core.gates import (
    DEAD,
    DOWN,
    DRAINED,
    EJECTED,
    GATES,
    NO_CAPACITY,
    NO_DATA,
    NO_ROUTE,
    NOT_READY,
    STALE,
    UNHEALTHY,
    UNKNOWN_REGION,
    VETOED,
)
from streams.core.ranked import (
    path_weights,
)
from streams.core.weights import METRICS
from tests.streams.core.ranks import ALIVE, NAN, PATHS, POLICY, REGIONS, Path, in_order, ranked, reasons


@settings(max_examples=100)
@given(PATHS)
def test_a_score_is_above_0_and_1_at_most_and_normalized_is_its_share_of_the_best_eligible(
    paths: dict[str, Path],
) -> None:
    result = ranked(paths)
    eligible = np.array([r is None for r in result.reasons])
    assert ((result.score > 0) & (result.score <= 1)).all()
    assert ((result.network > 0) & (result.network <= 1)).all()
    assert (result.normalized[~eligible] == 0).all()
    assert ((result.normalized >= 0) & (result.normalized <= 1)).all()
    assert 0 <= result.order_confidence <= 1
    if eligible.any():
        assert result.normalized.max() == 1
        assert result.normalized[result.order[0]] == 1


@settings(max_examples=100)
@given(PATHS)
def test_contributions_add_up_to_the_logarithm_of_the_score(paths: dict[str, Path]) -> None:
    """Each is rounded to six digits, and so is the score: half of the sixth digit of each is what may be lacking."""
    result = ranked(paths)
    for i, score in enumerate(result.score):
        shares = [float(value[i]) for value in (result.contributions | result.moved).values()]
        lacking = 0.5e-5 * (sum(map(abs, shares)) + 1) + 1e-9
        assert abs(sum(shares) - math.log(score)) <= lacking


@settings(max_examples=60)
@given(PATHS)
def test_candidates_tell_the_same_as_the_ranking_in_order_of_rank(paths: dict[str, Path]) -> None:
    result = ranked(paths)
    candidates = result.candidates({"t-1": 0.25})
    assert [c.region_id for c in candidates] == in_order(result)
    assert [c.rank for c in candidates] == list(range(1, len(paths) + 1))
    assert {c.region_id: c.ineligible_reason for c in candidates} == {r: result.said(r) for r in result.regions}
    assert all(c.eligible == (c.ineligible_reason is None) for c in candidates)
    assert all(
        set(c.contributions) - {"prediction", "readiness", "injected:somebody"} == {"baseline", *METRICS, "uncertainty"}
        for c in candidates
    )
    assert {c.region_id: c.predicted_disruption for c in candidates}.get("t-1", 0.25) == 0.25
    # As floats on the wire have to be.
    for candidate in candidates:
        numbers = [getattr(candidate, f.name) for f in fields(candidate)] + list(candidate.contributions.values())
        assert all(math.isfinite(n) for n in numbers if isinstance(n, float))


@settings(max_examples=60)
@given(PATHS)
def test_published_paths_carry_finite_numbers_or_nothing(paths: dict[str, Path]) -> None:
    result = ranked(paths)
    published = path_weights(result, np.array([p.bandwidth_bps for p in paths.values()]))
    assert {len(column) for column in published.values()} == {len(paths)}
    assert all(n is None or math.isfinite(n) for column in published.values() for n in column)
    assert published["weight"] == pytest.approx(result.score.tolist(), rel=2e-4)


@settings(max_examples=60)
@given(PATHS, st.randoms(use_true_random=False))
def test_the_order_in_which_candidates_are_configured_decides_nothing(paths: dict[str, Path], random: object) -> None:
    shuffled = dict(random.sample(list(paths.items()), len(paths)))  # type: ignore[attr-defined]
    one, other = ranked(paths), ranked(shuffled)
    assert in_order(one) == in_order(other)
    assert one.candidates({}) == other.candidates({})
    assert (one.mode, one.order_confidence, one.best()) == (other.mode, other.order_confidence, other.best())


@settings(max_examples=100)
@given(PATHS, st.sets(st.sampled_from([f"t-{i}" for i in range(9)])))
def test_a_candidate_that_joins_or_leaves_never_reorders_the_others(paths: dict[str, Path], leave: set[str]) -> None:
    fewer = {region: path for region, path in paths.items() if region not in leave}
    if not fewer:
        return
    before, after = ranked(paths), ranked(fewer)
    assert in_order(after) == [r for r in in_order(before) if r in fewer]
    score_before = dict(zip(before.regions, before.score.tolist(), strict=True))
    assert dict(zip(after.regions, after.score.tolist(), strict=True)) == {r: score_before[r] for r in fewer}
    assert reasons(after) == {r: reason for r, reason in reasons(before).items() if r in fewer}


@settings(max_examples=100)
@given(
    ALIVE,
    st.sampled_from(["latency_ms", "loss_ratio", "delay_variation_ms", "bandwidth_bps", "baseline"]),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
)
def test_a_worse_metric_never_raises_a_score(path: Path, metric: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    scale = {"latency_ms": 2000.0, "delay_variation_ms": 2000.0, "bandwidth_bps": 1e11}.get(metric, 1.0)
    more: dict[str, dict[str, Any]] = {"low": {metric: low * scale}, "high": {metric: high * scale}}
    result = ranked({name: replace(path, **changed) for name, changed in more.items()})
    score = dict(zip(result.regions, result.score.tolist(), strict=True))
    if metric in ("bandwidth_bps", "baseline"):
        assert score["low"] <= score["high"]
    else:
        assert score["low"] >= score["high"]


@given(st.sets(st.sampled_from(GATES)))
def test_gates_stand_in_order_and_the_first_that_holds_is_the_reason(holds: set[str]) -> None:
    path = Path(
        known=UNKNOWN_REGION not in holds,
        drained=DRAINED in holds,
        no_route=NO_ROUTE in holds,
        vetoed=VETOED in holds,
        not_ready=NOT_READY in holds,
        ejected=EJECTED in holds,
        full=NO_CAPACITY in holds,
        healthy=0.0 if UNHEALTHY in holds else NAN,
        down=DOWN in holds,
        age_ms=NAN if NO_DATA in holds else POLICY.stale_after_ms + 1 if STALE in holds else 0.0,
    )
    # Never heard is never stale, so of these two no more than one holds.
    expected = next((g for g in GATES if g in holds and not (g == STALE and NO_DATA in holds)), None)
    assert reasons(ranked({"t-1": path, "t-2": Path()})) == {"t-1": expected, "t-2": None}


def test_exactly_stale_after_is_still_fresh() -> None:
    assert reasons(ranked({"t-1": Path(age_ms=POLICY.stale_after_ms)})) == {"t-1": None}


def test_the_eligible_come_first_then_those_of_which_little_is_known_then_the_dead_each_by_score() -> None:
    result = ranked(
        {
            "dead-near": Path(down=True, baseline=1.0),
            "stale": Path(age_ms=20_000, latency_ms=10.0),
            "never": Path(age_ms=NAN, samples=0, latency_ms=NAN, loss_ratio=NAN, delay_variation_ms=NAN),
            "poor": Path(latency_ms=590.0, loss_ratio=0.29),
            "good": Path(),
            "dead-far": Path(healthy=0.0, baseline=0.01),
        }
    )
    assert in_order(result) == ["good", "poor", "stale", "never", "dead-near", "dead-far"]
    assert result.best() == "good"


def test_equal_scores_are_ordered_by_name_and_the_order_is_said_to_be_a_toss() -> None:
    result = ranked({"b": Path(), "c": Path(latency_ms=300), "a": Path()})
    assert in_order(result) == ["a", "b", "c"]
    assert result.order_confidence == 0.5


def test_a_clear_lead_well_measured_is_nearly_sure_and_an_only_candidate_is_sure() -> None:
    def confidence(error: float) -> float:
        paths = {"a": Path(), "b": Path(latency_ms=44)}
        return ranked({name: replace(p, log_latency_error=error) for name, p in paths.items()}).order_confidence

    assert 0.5 < confidence(0.3) < confidence(0.05) < confidence(0.01)
    assert confidence(0.01) > 0.999
    assert confidence(NAN) == 0.5  # the spread is not known yet
    assert ranked({"a": Path()}).order_confidence == 1
    assert ranked({"a": Path(), "b": Path(down=True)}).order_confidence == 1
    assert ranked({"a": Path(down=True)}).order_confidence == 0


def test_a_path_faster_than_a_microsecond_is_ranked_like_any_other() -> None:
    result = ranked({"a": Path(latency_ms=0.0), "b": Path(latency_ms=0.0, delay_variation_ms=0.0, loss_ratio=0.2)})
    assert in_order(result) == ["a", "b"]
    assert 0.5 <= result.order_confidence <= 1


@settings(max_examples=200)
@given(PATHS, st.floats(0, 1), st.integers(0, 4))
def test_modes_are_thin_with_too_little_fresh_data_else_panic_with_too_few_eligible_else_normal(
    paths: dict[str, Path], fresh_ratio_min: float, eligible_min: int
) -> None:
    policy = replace(POLICY, fresh_ratio_min=fresh_ratio_min, eligible_min=eligible_min)
    result = ranked(paths, policy)
    fresh = [p.trusted and p.age_ms <= policy.stale_after_ms for p in paths.values()]
    if not any(fresh) or sum(fresh) / len(fresh) < fresh_ratio_min:
        assert result.mode is Mode.THIN
    else:
        assert result.mode is (Mode.PANIC if result.reasons.count(None) < eligible_min else Mode.NORMAL)


@settings(max_examples=200)
@given(PATHS, st.integers(0, 4), st.sets(st.sampled_from(REGIONS)))
def test_nobody_known_to_be_dead_is_ever_chosen_and_nobody_ineligible_while_another_is_eligible(
    paths: dict[str, Path], eligible_min: int, wait: set[str]
) -> None:
    """Whoever waits for failback is chosen when nobody else is eligible."""
    result = ranked(paths, replace(POLICY, eligible_min=eligible_min))
    waits = np.array([r in wait for r in result.regions]) & result.eligible
    best, reason = result.best(waits), reasons(result)
    eligible = {r for r in reason if reason[r] is None}
    if eligible:
        assert best in (eligible - wait or eligible)
    elif best is not None:
        assert reason[best] not in DEAD
        assert result.mode is Mode.PANIC
    elif result.mode is Mode.PANIC:
        assert set(reason.values()) <= DEAD


def test_panic_picks_the_least_bad_of_those_that_may_be_alive() -> None:
    paths = {
        "down": Path(down=True),
        "drained": Path(drained=True),
        "unhealthy": Path(healthy=0.0, latency_ms=1.0),
        "stale-far": Path(age_ms=20_000, latency_ms=200),
        "stale-near": Path(age_ms=20_000, latency_ms=20),
    }  # three of five are fresh, so this is PANIC and not THIN
    result = ranked(paths)
    assert result.mode is Mode.PANIC
    assert result.best() == "stale-near"
    assert result.usable("stale-far")
    assert [result.usable(r) for r in ("down", "drained", "unhealthy")] == [False] * 3
    dead = ranked({"down": paths["down"], "drained": paths["drained"]})
    assert (dead.mode, dead.best()) == (Mode.PANIC, None)


def test_one_that_waits_for_failback_is_chosen_before_one_that_nobody_sees() -> None:
    policy = replace(POLICY, eligible_min=2)
    result = ranked({"stale": Path(age_ms=20_000, latency_ms=1.0), "waits": Path()}, policy)
    assert result.mode is Mode.PANIC
    assert result.best(np.array([False, True])) == "waits"


def test_in_panic_a_target_that_is_not_eligible_may_not_stay_beside_one_that_is() -> None:
    """The mode may be PANIC because one of two is too few: it is still better than one that is vetoed or unseen."""
    policy = replace(POLICY, eligible_min=2)
    for bad in (Path(age_ms=20_000), Path(vetoed=True), Path(ejected=True)):
        result = ranked({"bad": replace(bad, latency_ms=1.0), "good": Path()}, policy)
        assert result.mode is Mode.PANIC
        assert result.best() == "good"
        assert [result.usable(r) for r in ("bad", "good")] == [False, True]


def test_thin_chooses_nobody_unseen_and_leaves_the_target_in_use_unless_it_is_dead() -> None:
    paths = {"stale": Path(age_ms=20_000), "never": Path(age_ms=NAN), "dead": Path(healthy=0.0, age_ms=20_000)}
    paths["drained"] = Path(drained=True, age_ms=20_000)
    result = ranked(paths)
    assert result.mode is Mode.THIN
    assert result.best() is None
    assert [result.usable(r) for r in ("stale", "never")] == [True, True]
    assert [result.usable(r) for r in ("dead", "drained", "gone", None)] == [False] * 4


def test_thin_with_a_few_measured_keeps_the_target_and_has_one_to_go_to_when_it_dies() -> None:
    paths = {"stale": Path(age_ms=20_000), "stale-too": Path(age_ms=20_000), "seen": Path()}
    result = ranked(paths)
    assert result.mode is Mode.THIN
    assert result.usable("stale")
    assert result.best() == "seen"


def test_in_normal_a_target_that_is_not_eligible_may_not_stay() -> None:
    result = ranked({"good": Path(), "stale": Path(age_ms=20_000)})
    assert result.mode is Mode.NORMAL
    assert [result.usable(r) for r in ("good", "stale")] == [True, False]


def test_what_only_suspect_agents_report_is_stale_however_new_it_is() -> None:
    assert reasons(ranked({"good": Path(), "doubted": Path(trusted=False)})) == {"good": None, "doubted": STALE}


def test_one_who_says_healthy_revives_nobody() -> None:
    paths = {"down": Path(down=True, healthy=1.0), "stale": Path(age_ms=20_000, healthy=1.0), "good": Path()}
    assert reasons(ranked(paths)) == {"down": DOWN, "stale": STALE, "good": None}


@settings(max_examples=60)
@given(ALIVE, st.floats(0, 65_536), st.floats(0, 1))
def test_a_liar_moves_a_measured_candidate_within_a_bound(path: Path, latency_ms: float, loss_ratio: float) -> None:
    """Both metrics lied about: 45 % of their whole shares of the weight's range, and not more."""
    honest = replace(
        path, latency_ms=100.0, loss_ratio=0.01, said_latency_ms=NAN, said_loss_ratio=NAN, delay_variation_ms=10.0
    )
    lied = replace(honest, said_latency_ms=latency_ms, said_loss_ratio=loss_ratio)
    result = ranked({"honest": honest, "lied": lied})
    ratio = result.score[1] / result.score[0]
    assert POLICY.utility_floor**0.45 * (1 - 1e-4) <= ratio <= POLICY.utility_floor**-0.45 * (1 + 1e-4)
