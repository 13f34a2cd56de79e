"""The bound of the skill is below the skill, holds as often as it says, and no single block proves anything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streams.core.skill_bound import SURE, block_sums, faded, informative_blocks, no_sums, skill_and_low

blocks = st.lists(
    st.tuples(st.floats(1e-6, 10), st.floats(-20, 1)).map(lambda b: (b[0], b[0] * b[1])), min_size=1, max_size=40
)


def summed(of: list[tuple[float, float]]) -> np.ndarray:
    return no_sums(1) + sum(block_sums(c, d) for c, d in of)


@given(blocks)
def test_the_bound_is_below_the_skill_and_the_skill_is_one_at_most(of: list[tuple[float, float]]) -> None:
    skill, low = skill_and_low(summed(of))
    assert skill[0] <= 1 + 1e-9
    assert low[0] <= skill[0]
    assert 1 - 1e-9 <= informative_blocks(summed(of))[0] <= len(of) + 1e-9


def test_nothing_and_one_block_prove_nothing() -> None:
    assert skill_and_low(no_sums(1))[1][0] == -np.inf
    assert skill_and_low(summed([(1.0, 1.0)]))[1][0] == -np.inf
    # All that came, came in one block.
    assert skill_and_low(summed([(1.0, 0.9), *[(1e-6, 1e-7)] * 50]))[1][0] < 0


@given(blocks, st.floats(0.01, 1.0))
def test_what_fades_as_a_whole_says_the_same(of: list[tuple[float, float]], keep: float) -> None:
    sums = summed(of)
    assume(abs(informative_blocks(sums)[0] - 2) > 0.01)
    for now, before in zip(skill_and_low(faded(sums, np.array([keep]))), skill_and_low(sums), strict=True):
        assert now == pytest.approx(before, rel=1e-5, abs=1e-7)


def test_a_model_without_skill_is_below_its_bound_hardly_more_often_than_the_level_says() -> None:
    rng = np.random.default_rng(1)
    above, trials = 0, 2000
    for _ in range(trials):
        yardstick = rng.exponential(1.0, 40) * (rng.random(40) < 0.5) + 1e-3
        above += skill_and_low(summed(list(zip(yardstick, yardstick * rng.normal(0, 0.3, 40), strict=True))))[1][0] > 0
    assert above / trials < 1.5 * (1 - SURE)
