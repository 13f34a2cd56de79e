"""What a primary's candidates have in common with it, and with each other: what would fail together.

    provider       both are connected by a network that the catalogue names for both
    risk group     the catalogue puts both into a group: a cable, a power grid, a supplier
    transit        the ways there, as BGP says, lead over the same network (AS)

*The primary's own transits* are the networks that its ways begin with, and those that others reach it by. A candidate
that is reached by one of them may fail with the primary, which is just when it is needed. *Between candidates* those
networks count that not all of the primary's ways lead over: what all have in common is the primary's own access, and
tells no candidate from another.

Shares are of the candidate: with two providers, one of them the primary's, half of its ways remain. A risk group is
whole. Of two that share everything, neither is better for it; the ranking lets the better one stand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from schemas.records import Region, SharedRisk

PROVIDER: Final = "provider"
GROUP: Final = "risk group"
TRANSIT: Final = "transit"
# A verdict has to fit into a record: of each candidate, with so many others, those that it shares most with.
_OTHERS_MAX: Final = 16
Routes = Mapping[str, Sequence[int]]  # region -> AS numbers on the way there, in their order


def shared_risks(
    primary: str, candidates: Sequence[str], catalogue: Mapping[str, Region], routes: Mapping[str, Routes]
) -> list[SharedRisk]:
    """All that a primary's candidates share. `routes`: of each primary that has monitors, its ways."""
    ways = {region: way for region, way in routes.get(primary, {}).items() if way}
    nowhere = Region("", 0.0, 0.0)
    own = {way[0] for way in ways.values()} | _reached_by(primary, routes)
    common = set.intersection(*map(set, ways.values())) if len(ways) > 1 else set()
    between = {r: frozenset(ways[r]) - common for r in candidates if r in ways}
    home = catalogue.get(primary, nowhere)
    regions = {r: catalogue.get(r, nowhere) for r in candidates}
    found: list[SharedRisk] = []
    for candidate in candidates:
        there = regions[candidate]
        last = {ways[candidate][-1]} if candidate in ways else set()
        found += _declared(candidate, there, home, None)
        found += _named(candidate, TRANSIT, _as(last | _reached_by(candidate, routes)), _as(own), None)
    by_name = _index(candidates, regions, between)
    for candidate in candidates:
        others: dict[str, None] = {}
        for name in _names_of(regions[candidate], between.get(candidate, frozenset())):
            others |= dict.fromkeys(by_name[name])
        mine = []
        for other in others:
            if other != candidate:
                risks = _declared(candidate, regions[candidate], regions[other], other)
                ours, theirs = _as(between.get(candidate, frozenset())), _as(between.get(other, frozenset()))
                mine.append(risks + _named(candidate, TRANSIT, ours, theirs, other))
        mine.sort(key=lambda risks: -max((r.share_ratio for r in risks), default=0.0))
        found += [risk for risks in mine[:_OTHERS_MAX] for risk in risks]
    return found


def _reached_by(region: str, routes: Mapping[str, Routes]) -> set[int]:
    """The last networks before a region on the ways that anybody has there."""
    return {way[-1] for ways in routes.values() if (way := ways.get(region))}


def _declared(candidate: str, one: Region, other: Region, with_region: str | None) -> list[SharedRisk]:
    groups = sorted(set(one.risk_groups) & set(other.risk_groups))
    return [
        *_named(candidate, PROVIDER, set(one.providers), set(other.providers), with_region),
        *(SharedRisk(candidate, GROUP, name, 1.0, with_region) for name in groups),
    ]


def _named(candidate: str, kind: str, one: set[str], other: set[str], with_region: str | None) -> list[SharedRisk]:
    both = sorted(one & other)
    return [SharedRisk(candidate, kind, name, round(len(both) / len(one), 6), with_region) for name in both]


def _as(numbers: set[int] | frozenset[int]) -> set[str]:
    return {f"AS {number}" for number in numbers}


def _names_of(region: Region, transits: frozenset[int]) -> list[str]:
    found = [f"{PROVIDER} {name}" for name in region.providers] + [f"{GROUP} {name}" for name in region.risk_groups]
    return found + [f"{TRANSIT} {number}" for number in sorted(transits)]


def _index(
    candidates: Sequence[str], regions: Mapping[str, Region], between: Mapping[str, frozenset[int]]
) -> dict[str, list[str]]:
    """Who is connected by, belongs to or is reached over each, so that only those are held beside each other."""
    found: dict[str, list[str]] = {}
    for candidate in candidates:
        for name in _names_of(regions[candidate], between.get(candidate, frozenset())):
            found.setdefault(name, []).append(candidate)
    return found
