"""Capacity that several primaries count on, counted once.

    taken       a primary has failed over there (`proxima direct executed`): its load is there, and is gone for others
    counted on  it is the target of a primary whose load would go there

A region has what the catalogue says. What is taken is gone for everybody else. What is left is promised in the order
in which primaries began to count on it; whoever comes later is told what remains, and finds it too little, or enough.
A load that nobody states (`load_ratio` 0) is counted nowhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from schemas.records import Allotment, Region
from streams.core.terms import Standing, Terms

_ROUNDING: Final = 1e-9


class Claims:
    """Who takes and who counts on what, at a moment. `executed`: primary -> region where its traffic was moved."""

    def __init__(
        self, terms: Mapping[str, Terms], standings: Mapping[str, Standing], executed: Mapping[str, str]
    ) -> None:
        self._executed = executed
        self._load = {primary: each.load_ratio for primary, each in terms.items() if each.load_ratio > 0}
        self._takers: dict[str, list[str]] = {}
        for primary, region in sorted(executed.items()):
            if primary in self._load:
                self._takers.setdefault(region, []).append(primary)
        self._counters: dict[str, list[str]] = {}  # those first that have counted on it longest
        counting = [p for p in standings if p in self._load and p not in executed]
        for primary in sorted(counting, key=lambda p: (standings[p].target_since_ms, p)):
            target = standings[primary].target_region
            if target is not None:
                self._counters.setdefault(target, []).append(primary)

    def allotments(self, primary: str, candidates: Collection[str], catalogue: Mapping[str, Region]) -> list[Allotment]:
        """What is left for a primary of each candidate that others take or count on, in order of name."""
        found = []
        for region in sorted((self._takers.keys() | self._counters.keys()).intersection(candidates)):
            taken = [other for other in self._takers.get(region, []) if other != primary]
            before = self._counters.get(region, [])
            before = before[: before.index(primary)] if primary in before else before
            if self._executed.get(primary) == region:
                before = []  # it is there already
            free = catalogue[region].capacity_ratio if region in catalogue else 1.0
            free -= sum(self._load[other] for other in taken)
            promised = []
            for other in before:  # one that does not fit takes nothing, and goes elsewhere
                if self._load[other] <= free + _ROUNDING:
                    free -= self._load[other]
                    promised.append(other)
            if taken or promised:
                found.append(Allotment(region, round(min(max(free, 0.0), 1.0), 9), taken, promised))
        return found
