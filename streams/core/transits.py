"""Which networks lie on the way to each of a primary's candidates, as its monitors' BGP tables say.

A monitor tells every peer's route, and not (unless it sees the router's own table) which of them the router takes. So
of a region's routes one of a router's own table counts first, else the shortest, else the first by name: what BGP
itself would most probably do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from schemas.records import GraphRoute, RouteChange, RouteEvent, View

_ROUTES_MAX: Final = 8  # of a region that are kept: further peers' are no other news
_TRANSITS_MAX: Final = 32


class Transits:
    """Of one primary: region -> "agent router peer view" -> [length, AS path]."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._routes: dict[str, dict[str, list[Any]]] = {r: dict(each) for r, each in (state or {}).items()}

    def take(self, event: RouteEvent) -> bool:
        """Take an event in; True when the ways may be others now."""
        router = f"{event.agent_id} {event.router} "
        peer = f"{router}{event.peer} {event.view}"
        match event.kind:
            case RouteChange.REACHABLE | RouteChange.PATH_CHANGED:
                for route in event.routes:
                    known = self._routes.setdefault(route.region_id, {})
                    if peer in known or len(known) < _ROUTES_MAX:
                        known[peer] = [route.as_path_length, list(route.as_path)]
                return bool(event.routes)
            case RouteChange.WITHDRAWN:
                return self._drop(peer, [route.region_id for route in event.routes])
            case RouteChange.PEER_DOWN:
                return self._drop(peer)
            case RouteChange.ROUTER_LOST:
                return self._drop(router)
            case RouteChange.ALIVE if not event.over_ms:
                return self._drop(f"{event.agent_id} ")
        return False

    def only_of(self, agents: Collection[str]) -> bool:
        """Forget what any other agent said; True when the ways may be others now."""
        strangers = {key.split(" ", 1)[0] for routes in self._routes.values() for key in routes}.difference(agents)
        for agent in sorted(strangers):
            self._drop(f"{agent} ")
        return bool(strangers)

    def _drop(self, prefix: str, regions: list[str] | None = None) -> bool:
        gone = [
            (region, key)
            for region in (list(self._routes) if regions is None else regions)
            for key in self._routes.get(region, {})
            if key.startswith(prefix)
        ]
        for region, key in dict.fromkeys(gone):
            del self._routes[region][key]
            if not self._routes[region]:
                del self._routes[region]
        return bool(gone)

    def ways(self) -> list[GraphRoute]:
        """The networks on the way to each region, without the region's own."""
        found = []
        for region, routes in sorted(self._routes.items()):
            best = min(routes, key=lambda key: (not key.endswith(f" {View.LOC_RIB}"), routes[key][0], key))
            path = list(dict.fromkeys(routes[best][1]))  # without what is prepended
            found.append(GraphRoute(region, path[:-1][:_TRANSITS_MAX]))
        return found

    def save(self) -> dict[str, Any]:
        """Plain data for a snapshot."""
        return self._routes
