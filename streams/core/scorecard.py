"""A primary's record of one model: what it said, what came, and how far that proves it better than climatology.

    learn     the outcomes of one moment of prediction
    figures   the record as numbers

Everything is kept in sums of fixed size, and saved as such. Time goes in blocks of ten horizons (see `skill_bound.py`).
When a block is over, what is older weighs less. The record that a model is judged by fades over some hundred blocks (a
day, where the horizon is 30 s), and one that fades over a month stays beside it, so that a lucky day does not count for
more than all that came before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas.records import Array
from streams.core.alarms import NOTHING, Alarmed, Alarms
from streams.core.outcomes import Outcomes
from streams.core.skill_bound import block_sums, faded, informative_blocks, no_sums, skill_and_low

BLOCK_HORIZONS: Final = 10
_DAY_MS: Final = 86_400_000.0
# Time constants, lately, in the long run and just now: a day, a month and three hours where the horizon is 30 s.
_FADE_BLOCKS: Final = np.array([288.0, 30 * 288.0, 36.0])
_LATELY, _LONG, _NOW = 0, 1, 2
_NOW_BLOCKS_MIN: Final = 2.0  # less says nothing about now
# Bins of probability, equally wide on the scale of log odds: those of interest are near 0.
_BINS: Final = 32
_LOG_ODDS: Final = (-9.0, 3.0)
# What is counted beside, in one row: predictions, hits, squared errors of model and yardstick, time, alarms.
_COUNTS: Final = ("outcomes", "hits", "model", "yardstick", "passed_ms", *Alarmed._fields)
_OUTCOMES, _HITS, _MODEL, _YARDSTICK, _PASSED, _FALSE, _DISRUPTIONS, _FORETOLD, _LEAD = range(len(_COUNTS))


@dataclass(frozen=True, slots=True)
class Block:
    """What a block that is over brought: the squared errors of the yardstick, and by how much the model's were less.

    `surprise`: by how many standard deviations of the blocks before it that is more than their skill promised.
    """

    yardstick: float
    difference: float
    surprise: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The record as numbers, lately; NaN: not known yet. `skill_low` holds lately and in the long run."""

    outcomes: float  # fading counts
    hits: float
    blocks: float  # with disruptions in them, so to say
    brier: float
    brier_climatology: float
    skill: float
    skill_low: float
    auc_pooled: float
    auc_within: float
    calibration_error: float
    calibration: list[tuple[float, float, float]]  # by bin: mean probability, share of hits, count
    foretold_ratio: float  # of the disruptions
    lead_ms: float  # mean, of the foretold
    false_alarms_per_day: float


