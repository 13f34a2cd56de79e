"""Order of the candidates: bounded, explained, gated with reasons, and nobody's coming or going reorders the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Array, Mode, Policy
from streams.core.paths import PathMetrics
from streams.core.ranking import (
    DEAD,
    DOWN,
    NO_DATA,
    STALE,
    UNHEALTHY,
    UNKNOWN_REGION,
    Ranked,
    path_weights,
    rank,
)
from streams.core.weights import METRICS

POLICY = Policy()
NAN = float("nan")
GATES: Final = (UNKNOWN_REGION, UNHEALTHY, DOWN, STALE, NO_DATA)  # the first that holds is the reason


@dataclass(frozen=True, slots=True)
class Path:
    """All that is known of one candidate; by default a good path, freshly measured."""

    latency_ms: float = 40.0
    loss_ratio: float = 0.0
    delay_variation_ms: float = 4.0
    bandwidth_bps: float = NAN
    samples: float = 100.0
    age_ms: float = 500.0
    down: bool = False
    baseline: float = 0.5
    known: bool = True
    healthy: float = NAN
    said_latency_ms: float = NAN
    said_loss_ratio: float = NAN


def ranked(paths: dict[str, Path], policy: Policy = POLICY) -> Ranked:
    def column(name: str, dtype: type = float) -> Array:
        return np.array([getattr(p, name) for p in paths.values()], dtype)

    unknown, samples = np.full(len(paths), NAN), column("samples")
    metrics = PathMetrics(
        latency_ms=column("latency_ms"),
        fast_latency_ms=column("latency_ms"),
        slow_latency_ms=column("latency_ms"),
        loss_ratio=column("loss_ratio"),
        fast_loss_ratio=column("loss_ratio"),
        delay_variation_ms=column("delay_variation_ms"),
        samples=samples,
        confidence=samples / (samples + policy.confidence_samples),
        age_ms=column("age_ms"),
        down=column("down", bool),
    )
    injected = dict.fromkeys(METRICS, unknown) | {
        "latency_ms": column("said_latency_ms"),
        "loss_ratio": column("said_loss_ratio"),
        "healthy": column("healthy"),
    }
    return rank(
        list(paths),
        metrics,
        policy,
        baseline=column("baseline"),
        known=column("known", bool),
        bandwidth_bps=column("bandwidth_bps"),
        injected=injected,
    )


def in_order(result: Ranked) -> list[str]:
    return [result.regions[i] for i in result.order]


def reasons(result: Ranked) -> dict[str, str | None]:
    return dict(zip(result.regions, result.reasons, strict=True))


def _maybe(values: st.SearchStrategy[float]) -> st.SearchStrategy[float]:
    return st.one_of(st.just(NAN), values)


_PATH = st.builds(
    Path,
    latency_ms=_maybe(st.floats(0.001, 2000)),
    loss_ratio=_maybe(st.floats(0, 1)),
    delay_variation_ms=_maybe(st.floats(0, 2000)),
    bandwidth_bps=_maybe(st.floats(1e6, 1e11)),
    samples=st.floats(0, 1e4),
    age_ms=_maybe(st.floats(0, 30_000)),
    down=st.booleans(),
    baseline=st.floats(1e-6, 1),
    known=st.booleans(),
    healthy=st.sampled_from([NAN, 0.0, 1.0]),
    said_latency_ms=_maybe(st.floats(0, 2000)),
    said_loss_ratio=_maybe(st.floats(0, 1)),
)
_PATHS = st.dictionaries(st.sampled_from([f"t-{i}" for i in range(9)]), _PATH, min_size=1, max_size=8)
_ALIVE = st.builds(
    replace, _PATH, age_ms=st.floats(0, 9000), down=st.just(False), known=st.just(True), healthy=st.just(NAN)
)


@settings(max_examples=100)
@given(_PATHS)
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
@given(_PATHS)
def test_contributions_add_up_to_the_logarithm_of_the_score(paths: dict[str, Path]) -> None:
    """Each is rounded to six digits, and so is the score: half of the sixth digit of each is what may be lacking."""
    result = ranked(paths)
    for i, score in enumerate(result.score):
        shares = [float(value[i]) for value in result.contributions.values()]
        lacking = 0.5e-5 * (sum(map(abs, shares)) + 1) + 1e-9
        assert abs(sum(shares) - math.log(score)) <= lacking


@settings(max_examples=60)
@given(_PATHS)
def test_candidates_tell_the_same_as_the_ranking_in_order_of_rank(paths: dict[str, Path]) -> None:
    result = ranked(paths)
    candidates = result.candidates({"t-1": 0.25})
    assert [c.region_id for c in candidates] == in_order(result)
    assert [c.rank for c in candidates] == list(range(1, len(paths) + 1))
    assert {c.region_id: c.ineligible_reason for c in candidates} == reasons(result)
    assert all(c.eligible == (c.ineligible_reason is None) for c in candidates)
    assert all(set(c.contributions) == {"baseline", *METRICS, "uncertainty"} for c in candidates)
    assert {c.region_id: c.predicted_disruption for c in candidates}.get("t-1", 0.25) == 0.25
    # As floats on the wire have to be.
    for candidate in candidates:
        numbers = [getattr(candidate, f.name) for f in fields(candidate)] + list(candidate.contributions.values())
        assert all(math.isfinite(n) for n in numbers if isinstance(n, float))


@settings(max_examples=60)
@given(_PATHS)
def test_published_paths_carry_finite_numbers_or_nothing(paths: dict[str, Path]) -> None:
    result = ranked(paths)
    published = path_weights(result, np.array([p.bandwidth_bps for p in paths.values()]))
    assert {len(column) for column in published.values()} == {len(paths)}
    assert all(n is None or math.isfinite(n) for column in published.values() for n in column)
    assert published["weight"] == pytest.approx(result.score.tolist(), rel=2e-4)


@settings(max_examples=60)
@given(_PATHS, st.randoms(use_true_random=False))
def test_the_order_in_which_candidates_are_configured_decides_nothing(paths: dict[str, Path], random: object) -> None:
    shuffled = dict(random.sample(list(paths.items()), len(paths)))  # type: ignore[attr-defined]
    one, other = ranked(paths), ranked(shuffled)
    assert in_order(one) == in_order(other)
    assert one.candidates({}) == other.candidates({})
    assert (one.mode, one.order_confidence, one.best()) == (other.mode, other.order_confidence, other.best())


@settings(max_examples=100)
@given(_PATHS, st.sets(st.sampled_from([f"t-{i}" for i in range(9)])))
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
    _ALIVE,
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
    sure = ranked({"a": Path(samples=1e5), "b": Path(samples=1e5, latency_ms=300)}).order_confidence
    unsure = ranked({"a": Path(samples=4), "b": Path(samples=4, latency_ms=300)}).order_confidence
    assert 0.5 < unsure < sure
    assert sure > 0.999
    assert ranked({"a": Path()}).order_confidence == 1
    assert ranked({"a": Path(), "b": Path(down=True)}).order_confidence == 1
    assert ranked({"a": Path(down=True)}).order_confidence == 0


def test_a_path_faster_than_a_microsecond_is_ranked_like_any_other() -> None:
    result = ranked({"a": Path(latency_ms=0.0), "b": Path(latency_ms=0.0, delay_variation_ms=0.0, loss_ratio=0.2)})
    assert in_order(result) == ["a", "b"]
    assert 0.5 <= result.order_confidence <= 1


@settings(max_examples=100)
@given(_PATHS)
def test_modes_are_normal_with_anything_eligible_else_panic_with_fresh_data_else_thin(paths: dict[str, Path]) -> None:
    result = ranked(paths)
    fresh = any(p.age_ms <= POLICY.stale_after_ms for p in paths.values())
    if None in result.reasons:
        assert result.mode is Mode.NORMAL
    else:
        assert result.mode is (Mode.PANIC if fresh else Mode.THIN)


@settings(max_examples=150)
@given(_PATHS)
def test_nobody_known_to_be_dead_is_ever_chosen_and_only_normal_and_panic_choose(paths: dict[str, Path]) -> None:
    result = ranked(paths)
    best, reason = result.best(), reasons(result)
    if best is not None:
        assert reason[best] not in DEAD
        assert result.mode is not Mode.THIN
        assert reason[best] is None or result.mode is Mode.PANIC
    elif result.mode is Mode.PANIC:
        assert set(reason.values()) <= DEAD


def test_panic_picks_the_least_bad_of_those_that_may_be_alive() -> None:
    paths = {
        "down": Path(down=True),  # fresh, so this is PANIC and not THIN
        "stale-far": Path(age_ms=20_000, latency_ms=200),
        "stale-near": Path(age_ms=20_000, latency_ms=20),
        "unhealthy": Path(healthy=0.0, age_ms=20_000, latency_ms=1.0),
    }
    result = ranked(paths)
    assert result.mode is Mode.PANIC
    assert result.best() == "stale-near"
    assert result.usable("stale-far")
    assert not result.usable("down")
    assert not result.usable("unhealthy")
    dead = ranked({"down": paths["down"]})
    assert (dead.mode, dead.best()) == (Mode.PANIC, None)


def test_thin_chooses_nobody_and_leaves_the_target_in_use_unless_it_is_dead() -> None:
    result = ranked({"stale": Path(age_ms=20_000), "never": Path(age_ms=NAN), "dead": Path(healthy=0.0, age_ms=20_000)})
    assert result.mode is Mode.THIN
    assert result.best() is None
    assert [result.usable(r) for r in ("stale", "never", "dead", "gone", None)] == [True, True, False, False, False]


def test_in_normal_a_target_that_is_not_eligible_may_not_stay() -> None:
    result = ranked({"good": Path(), "stale": Path(age_ms=20_000)})
    assert result.mode is Mode.NORMAL
    assert [result.usable(r) for r in ("good", "stale")] == [True, False]


def test_one_who_says_healthy_revives_nobody() -> None:
    paths = {"down": Path(down=True, healthy=1.0), "stale": Path(age_ms=20_000, healthy=1.0), "good": Path()}
    assert reasons(ranked(paths)) == {"down": DOWN, "stale": STALE, "good": None}


@settings(max_examples=60)
@given(_ALIVE, st.floats(0, 65_536), st.floats(0, 1))
def test_a_liar_moves_a_measured_candidate_within_a_bound(path: Path, latency_ms: float, loss_ratio: float) -> None:
    """Both metrics lied about: 45 % of their whole shares of the weight's range, and not more."""
    honest = replace(
        path, latency_ms=100.0, loss_ratio=0.01, said_latency_ms=NAN, said_loss_ratio=NAN, delay_variation_ms=10.0
    )
    lied = replace(honest, said_latency_ms=latency_ms, said_loss_ratio=loss_ratio)
    result = ranked({"honest": honest, "lied": lied})
    ratio = result.score[1] / result.score[0]
    assert POLICY.utility_floor**0.45 * (1 - 1e-4) <= ratio <= POLICY.utility_floor**-0.45 * (1 + 1e-4)
