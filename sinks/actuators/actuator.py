"""What an actuator has to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schemas.errors import ProximaError
from schemas.records import Operation, PathAction


class ActuatorError(ProximaError):
    """It could not be done, or not be seen to be done."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A state that a remedy's target is to be in: with the remedy (and its value), or without."""

    primary: str
    remedy: str
    kind: str
    applies: bool
    value: int

    @classmethod
    def of(cls, action: PathAction) -> Wanted:
        """What an action asks for."""
        applies = action.operation == Operation.APPLY
        return cls(action.primary_region, action.remedy_id, action.kind, applies, int(action.value))


class Actuator(Protocol):
    """One, by the name that actions use. One thread calls it; every call may be repeated after a crash."""

    name: str

    def refuses(self, wanted: Wanted) -> str | None:
        """Why this is none of its tasks, or out of its bounds; None: it can be asked for. No I/O."""

    def words(self, wanted: Wanted) -> str:
        """What would be done, for a dry run and for logs. No I/O."""

    def is_so(self, wanted: Wanted) -> bool:
        """Whether the state is there now, by looking. Raises ActuatorError: nobody can tell."""

    def do(self, wanted: Wanted, action_id: str) -> None:
        """Set the state. Raises ActuatorError: it may be there in part."""
