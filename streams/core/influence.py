"""How much a model's predictions may count: nothing until it has proven itself, and nothing again when that is gone.

    WARMING --disruptions enough--> SHADOW --its skill is surely above 0--> TRUSTED
       ^                               ^                                       |
       |                               +------------ surely no more -----------+
       +------------------------- drift: it does worse than its record ---------

Influence rises in proportion to the lower bound of the skill, up to `SKILL_OF_FULL`, and is no larger than the last
hours' skill alone would make it: a record fades slowly, and a network may change at once. It is judged when a block of
the scorecard is over, and rounded down, so that it changes seldom. Drift is a fall of how much better than climatology
the model is, beside its own record: the same test would alarm at every storm if it looked at the error alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from streams.core.drift import PageHinkley
from streams.core.scorecard import Block, Scorecard

# A lower bound of the skill from which on predictions count in full.
SKILL_OF_FULL: Final = 0.15
# Less than this says nothing, however good it looks: so many labels with a disruption, in so many blocks.
_HITS_MIN: Final = 12.0
_BLOCKS_MIN: Final = 5.0
_STEPS: Final = 100  # of influence, from 0 to 1
_STEPS_MIN: Final = 3  # less moves nothing, and is less than the bound itself may be wrong by
# In standard deviations of a block. One block alone is believed so far and no further: two that are as bad as that are
# drift. By chance it is found once in some weeks, and then trust is earned again within hours.
_SURPRISE_MAX: Final = 4.0
_DRIFT: Final = PageHinkley(threshold=7.0, allowance=0.25, values_min=1)


class Trust(StrEnum):
    """Where a model stands."""

    WARMING = "WARMING"
    SHADOW = "SHADOW"
    TRUSTED = "TRUSTED"


@dataclass(frozen=True, slots=True)
class Influence:
    """State: `value` in [0, 1]; how often there was drift, and when last (0: never)."""

    trust: Trust = Trust.WARMING
    value: float = 0.0
    drifts: int = 0
    drifted_at_ms: int = 0
    drift: PageHinkley = _DRIFT

    def step(self, card: Scorecard, block: Block, now_ms: int) -> Influence:
        """The state after a block that is over; drift makes the scorecard begin anew."""
        surprise = min(max(block.surprise, -_SURPRISE_MAX), _SURPRISE_MAX)
        drift, drifted = self.drift.step(surprise)
        if drifted:
            card.begin_anew()
            return Influence(Trust.WARMING, 0.0, self.drifts + 1, now_ms, drift)
        if card.hits < _HITS_MIN or card.blocks < _BLOCKS_MIN:
            # Fades as the record does: one that is hardly any more earns nothing, though it was good.
            return replace(self, trust=Trust.WARMING, value=0.0, drift=drift)
        value = influence_of(min(card.skill_low, card.skill_now))
        return replace(self, trust=Trust.TRUSTED if value > 0 else Trust.SHADOW, value=value, drift=drift)

    def save(self) -> dict[str, Any]:
        """Scalars for a snapshot."""
        return {
            "trust": str(self.trust),
            "value": self.value,
            "drifts": self.drifts,
            "drifted_at_ms": self.drifted_at_ms,
            "drift": self.drift.save(),
        }

    @classmethod
    def load(cls, scalars: dict[str, Any]) -> Influence:
        """The state again."""
        own = {"trust": Trust(scalars["trust"]), "drift": PageHinkley(**scalars["drift"])}
        return cls(**scalars | own)


def influence_of(skill_low: float) -> float:
    """In [0, 1], in hundredths: 0 for a lower bound of the skill near 0 or less, 1 from `SKILL_OF_FULL` on."""
    steps = math.floor(min(max(skill_low / SKILL_OF_FULL, 0.0), 1.0) * _STEPS)
    return steps / _STEPS if steps >= _STEPS_MIN else 0.0
