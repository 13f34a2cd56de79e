"""FRRouting: local preference, AS-path prepending, and sessions that are shut down until they are needed.

`COMMANDS` is all that is ever said to a router; what goes into its places is typed in the actuator's own file
(`schemas.actuators`), but for the value, a whole number within that file's bounds. A change of policy counts only after
`clear ... soft`: without it nothing moves (measured: never in 8 s; with it 68 ms).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from schemas.actuators import Frr, FrrTask, Place, Router
from schemas.errors import ProximaError
from schemas.records import RemedyKind
from sinks.actuators.actuator import Actuator, ActuatorError, Wanted
from sinks.actuators.vty import tell

# (kind, whether the remedy is to be there) -> what is said, in this order
COMMANDS: Final[Mapping[tuple[RemedyKind, bool], tuple[str, ...]]] = {
    (RemedyKind.LOCAL_PREFERENCE, True): (
        "configure terminal", "route-map {route_map} permit {entry}", "set local-preference {value}", "end",
        "clear bgp {family} {neighbor} soft in",
    ),
    (RemedyKind.LOCAL_PREFERENCE, False): (
        "configure terminal", "route-map {route_map} permit {entry}", "no set local-preference", "end",
        "clear bgp {family} {neighbor} soft in",
    ),
    (RemedyKind.AS_PATH_PREPEND, True): (
        "configure terminal", "route-map {route_map} permit {entry}", "set as-path prepend {prepended}", "end",
        "clear bgp {family} {neighbor} soft out",
    ),
    (RemedyKind.AS_PATH_PREPEND, False): (
        "configure terminal", "route-map {route_map} permit {entry}", "no set as-path prepend", "end",
        "clear bgp {family} {neighbor} soft out",
    ),
    (RemedyKind.LINK, True): (
        "configure terminal", "router bgp {as_number}", "no neighbor {neighbor} shutdown", "end",
    ),
    (RemedyKind.LINK, False): (
        "configure terminal", "router bgp {as_number}", "neighbor {neighbor} shutdown", "end",
    ),
}  # fmt: skip
_SET: Final = {
    RemedyKind.LOCAL_PREFERENCE: ("local-preference ", "local-preference {value}"),
    RemedyKind.AS_PATH_PREPEND: ("as-path prepend ", "as-path prepend {prepended}"),
}


class FrrActuator(Actuator):
    """The tasks of one `[[frr]]`."""

    def __init__(self, config: Frr) -> None:
        self.name = config.name
        self._timeout_s = config.timeout_ms / 1000
        self._routers = {r.name: r for r in config.routers}
        self._tasks = {(t.primary, t.remedy): t for t in config.tasks}

    def refuses(self, wanted: Wanted) -> str | None:
        task = self._tasks.get((wanted.primary, wanted.remedy))
        if task is None:
            return f"{self.name} has no task {wanted.remedy} of {wanted.primary}"
        if task.kind != wanted.kind:
            return f"{wanted.remedy} is {task.kind}, not {wanted.kind}"
        if wanted.applies and task.kind != RemedyKind.LINK and not task.value_min <= wanted.value <= task.value_max:
            return f"value {wanted.value} is not within {task.value_min} to {task.value_max}"
        return None

    def words(self, wanted: Wanted) -> str:
        task = self._task(wanted)
        return "; ".join(
            f"{place.router}: {', '.join(self._commands(task, place, wanted, applies=wanted.applies))}"
            for place in task.at
        )

    def is_so(self, wanted: Wanted) -> bool:
        task = self._task(wanted)
        return all(self._is_so_at(task, place, wanted) for place in task.at)

    def do(self, wanted: Wanted, action_id: str) -> None:  # noqa: ARG002 - a router keeps no ids
        task, done = self._task(wanted), list[Place]()
        for place in task.at:
            try:
                self._tell(place, self._commands(task, place, wanted, applies=wanted.applies))
            except ActuatorError as error:
                if wanted.applies:  # half of a remedy may be worse than none
                    raise self._undone(task, [*done, place], wanted, error) from None
                raise
            done.append(place)

    def _undone(self, task: FrrTask, done: list[Place], wanted: Wanted, why: ActuatorError) -> ActuatorError:
        """Take back what a remedy has done before it failed, as far as routers answer; returns what to raise."""
        left = []
        for place in reversed(done):
            try:
                self._tell(place, self._commands(task, place, wanted, applies=False))
            except ActuatorError:
                left.append(place.router)
        rest = f"not taken back at {', '.join(left)}" if left else "what was done before it is taken back"
        return ActuatorError(f"{why.what}; {rest}", where=why.where)

    def _task(self, wanted: Wanted) -> FrrTask:
        return self._tasks[wanted.primary, wanted.remedy]

    def _commands(self, task: FrrTask, place: Place, wanted: Wanted, *, applies: bool) -> list[str]:
        words = self._words(place, wanted)
        return [command.format(**words) for command in COMMANDS[RemedyKind(task.kind), applies]]

    def _words(self, place: Place, wanted: Wanted) -> dict[str, object]:
        router = self._routers[place.router]
        return {
            "route_map": place.route_map,
            "entry": place.entry,
            "family": place.family,
            "neighbor": place.neighbor,
            "as_number": router.as_number,
            "value": wanted.value,
            "prepended": " ".join([str(router.as_number)] * wanted.value),
        }

    def _is_so_at(self, task: FrrTask, place: Place, wanted: Wanted) -> bool:
        if task.kind == RemedyKind.LINK:
            said = self._ask(place, f"show bgp neighbors {place.neighbor} json").get(str(place.neighbor))
            if not isinstance(said, dict):
                raise ActuatorError(f"{place.router} has no neighbor {place.neighbor}")
            return bool(said.get("adminShutDown", False)) is not wanted.applies
        prefix, exactly = _SET[RemedyKind(task.kind)]
        there = [c for c in self._clauses(place) if c.startswith(prefix)]
        return there == ([exactly.format(**self._words(place, wanted))] if wanted.applies else [])

    def _clauses(self, place: Place) -> list[str]:
        """What the entry of the route map sets."""
        said = self._ask(place, f"show route-map {place.route_map} json")
        rules = said.get("BGP", {}).get(str(place.route_map), {}).get("rules", [])
        found = [r for r in rules if r.get("sequenceNumber") == place.entry and r.get("type") == "permit"]
        if not found:
            raise ActuatorError(f"{place.router} has no route-map {place.route_map} permit {place.entry}")
        return [str(clause) for clause in found[0].get("setClauses", [])]

    def _ask(self, place: Place, command: str) -> dict[str, Any]:
        (answer,) = self._tell(place, [command])
        try:
            said = json.loads(answer)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise ActuatorError(f"{place.router} answers no JSON object to: {command}", where=answer[:200])
        return said

    def _tell(self, place: Place, commands: list[str]) -> list[str]:
        router: Router = self._routers[place.router]
        try:
            return tell(router.vty, commands, timeout_s=self._timeout_s, who=router.name)
        except ProximaError as error:
            raise ActuatorError(error.what, where=error.where) from error
