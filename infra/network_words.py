"""A verdict of the whole network in sentences: how a primary is, who saw it, whose fault, what is shared or taken."""

from __future__ import annotations

from typing import Final, TypeVar

from infra.times import clock
from infra.words import clean, listed, percent
from schemas.records import Allotment, Fault, NetworkVerdict, Observer, SharedRisk

T = TypeVar("T")
_SHOWN_MAX: Final = 6
_SEES: Final = {
    "UP": "reaches it",
    "DEGRADED": "finds it worse than usual",
    "DOWN": "gets no answer",
    "BLIND": "is no witness",
}
_FAULTS: Final = {
    "PATH": "the path {name}",
    "PRIMARY_ACCESS": "the primary's own connection",
    "TARGET_ACCESS": "the connection of {name}",
    "AGENT": "the agent {name}, and no region",
    "TRANSIT": "{name}",
}


def network_sentences(verdict: NetworkVerdict) -> list[str]:
    """All that it says; the first is how the primary is."""
    primary = clean(verdict.primary_region)
    if verdict.health == "UNKNOWN":
        found = [f"Nobody is there to see {primary}."]
    else:
        found = [f"{primary} is {clean(verdict.health)} since {clock(verdict.health_since_ms)}."]
    found += [_observer(o) for o in _first(sorted(verdict.observers, key=lambda o: (o.sees == "UP", o.region_id)))]
    found += [_fault(fault) for fault in _first(verdict.faults)]
    found += _shared(verdict.shared)
    found += [_allotment(a) for a in _first(verdict.allotments)]
    if verdict.executed_to is not None:
        found.append(f"Its traffic was moved to {clean(verdict.executed_to)} already.")
    return found


def _first(items: list[T]) -> list[T]:
    return items[:_SHOWN_MAX]


def _observer(observer: Observer) -> str:
    detail = f" ({clean(observer.detail)})" if observer.detail.strip() else ""
    return f"{clean(observer.region_id)} {_SEES.get(observer.sees, clean(observer.sees))}{detail}."


def _fault(fault: Fault) -> str:
    what = _FAULTS.get(fault.kind, "{name}").replace("{name}", clean(fault.name))
    paths = f"{fault.explained} bad path{'s' * (fault.explained != 1)}"
    against = f", though {fault.contradicting} should be bad too and are not" if fault.contradicting else ""
    because = f": it explains {paths}{against}" if fault.explained else ""
    return f"At fault is {what} ({percent(fault.confidence)} sure){because}."


def _shared(risks: list[SharedRisk]) -> list[str]:
    riders: dict[str, list[SharedRisk]] = {}
    for risk in risks:
        riders.setdefault(f"{clean(risk.kind)} {clean(risk.name)}", []).append(risk)
    found = []
    for name, each in _first(list(riders.items())):
        regions = [clean(risk.region_id) for risk in each]
        more = [f"{len(regions) - _SHOWN_MAX} more"] if len(regions) > _SHOWN_MAX else []
        primary = ["the primary"] if any(risk.with_primary for risk in each) else []
        found.append(f"{listed([*_first(regions), *more, *primary])} share {name}.")
    return found


def _allotment(allotment: Allotment) -> str:
    taken = [f"{clean(p)} has failed over there" for p in _first(allotment.taken_by)]
    counted = [f"{clean(p)} counted on it before" for p in _first(allotment.counted_on_by)]
    return f"Of {clean(allotment.region_id)} {percent(allotment.free_ratio)} is left: {listed(taken + counted)}."
