"""Where traffic should go: the target in use, what moves it, and why the one before was left.

    Ranked ──► who may be chosen (failback, settled routes) ──► who leads, and surely ──► hold-down ──► the target

Operators' orders go to hold-down as they are. A target that was left because it failed waits (`damping.py`) and, when
it is chosen again, is said to be restored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.records import Array, Event, Mode
from streams.core.damping import Damping
from streams.core.directives import Orders
from streams.core.gates import DOWN, NO_ROUTE, NOT_READY, UNHEALTHY, VETOED
from streams.core.holddown import HoldDown, Phase, Proposal, Signal
from streams.core.ranked import Ranked
from streams.core.sensitivity import better_probability
from streams.core.state import part

# Why a target in use was left, that failback has to wait for.
_FAILED: Final = frozenset((DOWN, NO_ROUTE, UNHEALTHY, VETOED, NOT_READY))


class Chosen(NamedTuple):
    """How a moment left the target."""

    signal: Signal
    before: str | None  # the target before this moment
    waits: Array | None  # (targets,) bool: held back by the failback policy; None: nobody
    barred: Array | None  # (targets,) bool: by that, or because the route there has just changed; None: nobody
    events: list[Event]  # of a move


class Choice:
    """State of one primary."""

    def __init__(self, targets: int) -> None:
        self.hold = HoldDown()
        self.damping = Damping(targets)
        self.previous: str | None = None  # the target before the one in use
        self._failed: str | None = None  # the target last left because it failed: its return is a restoration

    @property
    def target(self) -> str | None:
        """Where traffic should go, as last decided."""
        return self.hold.target

    def step(
        self, ranked: Ranked, orders: Orders, numbers: dict[str, int], unsettled: Array | None, now_ms: int
    ) -> Chosen:
        """Choose at this moment; `unsettled` (targets,) bool: whose route has just changed, None: nobody's."""
        before, policy = self.target, ranked.policy
        waits = self.damping.waits(ranked.eligible, policy, now_ms)
        barred = waits if unsettled is None else unsettled if waits is None else waits | unsettled
        self.hold, signal = self.hold.step(self._proposal(ranked, orders, numbers, barred), policy, now_ms)
        return Chosen(signal, before, waits, barred, self._moved(ranked, numbers, signal, before))

    def _proposal(self, ranked: Ranked, orders: Orders, numbers: dict[str, int], barred: Array | None) -> Proposal:
        target = self.target
        best, usable = ranked.best(barred), ranked.usable(target)
        lead = 0.0
        if usable and target is not None and best not in (None, target) and ranked.mode is not Mode.THIN:
            lead = _lead(ranked, numbers[str(best)], numbers[target])
        return Proposal(best, usable, lead, orders.frozen, orders.pinned)

    def _moved(self, ranked: Ranked, numbers: dict[str, int], signal: Signal, before: str | None) -> list[Event]:
        """Take note of a move of the target; what is to be said of it."""
        target = self.target
        if target == before:
            return []
        self.previous = before
        left_by_force = signal in (Signal.TARGET_UNUSABLE, Signal.TARGET_LOST)
        if left_by_force and before in numbers and ranked.reasons[numbers[before]] in _FAILED:
            self.damping.leave(numbers[before])
            self._failed = before
        if target is None:
            return [Event.TARGET_CHANGED]
        self.damping.choose(numbers[target])
        if target != self._failed:
            return [Event.TARGET_CHANGED]
        self._failed = None
        return [Event.TARGET_CHANGED, Event.TARGET_RESTORED]

    def renumber(self, place: dict[int, int], targets: int) -> None:
        """Candidates have new numbers; `place`: the new one of each old one that is still there."""
        self.damping = self.damping.renumber(place, targets)

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        scalars = {"hold": asdict(self.hold), "previous": self.previous, "failed": self._failed}
        return scalars, {f"damping.{name}": value for name, value in self.damping.save().items()}

    @classmethod
    def load(cls, scalars: Mapping[str, Any], arrays: Mapping[str, Array], targets: int) -> Choice:
        """The state again."""
        found = cls(targets)
        hold = {name: value for name, value in scalars["hold"].items() if name in HoldDown.__dataclass_fields__}
        found.hold = HoldDown(**hold | {"phase": Phase(hold["phase"])})
        found.previous, found._failed = scalars["previous"], scalars.get("failed")
        damping = part(arrays, "damping.")
        if damping:
            found.damping = Damping.load(damping)
        return found


def _lead(ranked: Ranked, best: int, target: int) -> float:
    """Logarithm of the best's score over the target's; 0 when it is below the margin, or may be chance."""
    policy = ranked.policy
    lead = ranked.log_lead(best, target)
    if lead <= np.log1p(policy.margin_ratio):
        return 0.0
    sure = better_probability(np.array(lead), ranked.error[best], ranked.error[target]) >= policy.sure_ratio
    return lead if sure else 0.0
