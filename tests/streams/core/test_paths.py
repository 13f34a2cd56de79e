"""Rolling state of paths: what order, lateness, loss and silence do to it, and what they must not do."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Array, Outcome, Policy
from streams.core.numbers import proven_share
from streams.core.paths import LOSS_TAUS, SUM, Paths
from streams.core.state import from_columns, from_scalars, to_columns, to_scalars
from streams.core.views import _LOSS_Z, PathMetrics
from streams.core.views import metrics as joined
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PANE_MS, Sample, each, panes

POLICY = replace(STATED, fast_tau_ms=3000.0, slow_tau_ms=30_000.0)
LOSS_TAU_MS = LOSS_TAUS * POLICY.fast_tau_ms
TARGETS = {"t-1": 0, "t-2": 1, "t-3": 2}
T0 = 1_700_000_010_000  # the begin of a window of fast_tau
FAILED = (Outcome.TIMED_OUT, Outcome.REFUSED, Outcome.UNREACHABLE)
OWN_FAULT = (Outcome.NOT_SENT, Outcome.SUSPECT)


def seconds(first: int, end: int) -> range:
    """Start of each of the panes."""
    return range(T0 + first * PANE_MS, T0 + end * PANE_MS, PANE_MS)


def fold(paths: Paths, samples: list[Sample], now_s: float, observed_s: float | None = None) -> Paths:
    """Samples in one fold; journal time and observed time are the same unless said."""
    observed_s = now_s if observed_s is None else observed_s
    paths.fold(panes(samples), TARGETS, POLICY, T0 + int(now_s * 1000), observed_s * 1000)
    return paths


def as_it_comes(samples: list[Sample], now_s: int, paths: Paths | None = None) -> Paths:
    """Samples pane by pane, each just after it ended."""
    paths = Paths() if paths is None else paths
    for at_ms in sorted({s.at_ms // PANE_MS * PANE_MS for s in samples}):
        mine = [s for s in samples if s.at_ms // PANE_MS * PANE_MS == at_ms]
        fold(paths, mine, min(now_s, (at_ms - T0) // 1000 + 1))
    return paths


def metrics(paths: Paths, observed_s: float, policy: Policy = POLICY) -> PathMetrics:
    return joined(paths, len(TARGETS), policy, observed_s * 1000)


def assert_same(one: PathMetrics, other: PathMetrics, *, but: tuple[str, ...] = ()) -> None:
    assert one.suspects == other.suspects or "suspects" in but
    for name in (f.name for f in fields(PathMetrics) if f.name not in (*but, "suspects")):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-12, err_msg=name)


def _pairs(paths: Paths) -> list[tuple[int, str]]:
    """Target and agent of each view."""
    return [(int(t), paths.agents[a]) for t, a in zip(paths.columns["target"], paths.columns["agent"], strict=True)]


def only(values: Array, target: str = "t-1") -> float:
    return float(values[TARGETS[target]])


_SEEN: st.SearchStrategy[float | Outcome] = st.one_of(
    st.floats(5, 500, width=32), st.sampled_from((*FAILED, *OWN_FAULT))
)
_SAMPLE = st.builds(
    Sample,
    target=st.sampled_from(list(TARGETS)),
    at_ms=st.integers(T0, T0 + 59_999),
    seen=_SEEN,
    agent=st.sampled_from(["agent-1", "agent-2"]),
)
_SAMPLES = st.lists(_SAMPLE, min_size=1, max_size=40)


def _in_parts(samples: list[Sample], cuts: list[int], order: Any = None) -> Paths:
    """The samples in several folds, all of them at the end; of each agent a pane comes whole, as intake sends it."""
    wholes: dict[tuple[str, int], list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: s.at_ms // PANE_MS):
        wholes.setdefault((sample.agent, sample.at_ms // PANE_MS), []).append(sample)
    parts = list(wholes.values())
    if order is not None:
        order.shuffle(parts)
    paths, start = Paths(), 0
    for end in [*sorted(c % len(parts) for c in cuts), len(parts)]:
        if end > start:
            fold(paths, [s for part in parts[start:end] for s in part], 60)
        start = end
    return paths


_CUTS = st.lists(st.integers(0, 1000), max_size=5)
# What depends on what had arrived (see the module): of the spread, which panes came as neighbours.
_BY_ARRIVAL = ("delay_variation_ms", "log_latency_error")


@settings(max_examples=100)
@given(_SAMPLES, _CUTS, st.randoms(use_true_random=False))
def test_neither_order_nor_splitting_changes_what_is_averaged(samples: list[Sample], cuts: list[int], r: Any) -> None:
    """Of each view; which views count depends on silence, and that on what had arrived."""
    shuffled, whole = _in_parts(samples, cuts, r), fold(Paths(), samples, 60)
    number = {pair: i for i, pair in enumerate(_pairs(shuffled))}
    place = [number[pair] for pair in _pairs(whole)]
    for name in ("fast_answered", "fast_log", "fast_panes", "loss_sent", "loss_failed", "slow_answered", "slow_log"):
        np.testing.assert_allclose(
            shuffled.sums[SUM[name]][place], whole.sums[SUM[name]], rtol=1e-9, atol=1e-12, err_msg=name
        )


@settings(max_examples=60)
@given(_SAMPLES, _CUTS, st.randoms(use_true_random=False))
def test_of_panes_with_answers_neither_order_nor_splitting_changes_anything_but_variation_and_spread(
    samples: list[Sample], cuts: list[int], r: Any
) -> None:
    answered = [*samples, *(replace(s, seen=50.0) for s in samples)]
    assert_same(metrics(_in_parts(answered, cuts, r), 61), metrics(fold(Paths(), answered, 60), 61), but=_BY_ARRIVAL)


@settings(max_examples=60)
@given(_SAMPLES, _CUTS)
def test_panes_that_come_in_order_may_be_split_anywhere(samples: list[Sample], cuts: list[int]) -> None:
    """What is down, suspect or an episode too; but for delay variation, of which the least was not known yet."""
    parts, whole = metrics(_in_parts(samples, cuts), 61), metrics(fold(Paths(), samples, 60), 61)
    assert_same(parts, whole, but=("delay_variation_ms",))


@settings(max_examples=60)
@given(_SAMPLES, st.randoms(use_true_random=False))
def test_within_one_fold_order_changes_nothing_at_all(samples: list[Sample], random: Any) -> None:
    shuffled = random.sample(samples, len(samples))
    assert_same(metrics(fold(Paths(), shuffled, 60), 61), metrics(fold(Paths(), samples, 60), 61))


def test_a_pane_in_which_nothing_was_sent_does_not_begin_an_outage_anew() -> None:
    outage = each("t-1", Outcome.TIMED_OUT, at_ms=(T0 + 10_000, T0 + 11_000, T0 + 13_000))
    own = each("t-1", Outcome.NOT_SENT, at_ms=[T0 + 12_000])
    answered = each("t-1", 20.0, at_ms=seconds(0, 10))
    once = metrics(fold(Paths(), answered + outage, 14), 14)
    for paths in (fold(Paths(), answered + outage + own, 14), as_it_comes(answered + outage + own, 14)):
        assert_same(metrics(paths, 14), once, but=_BY_ARRIVAL)


def test_an_answer_that_arrives_late_never_makes_a_path_down() -> None:
    lost = each("t-1", Outcome.TIMED_OUT, at_ms=seconds(2, 5))
    answered = each("t-1", 20.0, at_ms=seconds(1, 2))
    paths = fold(fold(Paths(), lost, 5), answered, 5)
    assert not only(metrics(paths, 5).down)
    fold(paths, each("t-1", Outcome.TIMED_OUT, at_ms=seconds(5, 8)), 8)
    assert only(metrics(paths, 8).down)


@settings(max_examples=40)
@given(st.lists(st.floats(20, 200, width=32), min_size=10, max_size=60), st.randoms(use_true_random=False))
def test_order_leaves_delay_variation_alone_when_each_pane_has_seen_the_least_delay(
    rtts: list[float], random: Any
) -> None:
    each_pane = [[Sample("t-1", at, 20.0), Sample("t-1", at, r)] for at, r in zip(seconds(0, 60), rtts, strict=False)]
    forward, shuffled = Paths(), Paths()
    for pane in each_pane:
        fold(forward, pane, 60)
    for pane in random.sample(each_pane, len(each_pane)):
        fold(shuffled, pane, 60)
    assert_same(metrics(forward, 61), metrics(shuffled, 61), but=("log_latency_error",))


def test_an_outages_backlog_changes_the_past_and_not_the_present() -> None:
    """Thirty seconds of a bad path, known only now, weigh at most exp(-30 s / fast_tau) beside what is fresh."""
    fresh = each("t-1", 20.0, at_ms=seconds(60, 70), probes=4)
    backlog = each("t-1", 400.0, at_ms=seconds(10, 30), probes=3) + each(
        "t-1", Outcome.TIMED_OUT, at_ms=seconds(10, 30), probes=1
    )
    paths = as_it_comes(fresh, 70)
    before = metrics(paths, 70)
    fold(paths, backlog, 70)
    after = metrics(paths, 70)

    newest_s, answered = 69, 60
    weight_at_most = answered * np.exp(-(newest_s - 29) * 1000 / POLICY.fast_tau_ms)
    fresh_weight = 4.0  # the newest pane alone
    allowed = weight_at_most / fresh_weight * (400 - 20)
    assert abs(only(after.latency_ms) - only(before.latency_ms)) <= allowed < 0.02
    assert only(after.fast_loss_ratio) < 0.001  # losses count for three times as long
    assert only(after.age_ms) == only(before.age_ms)
    assert not only(after.down)
    # The past is told as it was: as if the backlog had come in time.
    assert only(after.slow_latency_ms) > 2 * only(before.slow_latency_ms)
    assert_same(after, metrics(as_it_comes(backlog + fresh, 70), 70), but=_BY_ARRIVAL)


def test_a_backlog_alone_is_no_fresh_data() -> None:
    paths = fold(Paths(), each("t-1", 20.0, at_ms=seconds(0, 10), probes=4), 70)
    found = metrics(paths, 70)
    assert only(found.age_ms) == 60_000
    assert only(found.confidence) < 0.9


@pytest.mark.parametrize(("probes", "ratio_max"), [(2, 0.02), (4, 0.01), (10, 0.004), (30, 0.0012)])
def test_one_lost_probe_among_many_is_next_to_no_loss(probes: int, ratio_max: float) -> None:
    samples = each("t-1", 20.0, at_ms=seconds(0, 60), probes=probes)
    samples[-1] = Sample("t-1", samples[-1].at_ms, Outcome.TIMED_OUT)
    found = metrics(as_it_comes(samples, 60), 60)
    assert 0 < only(found.loss_ratio) < ratio_max
    # What is claimed is what the probes of the loss window prove.
    sent = probes * (1 - np.exp(-60 * PANE_MS / LOSS_TAU_MS)) / (1 - np.exp(-PANE_MS / LOSS_TAU_MS))
    proven = float(proven_share(np.array(1.0), np.array(sent), float(_LOSS_Z[0, 0])))
    assert only(found.fast_loss_ratio) == pytest.approx(proven, rel=1e-3)


def test_a_path_that_loses_a_tenth_is_said_to_lose_nearly_that() -> None:
    samples = each("t-1", 20.0, at_ms=seconds(0, 120), probes=18) + each(
        "t-1", Outcome.TIMED_OUT, at_ms=seconds(0, 120), probes=2
    )
    assert 0.08 < only(metrics(as_it_comes(samples, 120), 120).loss_ratio) < 0.1


@pytest.mark.parametrize("how", FAILED)
def test_fast_failures_count_as_loss_and_not_as_low_latency(how: Outcome) -> None:
    answered = each("t-1", 80.0, at_ms=seconds(0, 30), probes=4)
    alone = metrics(as_it_comes(answered, 30), 30)
    mixed = metrics(as_it_comes(answered + each("t-1", how, at_ms=seconds(0, 30), probes=4), 30), 30)
    assert only(mixed.latency_ms) == pytest.approx(80.0)
    assert only(mixed.delay_variation_ms) == pytest.approx(only(alone.delay_variation_ms))
    assert only(alone.loss_ratio) == 0
    assert 0.35 < only(mixed.loss_ratio) < 0.5


@pytest.mark.parametrize("how", OWN_FAULT)
def test_what_the_agent_did_not_send_is_neither_loss_nor_latency_nor_silence(how: Outcome) -> None:
    answered = each("t-1", 80.0, at_ms=seconds(0, 30), probes=4)
    own = each("t-1", how, at_ms=seconds(0, 30), probes=50)
    assert_same(metrics(as_it_comes(answered + own, 30), 31), metrics(as_it_comes(answered, 30), 31))


@pytest.mark.parametrize("how", OWN_FAULT)
def test_an_agent_that_sends_nothing_leaves_its_path_unknown_and_not_down(how: Outcome) -> None:
    found = metrics(as_it_comes(each("t-1", how, at_ms=seconds(0, 30), probes=4), 30), 30)
    assert np.isnan(only(found.age_ms))
    assert np.isnan(only(found.loss_ratio))
    assert only(found.confidence) == 0
    assert not only(found.down)


def test_an_hour_in_which_the_agent_could_send_nothing_proves_nothing_and_breaks_nothing() -> None:
    paths = as_it_comes(each("t-1", Outcome.TIMED_OUT, at_ms=seconds(0, 5)), 5)
    for minute in range(1, 61):  # counts fade through 1e-300 to exactly 0
        at_s = 60 * minute
        fold(paths, each("t-1", Outcome.NOT_SENT, at_ms=seconds(at_s, at_s + 1)), at_s + 1)
        found = metrics(paths, at_s + 1)
        assert not only(found.fast_loss_ratio) > 0.01**minute  # NaN when nothing at all is left
        assert not only(found.loss_ratio) > 0.6**minute
        assert 0 <= only(found.confidence) < 0.1


def test_down_is_so_many_unanswered_probes_in_a_row_and_one_answer_ends_it() -> None:
    paths = as_it_comes(each("t-1", 20.0, at_ms=seconds(0, 10)), 10)
    downs = []
    for second in range(10, 10 + POLICY.down_after_probes):
        fold(paths, each("t-1", Outcome.TIMED_OUT, at_ms=seconds(second, second + 1)), second + 1)
        downs.append(bool(only(metrics(paths, second + 1).down)))
    assert downs == [False] * (POLICY.down_after_probes - 1) + [True]
    fold(paths, each("t-1", 20.0, at_ms=seconds(20, 21)), 21)
    assert not only(metrics(paths, 21).down)


def test_a_path_of_which_every_answer_is_lost_keeps_the_latency_it_had_and_is_all_loss() -> None:
    samples = each("t-1", 20.0, at_ms=seconds(0, 30), probes=4) + each(
        "t-1", Outcome.TIMED_OUT, at_ms=seconds(30, 60), probes=4
    )
    found = metrics(as_it_comes(samples, 60), 60)
    assert only(found.down)
    assert only(found.loss_ratio) > 0.8
    assert only(found.latency_ms) == pytest.approx(20.0)


def test_a_path_is_down_when_most_of_the_agents_that_report_say_so() -> None:
    def down(says: dict[str, float | Outcome]) -> bool:
        samples = [s for a, seen in says.items() for s in each("t-1", seen, at_ms=seconds(0, 5), agent=a)]
        return bool(only(metrics(as_it_comes(samples, 5), 5).down))

    lost = Outcome.TIMED_OUT
    assert down({"a": lost, "b": lost, "c": 20.0})
    assert not down({"a": lost, "b": 20.0, "c": 20.0})
    assert not down({"a": lost, "b": 20.0})


def test_an_agent_that_falls_silent_counts_until_it_is_stale_and_then_the_others_say_what_is() -> None:
    both = each("t-1", 20.0, at_ms=seconds(0, 60), probes=4, agent="a") + each(
        "t-1", 200.0, at_ms=seconds(0, 60), probes=4, agent="b"
    )
    paths = as_it_comes(both, 60)
    assert only(metrics(paths, 60).latency_ms) == pytest.approx(20.0)  # one alone does not make a path look bad
    stale_s = 60 + POLICY.stale_after_ms // 1000
    for second in range(60, stale_s + 1):
        found = metrics(paths, second)
        assert only(found.latency_ms) == pytest.approx(20.0)
        assert found.suspects == ()
        fold(paths, each("t-1", 200.0, at_ms=seconds(second, second + 1), probes=4, agent="b"), second + 1)
    after = metrics(paths, stale_s + 1)
    assert only(after.latency_ms) == pytest.approx(200.0)
    assert only(after.slow_latency_ms) == pytest.approx(200.0)
    assert after.suspects == ("a",)
    assert only(after.confidence) > 0.9


def test_the_only_agent_of_a_path_does_not_fade_when_it_falls_silent_but_its_word_counts_less() -> None:
    paths = as_it_comes(each("t-1", 20.0, at_ms=seconds(0, 60), probes=4), 60)
    fresh, old = metrics(paths, 60), metrics(paths, 150)
    assert only(old.latency_ms) == only(fresh.latency_ms)
    assert only(old.confidence) < only(fresh.confidence)
    assert only(old.age_ms) == 90_000


def test_stale_is_not_down() -> None:
    lost = as_it_comes(each("t-1", Outcome.TIMED_OUT, at_ms=seconds(0, 10)), 10)
    for paths in (as_it_comes(each("t-1", 20.0, at_ms=seconds(0, 10)), 10), lost):
        found = metrics(paths, 10 + POLICY.stale_after_ms / 1000 + 1)
        assert only(found.age_ms) > POLICY.stale_after_ms
        assert not only(found.down)
    assert only(metrics(lost, 10).down)


def test_time_in_which_nothing_reached_us_makes_nothing_old() -> None:
    paths = as_it_comes(each("t-1", 20.0, at_ms=seconds(0, 10)), 10)
    cut_off = each("t-1", 20.0, at_ms=seconds(70, 71))
    paths.fold(panes(cut_off), TARGETS, POLICY, T0 + 71_000, 12_000)
    assert only(metrics(paths, 12).age_ms) == 0


def test_a_target_that_nobody_probed_is_unknown() -> None:
    found = metrics(as_it_comes(each("t-1", 20.0, at_ms=seconds(0, 10)), 10), 10)
    for name in ("latency_ms", "loss_ratio", "delay_variation_ms", "age_ms"):
        assert np.isnan(only(getattr(found, name), "t-3")), name
    assert only(found.confidence, "t-3") == 0
    assert not only(found.down, "t-3")


def test_rows_about_regions_that_are_no_candidates_are_left_out() -> None:
    mine = each("t-1", 20.0, at_ms=seconds(0, 10), probes=2)
    strange = each("t-9", 300.0, at_ms=seconds(0, 10), probes=3)
    assert_same(metrics(as_it_comes(mine + strange, 10), 10), metrics(as_it_comes(mine, 10), 10))


_DISTRIBUTIONS = {
    "exponential": lambda random, n: random.exponential(12.0, n),
    "gamma": lambda random, n: random.gamma(2.0, 4.0, n),
    "uniform": lambda random, n: random.uniform(0, 30.0, n),
    "two-routes": lambda random, n: np.where(random.random(n) < 0.2, 40.0, 0.0) + random.exponential(2.0, n),
}


@pytest.mark.parametrize("name", _DISTRIBUTIONS)
def test_delay_variation_is_the_95th_percentile_less_the_least(name: str) -> None:
    """RFC 5481, within the width of a bin (a factor of 1.55) interpolated: 15 %."""
    random = np.random.default_rng(11)
    rtts = 30.0 + _DISTRIBUTIONS[name](random, 60 * 50)
    samples = [Sample("t-1", T0 + i * 20, float(np.float32(r))) for i, r in enumerate(rtts)]
    found = only(metrics(as_it_comes(samples, 60), 60).delay_variation_ms)
    assert found == pytest.approx(np.quantile(rtts, 0.95) - rtts.min(), rel=0.15)


def test_delay_variation_follows_a_route_that_became_longer_within_two_windows() -> None:
    samples = each("t-1", 20.0, at_ms=seconds(0, 60), probes=4) + each("t-1", 90.0, at_ms=seconds(60, 300), probes=4)
    paths = as_it_comes(samples[: 4 * 70], 70)
    assert only(metrics(paths, 70).delay_variation_ms) > 50  # for now, half of the delays vary
    as_it_comes(samples[4 * 70 :], 300, paths)
    assert only(metrics(paths, 300).delay_variation_ms) < 5


def _kept(paths: Paths) -> Paths:
    scalars, arrays = paths.save()
    return Paths.load(from_scalars(to_scalars(scalars)), from_columns(to_columns(arrays)))


def _bytes(paths: Paths) -> tuple[str, list[Any]]:
    scalars, arrays = paths.save()
    return to_scalars(scalars), to_columns(arrays)


@settings(max_examples=40)
@given(_SAMPLES, _SAMPLES)
def test_a_state_saved_and_loaded_goes_on_bit_for_bit(before: list[Sample], after: list[Sample]) -> None:
    paths = fold(Paths(), before, 60)
    again = _kept(paths)
    assert _bytes(again) == _bytes(paths)
    later = [Sample(s.target, s.at_ms + 45_000, s.seen, s.agent) for s in after]
    assert _bytes(fold(again, later, 105)) == _bytes(fold(paths, later, 105))
    for name in (f.name for f in fields(PathMetrics)):
        np.testing.assert_array_equal(getattr(metrics(again, 106), name), getattr(metrics(paths, 106), name))


def test_nothing_saved_is_nothing_loaded() -> None:
    assert _bytes(_kept(Paths())) == _bytes(Paths())
    assert np.isnan(metrics(_kept(Paths()), 1).latency_ms).all()


def test_a_column_that_an_older_snapshot_lacks_starts_as_if_new() -> None:
    scalars, arrays = fold(Paths(), each("t-1", Outcome.TIMED_OUT, at_ms=seconds(0, 5)), 5).save()
    del arrays["unanswered_run"]
    assert not only(metrics(Paths.load(scalars, arrays), 5).down)


def test_targets_that_get_other_numbers_keep_what_was_seen_of_them() -> None:
    samples = each("t-1", 20.0, at_ms=seconds(0, 10)) + each("t-2", 50.0, at_ms=seconds(0, 10))
    samples += each("t-3", 80.0, at_ms=seconds(0, 10))
    paths = as_it_comes(samples, 10)
    paths.renumber({2: 0, 0: 1})  # t-3 comes first, t-1 second, t-2 has left
    found = joined(paths, 3, POLICY, 10_000)
    assert found.latency_ms[:2] == pytest.approx([80.0, 20.0])
    assert np.isnan(found.latency_ms[2])
    paths.fold(panes(each("t-3", 80.0, at_ms=seconds(10, 11))), {"t-3": 0, "t-1": 1}, POLICY, T0 + 11_000, 11_000)
    assert len(paths.columns["target"]) == 2
