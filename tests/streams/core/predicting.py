"""Paths whose risk is known, models of every kind, and what came: streams of outcomes for scorecards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np

from schemas.records import Array
from streams.core.outcomes import Climatology, Outcomes

HORIZON_MS: Final = 30_000
EVERY_MS: Final = 10_000
T0: Final = 1_700_000_000_000
DAY: Final = 86_400_000 // EVERY_MS  # moments of prediction
Model = Literal["knows", "climatology", "shuffled", "noise", "timid", "nervous"]


class World:
    """Paths that are at risk now and then; a model says what it knows, or makes up, of each.

    `knows`: the risk itself. `timid`: half of it. `climatology`: what the yardstick says, give or take.
    `nervous`: ten times as much as is usual. `shuffled`: another path's risk, at another time. `noise`: anything.
    """

    def __init__(self, seed: int, paths: int = 6) -> None:
        self._rng = np.random.default_rng(seed)
        self._paths = paths
        self._climatology = Climatology(paths)
        self._at_risk = np.zeros(paths, bool)
        self._hit = np.zeros(paths, bool)
        self._usual: list[Array] = [self._climatology.rates()] * 4
        self._moment = 0

    def run(self, moments: int, model: Model) -> Iterator[Outcomes]:
        """What came of so many moments of prediction, one after the other."""
        rng = self._rng
        for _ in range(moments):
            begins, ends = rng.random(self._paths) < 0.0015, rng.random(self._paths) < 0.15
            self._at_risk = (self._at_risk & ~ends) | begins
            risk = np.where(self._at_risk, 0.45, 0.002)
            # Predictions that follow each other are about the same disruption.
            again = rng.random(self._paths) < 0.6
            self._hit = np.where(again & self._at_risk, self._hit, rng.random(self._paths) < risk)
            # Of the moment of prediction: labels of the last horizon were not known then.
            usual = self._usual.pop(0)
            at_ms = T0 + self._moment * EVERY_MS
            path = np.arange(self._paths)
            said = np.clip(self._says(model, risk, usual), 1e-6, 1 - 1e-6)
            yield Outcomes(at_ms, at_ms + HORIZON_MS, path, said, usual, self._hit.copy())
            self._climatology.learn(path, self._hit)
            self._usual.append(self._climatology.rates())
            self._moment += 1

    def _says(self, model: Model, risk: Array, usual: Array) -> Array:
        match model:
            case "knows":
                return risk
            case "timid":
                return risk / 2 + usual / 2
            case "nervous":
                return np.minimum(10 * usual, 0.9)  # type: ignore[no-any-return]
            case "climatology":
                return usual * np.exp(self._rng.normal(0, 0.3, self._paths))
            case "shuffled":
                return np.where(self._rng.random(self._paths) < 0.02, 0.45, 0.002)
            case "noise":
                return self._rng.random(self._paths)
