"""All primaries' remedies together: what concerns several of them, and what comes over the journal of overview.

    configure, direct, see, result      records
    tick(now)                           every primary's remedies, in order of name
    save / load                         plain data, for the snapshot

Caps are counted here: so many remedies into one region within a window, whoever asks for them, for what is moved onto a
region's links by ten primaries at once is a fault of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from schemas.codec import from_plain, to_plain
from schemas.records import (
    ActionResult,
    Directive,
    FailoverConfiguration,
    Operation,
    OperatorDirective,
    PathAction,
    RemedyReport,
)
from streams.core.degradation import Sight
from streams.core.remedies import Remedies

_DIRECTIVES_MAX: Final = 1000


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
    """Of the whole network."""

    def __init__(self) -> None:
        self._primaries: dict[str, Remedies] = {}
        self._stops: dict[str, OperatorDirective] = {}
        self._ledger = Ledger()

    @property
    def primaries(self) -> Mapping[str, Remedies]:
        """Those that have remedies, or had some."""
        return self._primaries

    def configure(self, configuration: FailoverConfiguration) -> None:
        """A configuration that is in force."""
        primary = configuration.primary_region
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

    def gap(self, highest: Mapping[str, int]) -> None:
        """Records are gone, or another engine decided before: go on above the numbers published, by primary."""
        for primary, sequence in highest.items():
            if primary in self._primaries:
                self._primaries[primary].sequence = max(self._primaries[primary].sequence, sequence)

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
            "stops": [to_plain(d) for d in self._stops.values()],
            "ledger": self._ledger.entries,
        }

    @classmethod
    def load(cls, plain: Mapping[str, Any]) -> Mending:
        """The state again; of a snapshot that knew no remedies, none."""
        found = cls()
        found._primaries = {p: Remedies.load(each) for p, each in plain.get("primaries", {}).items()}
        stops = [from_plain(OperatorDirective, each) for each in plain.get("stops", [])]
        found._stops = {d.directive_id: d for d in stops}
        found._ledger.entries = [(at, region) for at, region in plain.get("ledger", [])]
        return found
