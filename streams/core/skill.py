"""How good probabilities were, once it is known what came of them.

*Discrimination* is the area under the ROC curve: how often a prediction before a disruption was higher than one before
none (ties count half). Pooled over all paths it also pays for knowing which paths break often; within a path it does
not. *Calibration* is whether of those that were given 10 % one in ten came true. The Brier score (mean squared error)
holds both, and skill is what of a yardstick's Brier score is saved.

Predictions lie close together in time and share what befalls them, so the bound of a skill draws whole blocks of them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from schemas.records import Array

_BINS: Final = 10
_LEVEL: Final = 0.9
_DRAWS: Final = 1000


class Calibration(NamedTuple):
    """By bins, those without predictions left out; arrays (bins,)."""

    predicted: Array  # mean probability
    rate: Array  # how often it came true
    counts: Array


def auc(probability: Array, hit: Array) -> float:
    """Area under the ROC curve; NaN when all or none are hits.

    Shapes: both (predictions,), `hit` bool. Source: Mann and Whitney's U; ties count half.
    """
    hits, others, won = _won(probability, hit, np.zeros(len(hit), np.int64))
    return float(won[0] / (hits[0] * others[0])) if len(hit) and hits[0] and others[0] else float("nan")


def auc_within(probability: Array, hit: Array, path: Array) -> float:
    """The same from pairs of one path only, every pair counting the same; NaN when no path has both.

    Shapes: all (predictions,), `path` any whole numbers.
    """
    number = np.unique(path, return_inverse=True)[1]
    hits, others, won = _won(probability, hit, number)
    pairs = float((hits * others).sum())
    return float(won.sum() / pairs) if pairs else float("nan")


def brier(probability: Array, hit: Array) -> float:
    """Mean squared error; NaN of nothing. Shapes: both (predictions,)."""
    return float(np.mean((probability - hit) ** 2)) if len(hit) else float("nan")


def calibration(probability: Array, hit: Array, bins: int = _BINS) -> Calibration:
    """In bins of (nearly) as many predictions each, equal ones in one: where events are rare, nearly all are small."""
    if not len(hit):
        return Calibration(*np.empty((3, 0)))
    edges = np.unique(np.quantile(probability, np.arange(1, bins) / bins, method="inverted_cdf"))
    number = edges.searchsorted(probability)
    count = np.bincount(number, minlength=len(edges) + 1)
    some = count > 0
    predicted, rate = (np.bincount(number, of, len(count))[some] / count[some] for of in (probability, hit))
    return Calibration(predicted, rate, count[some])


def ece(probability: Array, hit: Array, bins: int = _BINS) -> float:
    """Expected calibration error: mean distance of `calibration`'s bins, by count; NaN of nothing."""
    of = calibration(probability, hit, bins)
    return float(np.average(np.abs(of.predicted - of.rate), weights=of.counts)) if len(hit) else float("nan")


def skill(probability: Array, yardstick: Array, hit: Array) -> float:
    """What of the yardstick's Brier score is saved: at most 1, below 0 if worse; NaN if the yardstick was perfect."""
    against = brier(yardstick, hit)
    return 1.0 - brier(probability, hit) / against if against > 0 else float("nan")


def skill_low(
    probability: Array,
    yardstick: Array,
    hit: Array,
    block: Array,
    *,
    seed: int,
    level: float = _LEVEL,
    draws: int = _DRAWS,
) -> float:
    """Lower end of a two-sided interval of the skill at `level`, by a bootstrap of blocks; NaN with fewer than two.

    Shapes: all but the last three (predictions,); `block` any whole numbers: predictions of one block share what
    befalls them. The same seed gives the same bound.
    """
    number = np.unique(block, return_inverse=True)[1]
    blocks = int(number.max(initial=-1)) + 1
    if blocks < 2:
        return float("nan")
    errors = np.array([np.bincount(number, (of - hit) ** 2, blocks) for of in (probability, yardstick)])
    drawn = np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)
    ours, theirs = errors @ drawn.T
    some = theirs > 0
    return float(np.quantile(1 - ours[some] / theirs[some], (1 - level) / 2)) if some.any() else float("nan")


def _won(probability: Array, hit: Array, group: Array) -> tuple[Array, Array, Array]:
    """(groups,) hits, others, and how many of their pairs the hit won."""
    groups = int(group.max(initial=0)) + 1
    order = np.lexsort((probability, group))
    hit, group, probability = hit[order].astype(np.float64), group[order], probability[order]
    new = np.ones(len(hit), bool)
    new[1:] = (np.diff(probability) != 0) | (np.diff(group) != 0)
    tie = np.cumsum(new) - 1  # predictions that are equal
    tie_hits = np.bincount(tie, hit)
    tie_others = np.bincount(tie) - tie_hits
    hits, others = np.bincount(group, hit, groups), np.bincount(group, 1 - hit, groups)
    of_tie = group[new]
    below = np.cumsum(tie_others) - tie_others - (np.cumsum(others) - others)[of_tie]
    return hits, others, np.bincount(of_tie, tie_hits * (below + 0.5 * tie_others), groups)
