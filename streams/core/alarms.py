"""Alarms: how long before a disruption the probability had passed the threshold, and how often for nothing.

An alarm of a path begins when its probability reaches the threshold, and ends below half of it, or when the path is not
predicted any more: then it is disrupted, or nobody measures it. It was false if no disruption followed any of its
predictions. Times are those of predictions: a lead is at least as long as is said here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from schemas.records import Array
from streams.core.outcomes import Outcomes

RELEASE: Final = 0.5  # of the threshold
NEVER: Final = -1


class Alarmed(NamedTuple):
    """What came to its end: false alarms, disruptions, those that an alarm had preceded, and the sum of their leads."""

    false: int = 0
    disruptions: int = 0
    foretold: int = 0
    lead_ms: int = 0


NOTHING: Final = Alarmed()


class Alarms:
    """State of each path's alarm, prediction by prediction."""

    def __init__(self, targets: int) -> None:
        self._since_ms = np.full(targets, NEVER)  # since when there is an alarm
        self._was_true = np.zeros(targets, bool)  # a disruption followed one of its predictions
        self._coming_ms = np.full(targets, NEVER)  # last prediction before a disruption, which has not come yet
        self._some = False  # alarms, or disruptions to come

    def learn(self, outcomes: Outcomes, threshold: float) -> Alarmed:
        """The outcomes of the next moment of prediction; nearly always it is NOTHING."""
        over_some = np.count_nonzero(outcomes.probability >= threshold)
        if not (self._some or over_some or np.count_nonzero(outcomes.hit)):
            return NOTHING
        hit, over, held = (np.zeros(len(self._since_ms), bool) for _ in range(3))
        hit[outcomes.path] = outcomes.hit
        over[outcomes.path] = outcomes.probability >= threshold
        held[outcomes.path] = outcomes.probability >= RELEASE * threshold
        alarmed, coming = self._since_ms != NEVER, self._coming_ms != NEVER
        came = coming & ~hit
        foretold = came & alarmed
        lead_ms = int((self._coming_ms - self._since_ms)[foretold].sum())
        on = (alarmed & held) | over
        ended = alarmed & ~on
        found = Alarmed(int((ended & ~self._was_true).sum()), int(came.sum()), int(foretold.sum()), lead_ms)
        self._was_true = on & ((self._was_true & alarmed) | hit)
        self._since_ms = np.where(on, np.where(alarmed, self._since_ms, outcomes.said_at_ms), NEVER)
        self._coming_ms = np.where(hit, outcomes.said_at_ms, NEVER)
        self._some = bool(np.count_nonzero(on | hit))
        return found

    def renumber(self, place: dict[int, int], targets: int) -> Alarms:
        """The same where targets have new numbers."""
        found, before = Alarms(targets), self.save()
        for name, values in found.save().items():
            for old, new in place.items():
                values[new] = before[name][old]
        return Alarms.load(found.save())

    def save(self) -> dict[str, Array]:
        """Arrays for a snapshot."""
        return {"since_ms": self._since_ms, "was_true": self._was_true, "coming_ms": self._coming_ms}

    @classmethod
    def load(cls, arrays: dict[str, Array]) -> Alarms:
        """The state again."""
        alarms = cls(0)
        alarms._since_ms, alarms._was_true, alarms._coming_ms = (
            arrays[name] for name in ("since_ms", "was_true", "coming_ms")
        )
        alarms._some = bool(np.count_nonzero((alarms._since_ms != NEVER) | (alarms._coming_ms != NEVER)))
        return alarms
