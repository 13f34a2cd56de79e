"""Hold-down: when a better target may replace the one in use.

    NONE --something eligible--> STEADY --challenger leads--> CHALLENGED --led for dwell--> STEADY (new target)
                                    ^                             |
                                    +------- lead lost -----------+

A flapping network makes a naive ranking move traffic back and forth, and each move costs more than the few
milliseconds it wins. So a challenger has to lead by `margin_ratio` for `dwell_ms`, in journal time. A target that is no
longer eligible is left at once, for the best of the rest or, when all are dead, for nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Where hold-down stands."""

    NONE = "NONE"
    STEADY = "STEADY"
    CHALLENGED = "CHALLENGED"


class Signal(StrEnum):
    """What the latest scores say to it, the first that holds in this order."""

    TARGET_LOST = "TARGET_LOST"
    NOTHING_ELIGIBLE = "NOTHING_ELIGIBLE"
    TARGET_UNUSABLE = "TARGET_UNUSABLE"
    DWELL_OVER = "DWELL_OVER"
    CHALLENGER_LEADS = "CHALLENGER_LEADS"
    NOBODY_LEADS = "NOBODY_LEADS"


@dataclass(frozen=True, slots=True)
class Step:
    """Where a transition goes, and whether the target in use becomes the challenger."""

    phase: Phase
    move: bool = False


TRANSITIONS: Final[Mapping[tuple[Phase, Signal], Step]] = {
    (Phase.NONE, Signal.NOTHING_ELIGIBLE): Step(Phase.NONE),
    (Phase.STEADY, Signal.TARGET_LOST): Step(Phase.NONE, move=True),
    (Phase.CHALLENGED, Signal.TARGET_LOST): Step(Phase.NONE, move=True),
    (Phase.NONE, Signal.TARGET_UNUSABLE): Step(Phase.STEADY, move=True),
    (Phase.STEADY, Signal.NOTHING_ELIGIBLE): Step(Phase.STEADY),
    (Phase.STEADY, Signal.TARGET_UNUSABLE): Step(Phase.STEADY, move=True),
    (Phase.STEADY, Signal.CHALLENGER_LEADS): Step(Phase.CHALLENGED),
    (Phase.STEADY, Signal.NOBODY_LEADS): Step(Phase.STEADY),
    (Phase.CHALLENGED, Signal.NOTHING_ELIGIBLE): Step(Phase.STEADY),
    (Phase.CHALLENGED, Signal.TARGET_UNUSABLE): Step(Phase.STEADY, move=True),
    (Phase.CHALLENGED, Signal.DWELL_OVER): Step(Phase.STEADY, move=True),
    (Phase.CHALLENGED, Signal.CHALLENGER_LEADS): Step(Phase.CHALLENGED),
    (Phase.CHALLENGED, Signal.NOBODY_LEADS): Step(Phase.STEADY),
}


@dataclass(frozen=True, slots=True)
class HoldDown:
    """State: the target in use, and since when (journal time) somebody has led it."""

    phase: Phase = Phase.NONE
    target: str | None = None
    led_since_ms: int = 0

    def step(
        self, best: str | None, *, usable: bool, leads: bool, now_ms: int, dwell_ms: int
    ) -> tuple[HoldDown, Signal]:
        """The state after this moment.

        `best`: best eligible candidate, None: nothing eligible. `usable`: the target in use is still eligible.
        `leads`: `best` is another than the target in use and leads it by the margin. The lead's time runs on when
        the leader changes: it is the target in use that is no longer the best.
        """
        if best is None:
            lost = self.target is not None and not usable
            signal = Signal.TARGET_LOST if lost else Signal.NOTHING_ELIGIBLE
        elif not usable:
            signal = Signal.TARGET_UNUSABLE
        elif leads:
            over = self.phase is Phase.CHALLENGED and now_ms - self.led_since_ms >= dwell_ms
            signal = Signal.DWELL_OVER if over or dwell_ms == 0 else Signal.CHALLENGER_LEADS
        else:
            signal = Signal.NOBODY_LEADS
        phase = self.phase
        if signal is Signal.DWELL_OVER and phase is Phase.STEADY:  # no dwell at all
            phase = Phase.CHALLENGED
        to = TRANSITIONS[phase, signal]
        if to.move:
            return replace(self, phase=to.phase, target=best), signal
        started = to.phase is Phase.CHALLENGED and self.phase is not Phase.CHALLENGED
        return replace(self, phase=to.phase, led_since_ms=now_ms if started else self.led_since_ms), signal
