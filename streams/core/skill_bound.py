"""How much better than climatology a model's probabilities were, and how sure that is.

The Brier score is the mean squared difference of a probability and what came (0 or 1); the skill is the share of
climatology's Brier score that the model saves, 1 at best, 0 no better, below 0 worse. Both are judged on the same
predictions, so the differences are paired.

Predictions that follow each other are about the same disruptions. So what is added up are blocks of time, over all
paths, long beside the horizon: blocks are taken as independent, predictions are not. Of the ratio of two sums over
blocks the error follows from the blocks' residuals (the delta method for a ratio of means: W. G. Cochran, Sampling
Techniques, 6.3). Most blocks see no disruption and say next to nothing: the degrees of freedom are those blocks' that
climatology's error is made of.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import stdtrit

from schemas.records import Array

# Sums over blocks, of weights w: of the yardstick's squared errors c, of the differences d in the model's favour, ...
SUMS: Final = ("c", "d", "cc", "cd", "dd")  # ... and of their products, with w squared
SURE: Final = 0.975  # one-sided


def no_sums(rows: int) -> Array:
    """(rows, sums) of nothing."""
    return np.zeros((rows, len(SUMS)))


def faded(sums: Array, keep: Array) -> Array:
    """The same with every block's weight multiplied by `keep` (rows,)."""
    return sums * keep[:, None] ** np.array([1, 1, 2, 2, 2])  # type: ignore[no-any-return]


def block_sums(yardstick: float, difference: float) -> Array:
    """(sums,) of one block, of its two sums over predictions."""
    c, d = yardstick, difference
    return np.array([c, d, c * c, c * d, d * d])


def skill_and_low(sums: Array) -> tuple[Array, Array]:
    """(rows,) skill and the lower end of its one-sided interval; NaN and minus infinity where fewer than two blocks
    say something.

    `sums`: (rows, sums), row by row its own record.
    """
    c, d, cc, cd, dd = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        skill = d / c
        residual = np.maximum(dd - 2 * skill * cd + skill * skill * cc, 0.0)
        blocks = informative_blocks(sums)
        error = np.sqrt(residual * blocks / (blocks - 1)) / c
        low = skill - stdtrit(np.maximum(blocks - 1, 1.0), SURE) * error
    return skill, np.where(blocks >= 2, low, -np.inf)


def informative_blocks(sums: Array) -> Array:
    """(rows,) how many equal blocks would say as much: a few with all the disruptions count as few (L. Kish 1965)."""
    c, _, cc, _, _ = sums.T
    return np.divide(c * c, cc, out=np.zeros_like(c), where=cc > 0)  # type: ignore[no-any-return]
