"""What the whole network says about a primary, as far as it counts in its decisions: the verdict in force.

    health        DOWN asks to fail over, unless that has happened; DEGRADED asks to prepare
    shared        what a candidate has in common with the primary, or with a better candidate, costs it of its score
    allotments    what others take, or counted on before, is no capacity of ours

A verdict counts until it is stale: when the overview is silent, nobody concludes anything from what it said once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas.codec import from_plain, to_plain
from schemas.records import Advice, Array, Health, NetworkVerdict, SharedRisk

_CAPACITY_MIN: Final = 1e-6  # a weight of 0 would have no logarithm
_NAMES_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Shared:
    """What candidates share, by number: `with_primary` (targets,), and pairs `one`, `other`, `share` (pairs,)."""

    with_primary: Array
    one: Array
    other: Array
    share: Array

    def penalty(self, better: Array, weight: float) -> Array:
        """(moments, targets) what the pairs cost, as logarithms; `better` (moments, pairs) bool: the other is ahead."""
        cost = np.zeros((len(better), len(self.with_primary)))
        moment, pair = np.nonzero(better)
        np.maximum.at(cost, (moment, self.one[pair]), self.share[pair])
        return np.log1p(-weight * cost)


class Verdicts:
    """Of one primary: the last verdict, and what of it is in force."""

    def __init__(self, plain: Mapping[str, Any] | None = None) -> None:
        self._verdict = None if not plain else from_plain(NetworkVerdict, dict(plain))
        # What candidates share, worked out of these risks for these candidates: seldom, for it takes long.
        self._shared: tuple[list[SharedRisk], tuple[str, ...], Shared | None] = [], (), None

    def take(self, verdict: NetworkVerdict) -> bool:
        """Take one in; True when it has to be decided upon at once. A repeat is dropped."""
        before = self._verdict
        if before is not None and verdict.sequence <= before.sequence:
            return False
        self._verdict = verdict
        return before is None or _of_weight(before) != _of_weight(verdict)

    def at(self, now_ms: int) -> NetworkVerdict | None:
        """What is in force at a moment."""
        verdict = self._verdict
        return verdict if verdict is not None and now_ms < verdict.decided_at_ms + verdict.stale_after_ms else None

    def shared(self, verdict: NetworkVerdict | None, numbers: Mapping[str, int]) -> Shared | None:
        """What candidates share by a verdict in force; None: nothing."""
        if verdict is None or not verdict.shared:
            return None
        risks, regions, shared = self._shared
        if regions != tuple(numbers) or risks != verdict.shared:
            shared = _shared_of(verdict.shared, numbers)
            self._shared = verdict.shared, tuple(numbers), shared
        return shared

    def until_ms(self, now_ms: int) -> float:
        """When, after this moment, it is stale; infinity: there is none."""
        verdict = self.at(now_ms)
        return math.inf if verdict is None else verdict.decided_at_ms + verdict.stale_after_ms

    def save(self) -> dict[str, Any]:
        """Plain data for a snapshot."""
        return {} if self._verdict is None else to_plain(self._verdict)


def _of_weight(verdict: NetworkVerdict) -> tuple[Any, ...]:
    return verdict.health, verdict.shared, verdict.allotments


def primary_down(verdict: NetworkVerdict | None) -> bool | None:
    """What observers see of the primary; None: nobody can say, or they find it worse than usual, which is neither."""
    if verdict is None or verdict.health not in (Health.DOWN, Health.UP):
        return None
    return verdict.health == Health.DOWN


def advice(verdict: NetworkVerdict | None, target: str | None, executed: str | None, *, unhealthy: bool) -> Advice:
    """What the primary's health asks for; nothing once its traffic was moved (`executed`) to the target in use.

    `unhealthy`: somebody injected so, which is a suspicion and no verdict.
    """
    if executed is not None and executed == target:
        return Advice.HOLD
    health = Health.UNKNOWN if verdict is None else verdict.health
    if health == Health.DOWN:
        return Advice.FAIL_OVER
    return Advice.PREPARE if unhealthy or health == Health.DEGRADED else Advice.HOLD


def evidence(verdict: NetworkVerdict | None, executed: str | None) -> str:
    """Who saw what, for a ranking's reason; empty: nothing is wrong with the primary."""
    unwell = verdict is not None and verdict.health in (Health.DEGRADED, Health.DOWN)
    said = [verdict.reason] if verdict is not None and unwell else []
    return "; ".join([*said, *([f"its traffic was moved to {executed}"] if executed is not None else [])])


def _shared_of(risks: Sequence[SharedRisk], numbers: Mapping[str, int]) -> Shared | None:
    """What candidates share; None: nothing. Of each kind what is shared adds up, and the worst kind counts."""
    with_primary = np.zeros(len(numbers))
    worst: Array | None = None
    for kind in sorted({risk.kind for risk in risks}):
        riders: dict[str, list[tuple[int, float]]] = {}
        alone = np.zeros(len(numbers))
        for risk in risks:
            if risk.kind == kind and (number := numbers.get(risk.region_id)) is not None:
                riders.setdefault(risk.name, []).append((number, risk.share_ratio))
                alone[number] += risk.with_primary * risk.share_ratio
        with_primary = np.maximum(with_primary, np.minimum(alone, 1.0))
        table = np.zeros((len(numbers), len(numbers)))
        for each in riders.values():
            at = np.array([number for number, _ in each])
            table[np.ix_(at, at)] += np.array([share for _, share in each])[:, None]
        worst = table if worst is None else np.maximum(worst, table)
    if worst is None:
        return None
    np.fill_diagonal(worst, 0.0)
    one, other = np.nonzero(worst)
    if not len(one) and not with_primary.any():
        return None
    return Shared(with_primary, one, other, np.minimum(worst[one, other], 1.0))


def free_of(
    verdict: NetworkVerdict | None, numbers: Mapping[str, int], capacity: Array, load_ratio: float
) -> tuple[Array, Array] | None:
    """(targets,) share of each capacity that is left, and bool: not enough for our load; None: nobody takes any."""
    if verdict is None or not verdict.allotments:
        return None
    left, full = np.ones(len(numbers)), np.zeros(len(numbers), bool)
    for allotment in verdict.allotments:
        number = numbers.get(allotment.region_id)
        if number is not None:
            left[number] = min(max(allotment.free_ratio / capacity[number], _CAPACITY_MIN), 1.0)
            full[number] = allotment.free_ratio < load_ratio
    return left, full


def shares(verdict: NetworkVerdict | None, region: str, others: Sequence[str] | None) -> str:
    """In words what a region shares with the primary (`others` None), or with the first of the others that it shares
    something with; empty: nothing.
    """
    if verdict is None:
        return ""
    own = [risk for risk in verdict.shared if risk.region_id == region]
    if others is None:
        return _in_words([risk for risk in own if risk.with_primary], "the primary")
    for other in others:
        theirs = {(risk.kind, risk.name) for risk in verdict.shared if risk.region_id == other}
        if common := [risk for risk in own if (risk.kind, risk.name) in theirs]:
            return _in_words(common, other)
    return ""


def _in_words(risks: Sequence[SharedRisk], whom: str) -> str:
    names = [f"{risk.kind} {risk.name}" for risk in risks]
    return f"shares {' and '.join(names[:_NAMES_MAX])} with {whom}" if names else ""
