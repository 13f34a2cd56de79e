"""What two panes prove at once, and what they do not: a plain change is followed, a hiccup is not."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Array, Outcome, Policy
from streams.core.jumps import JUMPS, jumps
from tests.streams.core.story import Network, Seen, Story

GOOD = 0.037
RTT_MS = {"t-1": 50.0, "t-2": 74.0, "t-3": 130.0}
_PANES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 500_000), st.booleans()), min_size=1, max_size=12
)


def columns(views: int = 1) -> dict[str, Array]:
    return {name: np.full(views, start, dtype) for name, (dtype, start) in JUMPS.items()}


def seen(
    panes: list[tuple[int, int, int, bool]], state: dict[str, Array] | None = None
) -> tuple[Array, dict[str, Array]]:
    """What is found after each of (answered, failed, least us, in time), and the columns then."""
    answered, own, least, timely = (np.array(column).reshape(-1, 1) for column in zip(*panes, strict=True))
    state = columns() if state is None else state
    rows = {"answered": answered, "own": own, "rtt_min_us": least, "pane_at_ms": np.where(timely, 1000, 0)}
    state["newest_pane_at_ms"] = np.array([1000])
    return jumps(state, rows, np.array([0]), GOOD)[:, :, 0], state


@given(_PANES)
def test_many_panes_at_once_are_as_one_by_one(panes: list[tuple[int, int, int, bool]]) -> None:
    together, after = seen(panes)
    state = columns()
    each = [seen([pane], state)[0][:, 0] for pane in panes]
    assert np.array_equal(together.T, each)
    assert all(np.array_equal(after[name], state[name]) for name in JUMPS)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_level_is_the_least_of_two_panes_where_seven_answered(answered: int, before: int, failed: int) -> None:
    found, _ = seen([(before, 0, 30_000, True), (answered, failed, 20_000, True)])
    assert found[0, 1] == (20.0 if before and answered + before >= 7 else 0.0)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_more_losses_or_fewer_answers_never_make_a_surge_less(a: int, b: int, failed: int, failed_before: int) -> None:
    def surge(answered: int, lost: int) -> float:
        return float(seen([(a, failed_before, 1000, True), (answered, lost, 1000, True)])[0][1, 1])

    assert surge(b, failed) <= surge(b, failed + 1) <= 1
    assert surge(b + 1, failed) <= surge(b, failed)


def test_three_lost_of_few_are_no_surge_and_losses_in_one_of_two_panes_are_none() -> None:
    assert not seen([(0, 1, 0, True), (0, 2, 0, True)])[0][1].any()
    assert not seen([(20, 0, 1000, True), (10, 10, 1000, True), (20, 0, 1000, True)])[0][1].any()
    assert seen([(24, 6, 1000, True), (24, 6, 1000, True)])[0][1].tolist() == [0.0, 0.2]


def network(probes: int, seed: int, of_first: Callable[[random.Random, int], Seen] | None = None) -> Network:
    """Paths that are as steady as networks are, but for what probes of the first see."""
    chance = random.Random(seed)

    def sees(target: str, second: int) -> list[Seen]:
        if target == "t-1" and of_first is not None:
            return [of_first(chance, second) for _ in range(probes)]
        return [RTT_MS[target] * chance.lognormvariate(0, 0.02) for _ in range(probes)]

    return sees


def lossy(chance: random.Random, _: int) -> Seen:
    return Outcome.TIMED_OUT if chance.random() < 0.2 else 50.0


def slow(chance: random.Random, _: int) -> Seen:
    return 130.0 * chance.lognormvariate(0, 0.02)


def calm(probes: int, seed: int) -> Story:
    story = Story.begun(Policy())
    story.run(40, network(probes, seed), ("agent-1",))
    assert story.last.target_region == "t-1"
    return story


@pytest.mark.parametrize(("what", "probes", "seconds"), [(slow, 4, 2), (lossy, 30, 3)], ids=["slow", "lossy"])
@pytest.mark.parametrize("seed", range(8))
def test_a_plain_change_moves_the_target_within_seconds(
    what: Callable[[random.Random, int], Seen], probes: int, seconds: int, seed: int
) -> None:
    story = calm(probes, seed)
    story.run(seconds, network(probes, seed, what), ("agent-1",))
    assert story.last.target_region == "t-2"


@pytest.mark.parametrize("probes", [4, 30])
def test_a_second_of_loss_or_delay_moves_nothing(probes: int) -> None:
    for what in (slow, lambda chance, _: Outcome.TIMED_OUT if chance.random() < 0.5 else 50.0):
        story = calm(probes, probes)
        known = len(story.rankings)
        story.run(1, network(probes, 1, what), ("agent-1",))
        story.run(20, network(probes, 2), ("agent-1",))
        assert {r.target_region for r in story.rankings[known:]} == {"t-1"}
