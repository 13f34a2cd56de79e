"""What a remedy goes through, as a table: `remedies` follows it, docs/remedies.md draws it, a test compares the two.

    IDLE --chosen--> PLANNED --done--> VERIFYING --helped--> HELD --revert--> ROLLING_BACK --done--> IDLE
                        |                  |                                     ^  |
                        |                  +------- not helped ------------------+  +--given up--> STRANDED
                        +--nothing was done--> IDLE

Whatever may have been done and is not known to help is rolled back: that sets the state from before, so it does no harm
where nothing was done. What cannot be rolled back is STRANDED: said aloud, tried again now and then, and a human's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.records import Operation, RemedyEvent


class Phase(StrEnum):
    """Where a remedy stands."""

    IDLE = "IDLE"
    PLANNED = "PLANNED"
    VERIFYING = "VERIFYING"
    HELD = "HELD"
    ROLLING_BACK = "ROLLING_BACK"
    STRANDED = "STRANDED"


class Signal(StrEnum):
    """What happens to it."""

    CHOSEN = "CHOSEN"  # the path is bad, and it is this remedy's turn
    DONE = "DONE"  # its actuator has seen that it is so
    ON_PURPOSE = "ON_PURPOSE"  # its actuator does nothing: a dry run
    NOTHING_DONE = "NOTHING_DONE"  # refused or expired
    UNSTARTED = "UNSTARTED"  # no answer in time, and it was never begun
    UNSURE = "UNSURE"  # failed, or begun without an end: it may be there in part
    DONE_LATE = "DONE_LATE"  # an answer after it was given up
    HELPED = "HELPED"
    NOT_HELPED = "NOT_HELPED"
    REVERT = "REVERT"  # held for its time, or configured no more
    AGAIN = "AGAIN"  # rolling back has failed, and is worth another try
    GIVEN_UP = "GIVEN_UP"  # and is not


@dataclass(frozen=True, slots=True)
class Step:
    """Where a transition goes, what it has an actuator do, what is said of it, and whether the remedy failed by it."""

    phase: Phase
    event: RemedyEvent
    operation: Operation | None = None
    failed: bool = False


_APPLY: Final = Step(Phase.PLANNED, RemedyEvent.STARTED, Operation.APPLY)
_REVERT: Final = Step(Phase.ROLLING_BACK, RemedyEvent.REVERTING, Operation.ROLL_BACK)
_UNDO: Final = Step(Phase.ROLLING_BACK, RemedyEvent.NOT_APPLIED, Operation.ROLL_BACK, failed=True)
_NOT_DONE: Final = Step(Phase.IDLE, RemedyEvent.NOT_APPLIED, failed=True)
_WITHDRAWN: Final = Step(Phase.IDLE, RemedyEvent.WITHDRAWN)

TRANSITIONS: Final[Mapping[tuple[Phase, Signal], Step]] = {
    (Phase.IDLE, Signal.CHOSEN): _APPLY,
    (Phase.IDLE, Signal.DONE_LATE): _REVERT,
    (Phase.PLANNED, Signal.DONE): Step(Phase.VERIFYING, RemedyEvent.APPLIED),
    (Phase.PLANNED, Signal.ON_PURPOSE): Step(Phase.IDLE, RemedyEvent.NOT_APPLIED),
    (Phase.PLANNED, Signal.NOTHING_DONE): _NOT_DONE,
    (Phase.PLANNED, Signal.UNSTARTED): _NOT_DONE,
    (Phase.PLANNED, Signal.UNSURE): _UNDO,
    (Phase.PLANNED, Signal.REVERT): _REVERT,
    (Phase.VERIFYING, Signal.HELPED): Step(Phase.HELD, RemedyEvent.VERIFIED),
    (Phase.VERIFYING, Signal.NOT_HELPED): Step(
        Phase.ROLLING_BACK, RemedyEvent.NOT_HELPED, Operation.ROLL_BACK, failed=True
    ),
    (Phase.VERIFYING, Signal.REVERT): _REVERT,
    (Phase.HELD, Signal.REVERT): _REVERT,
    (Phase.ROLLING_BACK, Signal.DONE): _WITHDRAWN,
    (Phase.ROLLING_BACK, Signal.AGAIN): _REVERT,
    (Phase.ROLLING_BACK, Signal.GIVEN_UP): Step(Phase.STRANDED, RemedyEvent.STRANDED),
    (Phase.STRANDED, Signal.AGAIN): _REVERT,
    (Phase.STRANDED, Signal.DONE): _WITHDRAWN,
}
# One at a time of a primary: what is measured while two change says nothing about either.
BUSY: Final = frozenset((Phase.PLANNED, Phase.VERIFYING, Phase.ROLLING_BACK))
# What an actuator was asked for is there, or may be.
IN_PLACE: Final = frozenset((Phase.PLANNED, Phase.VERIFYING, Phase.HELD, Phase.ROLLING_BACK, Phase.STRANDED))


def drawing() -> str:
    """The table as lines for people, for docs/remedies.md."""
    width = max(len(f"{phase} + {signal}") for phase, signal in TRANSITIONS)
    lines = []
    for (phase, signal), step in TRANSITIONS.items():
        does = "" if step.operation is None else f", asks for {step.operation}"
        counts = ", a failure" if step.failed else ""
        lines.append(f"{f'{phase} + {signal}':<{width}}  ->  {step.phase}{does}{counts}: says {step.event}")
    return "\n".join(lines)
