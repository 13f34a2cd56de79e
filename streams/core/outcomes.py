"""What was said of paths, and what came of it: all that a predictor has to hand over to be judged.

A predictor keeps, beside the features that wait for their labels, the probability that it published of each path and
the path's climatology at that moment. When the horizon is over it hands over both with the label.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from schemas.records import Array

# Before anything is known of a path: how often paths are disrupted, and how many labels that weighs.
_RATE_BEFORE: Final = 0.01
_LABELS_BEFORE: Final = 100.0


class Outcomes(NamedTuple):
    """Of one moment of prediction, in order of the paths' numbers; every array is (paths predicted,)."""

    said_at_ms: int
    known_at_ms: int  # journal time
    path: Array  # its number
    probability: Array  # as published
    climatology: Array  # of that moment: what the path's own past alone would have said
    hit: Array  # bool: disrupted within the horizon


class Climatology:
    """How often each path was disrupted within the horizon so far: the yardstick that a model has to beat.

    Of a path of which little is known it says what all paths of the primary did.
    """

    def __init__(self, targets: int) -> None:
        self.labels = np.zeros(targets)
        self.hits = np.zeros(targets)
        self._known = self._came = 0.0  # their sums: whole numbers, so exact in any order

    def rates(self) -> Array:
        """(targets,) in (0, 1)."""
        usual = (self._came + _RATE_BEFORE * _LABELS_BEFORE) / (self._known + _LABELS_BEFORE)
        return (self.hits + usual * _LABELS_BEFORE) / (self.labels + _LABELS_BEFORE)

    def learn(self, path: Array, hit: Array) -> None:
        """Labels that are known now; both (paths,), each path once, in order."""
        came = np.count_nonzero(hit)
        self._known += len(path)
        self._came += came
        if len(path) == len(self.labels):
            self.labels += 1
        else:
            self.labels[path] += 1
        if came:
            self.hits[path] += hit

    def renumber(self, place: dict[int, int], targets: int) -> Climatology:
        """The same where targets have new numbers."""
        labels, hits = np.zeros((2, targets))
        for old, new in place.items():
            labels[new], hits[new] = self.labels[old], self.hits[old]
        return Climatology.load(labels, hits)

    @classmethod
    def load(cls, labels: Array, hits: Array) -> Climatology:
        """With these counts, both (targets,)."""
        found = cls(0)
        found.labels, found.hits = labels.copy(), hits.copy()
        found._known, found._came = float(labels.sum()), float(hits.sum())
        return found
