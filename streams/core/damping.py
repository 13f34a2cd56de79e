"""Damping (after RFC 2439): who may not be chosen yet, because it failed.

*Ejection.* A candidate that fails once is simply ineligible while it is down. One that fails again before the first
failure is forgiven flaps: after it recovers it stays out for `ejection_base_ms`, twice as long each further time, up to
`ejection_max_ms`. Each `ejection_forgive_ms` without a failure forgives one.

*Failback.* A target that was left because it failed waits before it may be chosen again, however good its score: not
at all (`immediate`), until it has been eligible for `failback_delay_ms` (`delayed`), or until an operator pins it
(`manual`). It is still the choice when nobody else is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas.records import Array, Failback, Policy

_DOUBLINGS_MAX: Final = 40


class Damping:
    """State of one primary's candidates; every array is (targets,), times in journal milliseconds."""

    def __init__(self, targets: int) -> None:
        self.dead = np.zeros(targets, bool)
        self.failures = np.zeros(targets, np.int64)  # not forgiven yet
        self.forgiven_at_ms = np.zeros(targets, np.int64)  # when one was forgiven, or the last began or ended
        self.ejected_until_ms = np.zeros(targets, np.int64)
        self.left = np.zeros(targets, bool)  # as target in use, because it failed; awaits failback
        self.good_since_ms = np.full(targets, -1, np.int64)  # of those left: eligible again since; -1: it is not

    def observe(self, dead: Array, policy: Policy, now_ms: int) -> Array | None:
        """Take in who is dead now; returns (targets,) bool: ejected; None: nobody."""
        if not (np.count_nonzero(dead) or np.count_nonzero(self.dead) or np.count_nonzero(self.failures)):
            return None
        failed, recovered = dead & ~self.dead, self.dead & ~dead
        self.failures = self.failures + failed
        doublings = np.clip(self.failures - 2, 0, _DOUBLINGS_MAX)
        period_ms = np.minimum(policy.ejection_base_ms * 2.0**doublings, policy.ejection_max_ms).astype(np.int64)
        again = recovered & (self.failures >= 2)
        self.ejected_until_ms = np.where(again, now_ms + period_ms, self.ejected_until_ms)
        self.forgiven_at_ms = np.where(dead | recovered, now_ms, self.forgiven_at_ms)
        due = np.maximum(now_ms - self.forgiven_at_ms, 0) // policy.ejection_forgive_ms
        forgiven = np.minimum(due, self.failures)
        self.failures = self.failures - forgiven
        self.forgiven_at_ms = self.forgiven_at_ms + forgiven * policy.ejection_forgive_ms
        self.dead = dead
        return ~dead & (now_ms < self.ejected_until_ms)

    def observe_at(self, dead: Array, trusted: Array, policy: Policy, now_ms: Sequence[int]) -> Array | None:
        """The same at several moments, (moments, targets) each. What was dead has not recovered until it is trusted."""
        if not (np.count_nonzero(dead) or np.count_nonzero(self.dead) or np.count_nonzero(self.failures)):
            return None
        found = np.zeros(dead.shape, bool)
        for row, now_dead, seen, at_ms in zip(found, dead, trusted, now_ms, strict=True):
            ejected = self.observe(now_dead | (self.dead & ~seen), policy, at_ms)
            if ejected is not None:
                row[:] = ejected
        return found

    def waits(self, eligible: Array, policy: Policy, now_ms: int) -> Array | None:
        """(targets,) bool: eligible, and held back by the failback policy; None: nobody."""
        if not np.count_nonzero(self.left):
            return None
        again = np.where(self.good_since_ms < 0, now_ms, self.good_since_ms)
        self.good_since_ms = np.where(eligible & self.left, again, -1)
        if policy.failback == Failback.IMMEDIATE:
            self.left = self.left & ~eligible
        elif policy.failback == Failback.DELAYED:
            self.left = self.left & ~(eligible & (now_ms - self.good_since_ms >= policy.failback_delay_ms))
        return self.left & eligible

    def leave(self, target: int) -> None:
        """The target in use was left because it failed."""
        self.left[target] = True

    def choose(self, target: int) -> None:
        """Somebody chose it: an operator, or because nobody else was left."""
        self.left[target] = False

    def renumber(self, place: dict[int, int], targets: int) -> Damping:
        """The same for candidates with other numbers; new ones start clean."""
        found = Damping(targets)
        for old, new in place.items():
            for name in ARRAYS:
                getattr(found, name)[new] = getattr(self, name)[old]
        return found

    def save(self) -> dict[str, Array]:
        """Arrays for a snapshot."""
        return {name: getattr(self, name) for name in ARRAYS}

    @classmethod
    def load(cls, arrays: dict[str, Array]) -> Damping:
        """The state again."""
        found = cls(len(arrays["dead"]))
        for name in ARRAYS:
            setattr(found, name, arrays[name])
        return found


ARRAYS: Final = ("dead", "failures", "forgiven_at_ms", "ejected_until_ms", "left", "good_since_ms")
