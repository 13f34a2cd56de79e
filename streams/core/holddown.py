"""Hold-down: when a better target may replace the one in use.

    NONE --something eligible--> STEADY --challenger leads--> CHALLENGED --led for long enough--> STEADY (new target)
                                    ^                             |
                                    +------- lead lost -----------+

A flapping network makes a naive ranking move traffic back and forth, and each move costs more than the few
milliseconds it wins. So a challenger has to lead by the margin, and probably so, for the dwell, in journal time. A
larger lead needs less: lead x time counts, from `dwell_min_ms` on, of which a plain lead needs a third. Whatever made
it the target, one that may stay is never left for a leader before it was in use for the dwell. A target that is no
longer eligible is left at once, for the best of the rest or, when all are dead, for nowhere.

Operators come first: FROZEN keeps the target whatever happens, PINNED sets it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.records import Policy

_NEVER: Final = -(1 << 62)
_PLAIN_LEAD: Final = math.log(1.08)  # twenty margins of the default policy


class Phase(StrEnum):
    """Where hold-down stands."""

    NONE = "NONE"
    STEADY = "STEADY"
    CHALLENGED = "CHALLENGED"


class Signal(StrEnum):
    """What operators and the latest scores say to it, the first that holds in this order."""

    FROZEN = "FROZEN"
    PINNED = "PINNED"
    TARGET_LOST = "TARGET_LOST"
    NOTHING_ELIGIBLE = "NOTHING_ELIGIBLE"
    TARGET_UNUSABLE = "TARGET_UNUSABLE"
    DWELL_OVER = "DWELL_OVER"
    CHALLENGER_LEADS = "CHALLENGER_LEADS"
    NOBODY_LEADS = "NOBODY_LEADS"


@dataclass(frozen=True, slots=True)
class Step:
    """Where a transition goes, and whether the target becomes the one proposed (in TARGET_LOST: nobody)."""

    phase: Phase
    move: bool = False


TRANSITIONS: Final[Mapping[tuple[Phase, Signal], Step]] = {
    (Phase.NONE, Signal.FROZEN): Step(Phase.NONE),
    (Phase.NONE, Signal.PINNED): Step(Phase.STEADY, move=True),
    (Phase.NONE, Signal.NOTHING_ELIGIBLE): Step(Phase.NONE),
    (Phase.NONE, Signal.TARGET_UNUSABLE): Step(Phase.STEADY, move=True),
    (Phase.STEADY, Signal.FROZEN): Step(Phase.STEADY),
    (Phase.STEADY, Signal.PINNED): Step(Phase.STEADY, move=True),
    (Phase.STEADY, Signal.TARGET_LOST): Step(Phase.NONE, move=True),
    (Phase.STEADY, Signal.NOTHING_ELIGIBLE): Step(Phase.STEADY),
    (Phase.STEADY, Signal.TARGET_UNUSABLE): Step(Phase.STEADY, move=True),
    (Phase.STEADY, Signal.DWELL_OVER): Step(Phase.STEADY, move=True),  # one evaluation was lead enough
    (Phase.STEADY, Signal.CHALLENGER_LEADS): Step(Phase.CHALLENGED),
    (Phase.STEADY, Signal.NOBODY_LEADS): Step(Phase.STEADY),
    (Phase.CHALLENGED, Signal.FROZEN): Step(Phase.STEADY),
    (Phase.CHALLENGED, Signal.PINNED): Step(Phase.STEADY, move=True),
    (Phase.CHALLENGED, Signal.TARGET_LOST): Step(Phase.NONE, move=True),
    (Phase.CHALLENGED, Signal.NOTHING_ELIGIBLE): Step(Phase.STEADY),
    (Phase.CHALLENGED, Signal.TARGET_UNUSABLE): Step(Phase.STEADY, move=True),
    (Phase.CHALLENGED, Signal.DWELL_OVER): Step(Phase.STEADY, move=True),
    (Phase.CHALLENGED, Signal.CHALLENGER_LEADS): Step(Phase.CHALLENGED),
    (Phase.CHALLENGED, Signal.NOBODY_LEADS): Step(Phase.STEADY),
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a moment's scores and operators say to the target in use.

    `best`: best candidate that may be chosen, None: nobody. `usable`: the target in use may stay. `lead`: logarithm of
    the best's score over that of the target in use, where the best is another and leads it by the margin and probably
    so; else 0. The lead's time runs on when the leader changes: it is the target in use that is no longer the best.
    """

    best: str | None
    usable: bool
    lead: float = 0.0
    frozen: bool = False
    pinned: str | None = None


@dataclass(frozen=True, slots=True)
class HoldDown:
    """State: the target in use, for how long somebody has led it and by how much, and when it became the target."""

    phase: Phase = Phase.NONE
    target: str | None = None
    led_ms: int = 0
    lead_ms: float = 0.0  # lead (a logarithm) times milliseconds
    seen_at_ms: int = _NEVER
    moved_at_ms: int = _NEVER

    def step(self, proposal: Proposal, policy: Policy, now_ms: int) -> tuple[HoldDown, Signal]:
        """The state after this moment, and what it was that moved it. Times are journal time, milliseconds."""
        passed_ms = min(max(now_ms - self.seen_at_ms, 0), policy.dwell_ms) if self.seen_at_ms != _NEVER else 0
        leading = proposal.lead > 0 and proposal.usable
        led_ms = self.led_ms + passed_ms if leading else 0
        lead_ms = self.lead_ms + proposal.lead * passed_ms if leading else 0.0
        plain = lead_ms >= _PLAIN_LEAD * led_ms
        enough = (
            lead_ms >= math.log1p(policy.margin_ratio) * policy.dwell_ms
            and led_ms * (3 if plain else 1) >= policy.dwell_min_ms
            and now_ms - self.moved_at_ms >= policy.dwell_ms
        )
        signal = self._signal(proposal, leading=leading, enough=enough)
        to = TRANSITIONS[self.phase, signal]
        target = self.target
        if to.move:
            target = proposal.pinned if signal is Signal.PINNED else proposal.best
        challenged = to.phase is Phase.CHALLENGED
        return HoldDown(
            phase=to.phase,
            target=target,
            led_ms=led_ms if challenged else 0,
            lead_ms=lead_ms if challenged else 0.0,
            seen_at_ms=now_ms,
            moved_at_ms=self.moved_at_ms if target == self.target else now_ms,
        ), signal

    def _signal(self, proposal: Proposal, *, leading: bool, enough: bool) -> Signal:
        if proposal.frozen:
            return Signal.FROZEN
        if proposal.pinned is not None:
            return Signal.PINNED
        if proposal.best is None:
            lost = self.target is not None and not proposal.usable
            return Signal.TARGET_LOST if lost else Signal.NOTHING_ELIGIBLE
        if not proposal.usable:
            return Signal.TARGET_UNUSABLE
        if leading:
            return Signal.DWELL_OVER if enough else Signal.CHALLENGER_LEADS
        return Signal.NOBODY_LEADS
