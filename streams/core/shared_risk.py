"""What a primary's candidates have in common with it, and with each other: what would fail together.

    provider       both are connected by a network that the catalogue names for both
    risk group     the catalogue puts both into a group: a cable, a power grid, a supplier
    transit        the ways there, as BGP says, lead over the same network (AS)

*The primary's own transits* are the networks that its ways begin with, and those that others reach it by. A candidate
that is reached by one of them may fail with the primary, which is just when it is needed. *Between candidates* those
networks count that not all of the primary's ways lead over: what all have in common is the primary's own access, and
tells no candidate from another.

Shares are of the candidate: with two providers, one of them the primary's, half of its ways remain. A risk group is
whole. What is told is what each depends on, as far as anybody else does: who shares it follows from the names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from schemas.records import Region, SharedRisk

PROVIDER: Final = "provider"
GROUP: Final = "risk group"
TRANSIT: Final = "transit"
Ways = Mapping[str, Sequence[int]]  # region -> AS numbers on the way there, in their order
_NOWHERE: Final = Region("", 0.0, 0.0)


def reached_by(routes: Mapping[str, Ways]) -> dict[str, frozenset[int]]:
    """By region the last networks before it, on the ways that anybody has there."""
    found: dict[str, set[int]] = {}
    for ways in routes.values():
        for region, way in ways.items():
            if way:
                found.setdefault(region, set()).add(way[-1])
    return {region: frozenset(networks) for region, networks in found.items()}


def shared_risks(
    primary: str,
    candidates: Sequence[str],
    catalogue: Mapping[str, Region],
    ways: Ways,
    reached: Mapping[str, frozenset[int]],
) -> list[SharedRisk]:
    """What a primary's candidates depend on, and others too; `ways`: the primary's own, `reached`: by `reached_by`."""
    ways = {region: way for region, way in ways.items() if way}
    home = catalogue.get(primary, _NOWHERE)
    # What all of the primary's ways lead over is its own access, and tells no candidate from another.
    common = set.intersection(*map(set, ways.values())) if len(ways) > 1 else set()
    own = {way[0] for way in ways.values()} | reached.get(primary, frozenset())
    declared = {(PROVIDER, name) for name in home.providers} | {(GROUP, name) for name in home.risk_groups}
    rides: dict[str, dict[tuple[str, str], float]] = {}
    doomed: dict[str, set[tuple[str, str]]] = {}  # what would take a candidate with the primary
    for candidate in candidates:
        there, way = catalogue.get(candidate, _NOWHERE), ways.get(candidate, ())
        # By what it is reached it may fail with the primary, by what lies between with another candidate.
        last, between = reached.get(candidate, frozenset()) | set(way[-1:]), set(way) - common
        each = {(PROVIDER, name): 1 / len(there.providers) for name in there.providers}
        each |= {(GROUP, name): 1.0 for name in there.risk_groups}
        each |= {(TRANSIT, f"AS {number}"): 1 / len(between) for number in sorted(between)}
        with_own = {(TRANSIT, f"AS {number}"): 1 / len(last) for number in sorted(last & own)}
        rides[candidate], doomed[candidate] = each | with_own, declared | with_own.keys()
    riders = Counter(thing for each in rides.values() for thing in each)
    return [
        SharedRisk(candidate, *thing, round(share, 6), thing in doomed[candidate])
        for candidate, each in rides.items()
        for thing, share in each.items()
        if riders[thing] > 1 or thing in doomed[candidate]
    ]
