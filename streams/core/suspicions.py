"""Faults over time: told when they have been blamed twice in a row, and until they have not been for a while."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from schemas.records import Fault, FaultKind
from streams.core.blame import ACCESS, AGENT, PATH, Blamed

TOLD_AFTER_TICKS: Final = 2
KEPT_TICKS: Final = 3
_REGIONS_MAX: Final = 16  # of a network that hundreds ride, a verdict names some
_KINDS: Final = {ACCESS: None, AGENT: FaultKind.AGENT, PATH: FaultKind.PATH}


class Suspicions:
    """By "kind name": [the fault, since, ticks in a row that it was blamed, ticks since]."""

    def __init__(self) -> None:
        self._each: dict[str, list[Any]] = {}

    def step(self, blamed: Iterable[Blamed], now_ms: int) -> None:
        """What is blamed at this tick, the best explanation first."""
        now = {f"{b.kind} {b.name}": b for b in blamed}
        kept = {key: entry for key, entry in self._each.items() if key not in now and entry[3] + 1 < KEPT_TICKS}
        found: dict[str, list[Any]] = {}
        for key, fault in now.items():
            since, ticks = self._each[key][1:3] if key in self._each else (now_ms, 0)
            found[key] = [fault, since, ticks + 1, 0]
        self._each = found | {
            key: [fault, since, ticks, missed + 1] for key, (fault, since, ticks, missed) in kept.items()
        }

    @property
    def blamed(self) -> list[tuple[Blamed, int]]:
        """The faults to tell, and since when each."""
        return [(e[0], e[1]) for e in self._each.values() if e[2] >= TOLD_AFTER_TICKS]

    def of(self, primary: str) -> list[Fault]:
        """Those that concern a primary's own paths, in its words."""
        found = []
        for fault, since_ms in self.blamed:
            if fault.kind == ACCESS:
                kind = FaultKind.PRIMARY_ACCESS if fault.name == primary else FaultKind.TARGET_ACCESS
            elif primary not in fault.regions:
                continue
            else:
                kind = _KINDS.get(fault.kind) or FaultKind.TRANSIT
            found.append(
                Fault(
                    kind=str(kind),
                    name=fault.name,
                    regions=list(fault.regions[:_REGIONS_MAX]),
                    confidence=fault.confidence,
                    explained=fault.explained,
                    contradicting=fault.contradicting,
                    since_ms=since_ms,
                )
            )
        return found

    def save(self) -> list[Any]:
        """Plain data for a snapshot."""
        return [
            [[b.kind, b.name, list(b.regions), b.confidence, b.explained, b.contradicting], *rest]
            for b, *rest in self._each.values()
        ]

    @classmethod
    def load(cls, plain: Iterable[list[Any]]) -> Suspicions:
        """The state again."""
        suspicions = cls()
        for values, *rest in plain:
            blamed = Blamed(*values)
            blamed = replace(blamed, regions=tuple(blamed.regions))
            suspicions._each[f"{blamed.kind} {blamed.name}"] = [blamed, *rest]
        return suspicions


def in_words(primary: str, faults: Iterable[Fault]) -> str:
    """The first fault, in a sentence; empty: there is none."""
    first = next(iter(faults), None)
    if first is None:
        return ""
    sure = f"({first.confidence:.0%} sure)"
    said: Mapping[str, str] = {
        FaultKind.PATH: f"the path {first.name} is at fault",
        FaultKind.PRIMARY_ACCESS: f"{primary}'s own connection is at fault",
        FaultKind.TARGET_ACCESS: f"the connection of {first.name} is at fault",
        FaultKind.AGENT: f"{first.name} measures nothing: an agent's fault, no region's",
        FaultKind.TRANSIT: f"{first.name} is at fault",
    }
    return f"{said.get(first.kind, first.name)} {sure}"