class Scorecard:
    """Sums over what a model said of a primary's paths."""

    def __init__(self, targets: int) -> None:
        self._alarms = Alarms(targets)
        self._block = -1  # number of the open one
        self._seen_at_ms = 0
        self._open = np.zeros(len(_COUNTS))
        self._counts = np.zeros(len(_COUNTS))
        self._sums = no_sums(len(_FADE_BLOCKS))
        # How often a path had a probability in a bin: no hit, hit. Of half the size, for snapshots hold it.
        self._said = np.zeros((2, targets, _BINS), np.float32)
        self._probability = np.zeros(_BINS)  # sum, by bin

    def learn(self, outcomes: Outcomes, horizon_ms: int, alarm_probability: float) -> Block | None:
        """Take in one moment of prediction; the block that it ends, if it does."""
        ended = self._turn(outcomes.known_at_ms // (BLOCK_HORIZONS * horizon_ms), outcomes.known_at_ms, horizon_ms)
        p, hit = outcomes.probability, outcomes.hit
        errors = np.array((p, outcomes.climatology))
        errors -= hit
        errors *= errors
        now = self._open
        now[_OUTCOMES] += len(p)
        now[_HITS] += np.count_nonzero(hit)
        now[_MODEL:_PASSED] += np.add.reduce(errors, axis=1)
        alarmed = self._alarms.learn(outcomes, alarm_probability)
        if alarmed is not NOTHING:
            now[_FALSE:] += alarmed
        place = bins(p)
        self._said[hit.view(np.int8), outcomes.path, place] += 1  # a path is there once
        np.add.at(self._probability, place, p)
        return ended

    def _turn(self, block: int, now_ms: int, horizon_ms: int) -> Block | None:
        """Close the open block if another has begun."""
        if self._seen_at_ms:  # time in which nothing was predicted is no time without false alarms
            self._open[_PASSED] += min(max(now_ms - self._seen_at_ms, 0), horizon_ms)
        self._seen_at_ms = now_ms
        if block == self._block:
            return None
        first, passed = self._block < 0, max(block - self._block, 1)
        self._block = block
        if first:
            return None
        found = self._over(float(self._open[_YARDSTICK]), float(self._open[_YARDSTICK] - self._open[_MODEL]))
        keep = np.exp(-passed / _FADE_BLOCKS)
        self._sums = faded(self._sums, keep) + block_sums(found.yardstick, found.difference)
        self._counts = self._counts * keep[_LATELY] + self._open
        self._open = np.zeros(len(_COUNTS))
        self._said *= keep[_LATELY]
        self._probability *= keep[_LATELY]
        return found

    def _over(self, yardstick: float, difference: float) -> Block:
        c, d, cc, cd, dd = self._sums[_LATELY].tolist()
        if not c or not cc:
            return Block(yardstick, difference, 0.0)
        skill = d / c
        spread = math.sqrt(max(dd - 2 * skill * cd + skill * skill * cc, 0.0) * cc) / c
        surprise = (difference - skill * yardstick) / spread if spread > 0 else 0.0
        return Block(yardstick, difference, surprise)

    def begin_anew(self) -> None:
        """Forget what is recent: another regime has begun. What holds in the long run stays."""
        self._sums[[_LATELY, _NOW]] = 0
        self._counts[:] = 0
        self._said[:] = 0
        self._probability[:] = 0

    # -- what it says -----------------------------------------------------------------------------------------------

    @property
    def hits(self) -> float:
        """Of the blocks that are over."""
        return float(self._counts[_HITS])

    @property
    def blocks(self) -> float:
        """How many equal blocks would say as much."""
        return float(informative_blocks(self._sums)[_LATELY])

    @property
    def skill_low(self) -> float:
        """The lower of the two bounds, lately and in the long run; minus infinity while nothing is known."""
        return float(skill_and_low(self._sums)[1][:_NOW].min())

    @property
    def skill_now(self) -> float:
        """Of the last hours, without a bound; infinite where they say too little."""
        if informative_blocks(self._sums)[_NOW] < _NOW_BLOCKS_MIN:
            return math.inf
        return float(skill_and_low(self._sums)[0][_NOW])

    def figures(self) -> Figures:
        """The record of the blocks that are over."""
        n, hits, model, yardstick, passed, false, disruptions, foretold, lead = self._counts.tolist()
        skill, low = skill_and_low(self._sums)
        missed, hit = self._said.astype(np.float64)
        return Figures(
            outcomes=n,
            hits=hits,
            blocks=self.blocks,
            brier=_ratio(model, n),
            brier_climatology=_ratio(yardstick, n),
            skill=float(skill[_LATELY]),
            skill_low=float(low[:_NOW].min()),
            auc_pooled=auc(missed.sum(axis=0), hit.sum(axis=0)),
            auc_within=auc(missed, hit),
            calibration_error=self._calibration_error(),
            calibration=self._calibration(),
            foretold_ratio=_ratio(foretold, disruptions),
            lead_ms=_ratio(lead, foretold),
            false_alarms_per_day=_ratio(false * _DAY_MS, passed),
        )

    def _calibration(self) -> list[tuple[float, float, float]]:
        missed, hit = self._said.sum(axis=1, dtype=np.float64)
        count = missed + hit
        some = np.flatnonzero(count > 0)
        columns = self._probability[some] / count[some], hit[some] / count[some], count[some]
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def _calibration_error(self) -> float:
        off = np.abs(self._probability - self._said[1].sum(axis=0, dtype=np.float64))
        return _ratio(float(off.sum()), float(self._said.sum(dtype=np.float64)))

    # -- state ------------------------------------------------------------------------------------------------------

    def renumber(self, place: dict[int, int], targets: int) -> None:
        """Targets have new numbers."""
        said, self._said = self._said, np.zeros((2, targets, _BINS), np.float32)
        for old, new in place.items():
            self._said[:, new] = said[:, old]
        self._alarms = self._alarms.renumber(place, targets)

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        arrays = {name: getattr(self, f"_{name}") for name in _ARRAYS}
        arrays |= {f"alarms.{name}": value for name, value in self._alarms.save().items()}
        return {"block": self._block, "seen_at_ms": self._seen_at_ms}, arrays

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array]) -> Scorecard:
        """The state again."""
        card = cls(0)
        card._block, card._seen_at_ms = scalars["block"], scalars["seen_at_ms"]
        for name in _ARRAYS:
            setattr(card, f"_{name}", arrays[name])
        alarms = {name.removeprefix("alarms."): value for name, value in arrays.items() if name.startswith("alarms.")}
        card._alarms = Alarms.load(alarms)
        return card


_ARRAYS: Final = ("open", "counts", "sums", "said", "probability")


def bins(probability: Array) -> Array:
    """(rows,) the bin of each probability; any in [0, 1]."""
    with np.errstate(divide="ignore"):
        log_odds = np.log(probability) - np.log1p(-probability)
    least, most = _LOG_ODDS
    share = (np.minimum(np.maximum(log_odds, least), most) - least) / (most - least)
    return np.minimum((share * _BINS).astype(np.int64), _BINS - 1)  # type: ignore[no-any-return]


def auc(missed: Array, hit: Array) -> float:
    """Probability that a hit had the higher probability of the two, within one row of bins; a tie counts half.

    Shapes: (bins,) or (paths, bins), counts of predictions without and with a hit. Paths count by their number of
    pairs; NaN where there is none.
    """
    missed, hit = np.atleast_2d(missed), np.atleast_2d(hit)
    below = np.cumsum(missed, axis=1) - missed
    right = float((hit * (below + missed / 2)).sum())
    return _ratio(right, float((hit.sum(axis=1) * missed.sum(axis=1)).sum()))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
