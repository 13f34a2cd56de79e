"""All primaries' remedies together: the planner of paths, which overview asks once a tick.

    take            configurations, directives, results of actions
    step(now)       how the network is; then every primary's remedies, in order of name

Caps are counted here: so many remedies into one region within a window, whoever asks for them, for what is moved onto a
region's links by ten primaries at once is a fault of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from schemas.codec import from_plain, to_plain
from schemas.records import (
    ActionResult,
    Array,
    Directive,
    FailoverConfiguration,
    GraphUpdate,
    Operation,
    OperatorDirective,
    PathAction,
    Record,
    RemedyReport,
)
from streams.core.degradation import Sight
from streams.core.remedies import Remedies

if TYPE_CHECKING:
    from streams.core.graph import Graph
    from streams.core.planning import Network

_DIRECTIVES_MAX: Final = 1000
_LOOKED_AT: Final = ("latency_ms", "usual_latency_ms", "loss_ratio", "loss_now_ratio", "confidence")


class Ledger:
    """Remedies applied of late: when, and to paths into which region."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, str]] = []

    def note(self, region: str, now_ms: int) -> None:
        """One more."""
        self.entries.append((now_ms, region))

    def count(self, region: str, since_ms: int) -> int:
        """Into a region, after a moment."""
        return sum(at > since_ms and into == region for at, into in self.entries)

    def forget(self, before_ms: int) -> None:
        """What no window reaches back to."""
        self.entries = [e for e in self.entries if e[0] >= before_ms]


class Mending:
    """Of the whole network; a `planning.Planner`."""

    name = "remedies"

    def __init__(self) -> None:
        self._primaries: dict[str, Remedies] = {}
        self._versions: dict[str, int] = {}  # of every primary's configuration in force
        self._seen: dict[str, int] = {}  # of every primary, the last update that was looked at
        self._stops: dict[str, OperatorDirective] = {}
        self._ledger = Ledger()

    @property
    def primaries(self) -> Mapping[str, Remedies]:
        """Those that have remedies, or had some."""
        return self._primaries

    def take(self, record: Record, key: str, now_ms: int) -> str | None:
        """A record of the journal; returns why it counts for nothing, where somebody has to be told."""
        match record:
            case FailoverConfiguration():
                self.configure(record)
            case OperatorDirective():
                self.direct(record, now_ms)
            case ActionResult():
                if key != record.primary_region:
                    return f"the key {key[:80]!r} is not the primary {record.primary_region}"
                return self.result(record)
            case _:
                pass
        return None

    def step(self, now_ms: int, network: Network) -> list[Record]:
        """Look at the paths that have remedies; returns what to publish, in order."""
        if not self._primaries:
            return []
        fresh = network.graph.fresh(now_ms)
        for primary, remedies in self._primaries.items():
            standing = network.standings.get(primary)
            if standing is None or standing.sequence == self._seen.get(primary):
                continue
            self._seen[primary] = standing.sequence
            sights = _sights(network.graph, primary, remedies, fresh)
            remedies.see(sights, standing.target_region, now_ms)
        return [*self.tick(now_ms)]

    def configure(self, configuration: FailoverConfiguration) -> None:
        """A configuration; it is in force if it is based on the version that was."""
        primary = configuration.primary_region
        if configuration.based_on != self._versions.get(primary, 0):
            return
        self._versions[primary] = configuration.version
        if primary in self._primaries:
            self._primaries[primary].configure(configuration)
        elif configuration.remedies:
            self._primaries[primary] = Remedies(configuration)

    def direct(self, directive: OperatorDirective, now_ms: int) -> None:
        """An operator's directive; the same id again replaces it, and with an expiry that has passed ends it."""
        self._stops.pop(directive.directive_id, None)
        if directive.kind == Directive.STOP_ACTIONS and directive.expires_at_ms > now_ms:
            self._stops[directive.directive_id] = directive
            if len(self._stops) > _DIRECTIVES_MAX:
                del self._stops[min(self._stops, key=lambda i: (self._stops[i].expires_at_ms, i))]

    def see(self, primary: str, sights: Mapping[str, Sight], target: str | None, now_ms: int) -> None:
        """How a primary's paths are, and where its traffic would go."""
        if primary in self._primaries:
            self._primaries[primary].see(sights, target, now_ms)

    def result(self, result: ActionResult) -> str | None:
        """What an actuator says; returns why it counts for nothing, None if it does."""
        remedies = self._primaries.get(result.primary_region)
        if remedies is None:
            return f"{result.primary_region} has no remedies"
        return remedies.result(result)

    def tick(self, now_ms: int) -> list[PathAction | RemedyReport]:
        """What to publish now, in order."""
        if not self._primaries:
            return []
        self._stops = {i: d for i, d in self._stops.items() if d.expires_at_ms > now_ms}
        windows_ms = [r.configuration.remedy_limits.window_ms for r in self._primaries.values()]
        self._ledger.forget(now_ms - max(windows_ms))
        return [said for primary in sorted(self._primaries) for said in self._tick(primary, now_ms)]

    def _tick(self, primary: str, now_ms: int) -> list[PathAction | RemedyReport]:
        remedies = self._primaries[primary]
        limits = remedies.configuration.remedy_limits

        def may_enter(region: str) -> bool:
            return self._ledger.count(region, now_ms - limits.window_ms) < limits.region_actions_max

        stopped = any(d.primary_region in (None, primary) for d in self._stops.values())
        said = remedies.tick(now_ms, stopped=stopped, may_enter=may_enter)
        for each in said:
            if isinstance(each, PathAction) and each.operation == Operation.APPLY:
                self._ledger.note(each.target_region, now_ms)
        return said

    def save(self) -> dict[str, Any]:
        """Plain data for a snapshot."""
        return {
            "primaries": {primary: remedies.save() for primary, remedies in self._primaries.items()},
            "versions": self._versions,
            "seen": self._seen,
            "stops": [to_plain(d) for d in self._stops.values()],
            "ledger": self._ledger.entries,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the state again."""
        self._primaries = {p: Remedies.load(each) for p, each in state["primaries"].items()}
        self._versions, self._seen = dict(state["versions"]), dict(state["seen"])
        stops = [from_plain(OperatorDirective, each) for each in state["stops"]]
        self._stops = {d.directive_id: d for d in stops}
        self._ledger.entries = [(at, region) for at, region in state["ledger"]]


def _sights(graph: Graph, primary: str, remedies: Remedies, fresh: Array) -> dict[str, Sight]:
    """The paths of a primary that have remedies; bool (regions, regions) `fresh`: somebody measures them now."""
    row, found = graph.numbers[primary], {}
    for target in remedies.targets:
        column = graph.numbers.get(target)
        if column is None:
            continue
        edge = {name: float(graph.edges[name][row, column]) for name in _LOOKED_AT}
        state = int(graph.state[row, column])
        found[target] = Sight(
            latency_ms=edge["latency_ms"],
            usual_ms=edge["usual_latency_ms"],
            loss_ratio=_or_none(edge["loss_ratio"]),
            loss_now_ratio=_or_none(edge["loss_now_ratio"]),
            confidence=_or_none(edge["confidence"]),
            is_fresh=bool(fresh[row, column]),
            is_down=bool(state & GraphUpdate.DOWN),
            is_foretold=bool(state & GraphUpdate.FORETOLD),
        )
    return found


def _or_none(value: float) -> float:
    return 0.0 if math.isnan(value) else value
