"""The followed routes of every peer, and what has changed since it was last told.

Told is the net effect: between two tellings a route may come and go a thousand times, and what is said is where it
stands now beside what was said last. So a table of any size comes back in a few events a peer, a peer that goes down is
one event however many routes it had, and while Kafka is away nothing piles up: it is told later, that is all.

Memory is peers times followed prefixes, and whoever calls `add` bounds the one, the catalogue of regions the other.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from producers.routes.following import Followed
from producers.routes.paths import AsPath
from producers.routes.update import Update
from schemas.records import RegionReach, Route, RouteChange, RouteEvent, View

MINUTE_MS: Final = 60_000  # churn is told once in so long
ROUTES_AN_EVENT_MAX: Final = 100  # with the longest paths that are told, 130 kB: far below a record's bound
AS_PATH_TOLD_MAX: Final = 255
# ADD-PATH gives a prefix as many paths as it has identifiers; a router that means well sends a handful.
PATHS_A_PREFIX_MAX: Final = 64

_Key = tuple[View, Followed]


@dataclass(slots=True, eq=False)
class Peer:
    """One BGP peer of a router: what it says, and what of that was told."""

    router: str
    address: str
    peer_as: int
    is_up: bool = False
    was_told_up: bool = False
    went_down: bool = False  # since it was told up
    is_known: bool = False  # something of it was ever told
    changed_at_ms: int = 0
    routes: dict[_Key, dict[int, AsPath]] = field(default_factory=dict)  # by path identifier
    told: dict[_Key, AsPath] = field(default_factory=dict)
    changed: dict[_Key, None] = field(default_factory=dict)  # in the order in which they changed
    regions: Counter[str] = field(default_factory=Counter)  # told routes by region
    announced: int = 0  # since the last churn event
    withdrawn: int = 0
    churn_since_ms: int = 0
    churn_until_ms: int = 0  # a churn event is due

    def best(self, key: _Key) -> AsPath | None:
        """The shortest path to a prefix; which one the router takes, only its loc-rib says."""
        paths = self.routes.get(key)
        if not paths or len(paths) == 1:  # most often: min takes longer than all the rest
            return next(iter(paths.values())) if paths else None
        return min(paths.values(), key=lambda path: path.length)


class RouteTable:
    """All peers of all routers of one monitor."""

    def __init__(self, agent_id: str, primary_region: str) -> None:
        self._agent_id, self._primary_region = agent_id, primary_region
        self._peers: dict[Peer, None] = {}
        self._dirty: dict[Peer, None] = {}
        self._lost: deque[RouteEvent] = deque()  # bounded by the routers that were told of since they were drained
        self._reach: Counter[str] = Counter()  # peers with a told route to the region

    @property
    def peers(self) -> tuple[int, int]:
        """How many are up, and how many there are."""
        every = list(self._peers)
        return sum(peer.is_up for peer in every), len(every)

    def add(self, router: str, address: str, peer_as: int, at_ms: int) -> Peer:
        """A new peer, not up yet."""
        peer = Peer(router, address, peer_as, churn_since_ms=at_ms)
        self._peers[peer] = None
        return peer

    def up(self, peer: Peer, at_ms: int) -> None:
        """Its session is established: it will say everything anew."""
        self._forget_routes(peer)
        peer.is_up, peer.changed_at_ms = True, at_ms
        self._dirty[peer] = None

    def down(self, peer: Peer, at_ms: int) -> None:
        """Its session has ended, and all its routes with it; nothing if it was not up (FRR says so of any peer)."""
        if not peer.is_up:
            return
        peer.is_up, peer.went_down, peer.changed_at_ms = False, True, at_ms
        self._forget_routes(peer)
        self._dirty[peer] = None

    def take(self, peer: Peer, view: View | None, update: Update, at_ms: int) -> None:
        """An UPDATE: counted, and followed unless `view` is None (what the router itself says to others)."""
        peer.announced += update.announced
        peer.withdrawn += update.withdrawn
        if view is None or not update.followed:
            return
        peer.changed_at_ms = at_ms
        for to, path_id, path in update.followed:
            key = (view, to)
            if path is None:
                paths = peer.routes.get(key)
                if paths is None or paths.pop(path_id, None) is None:
                    continue
                if not paths:
                    del peer.routes[key]
            else:
                paths = peer.routes.setdefault(key, {})
                if len(paths) >= PATHS_A_PREFIX_MAX and path_id not in paths:
                    continue
                paths[path_id] = path
                peer.is_up = True  # whoever joins late has not seen it come up
            peer.changed[key] = None
            self._dirty[peer] = None

    def lose(self, router: str, peers: Iterable[Peer], at_ms: int) -> None:
        """Nothing more is heard of a router's peers: they are forgotten, and neither up nor down."""
        regions: set[str] = set()
        was_told = False
        for peer in peers:
            was_told = was_told or peer.is_known
            regions.update(self._untell(peer))
            self._peers.pop(peer, None)
            self._dirty.pop(peer, None)
        if was_told:
            self._lost.append(self._event(RouteChange.ROUTER_LOST, at_ms, router, regions=self._reached(regions)))

    def minute(self, at_ms: int) -> None:
        """Time for churn events: one for each peer that has announced or withdrawn anything."""
        for peer in self._peers:
            if peer.announced or peer.withdrawn:
                peer.churn_until_ms = at_ms
                self._dirty[peer] = None
            elif not peer.churn_until_ms:
                peer.churn_since_ms = at_ms

    def alive(self, at_ms: int, over_ms: int) -> RouteEvent:
        """That somebody watches over the table, and for how long; 0: from now on."""
        return self._event(RouteChange.ALIVE, at_ms, "", over_ms=over_ms)

    def tell(self, events_max: int) -> list[RouteEvent]:
        """What has changed since the last time, peer by peer until there are `events_max` events; the rest waits."""
        events: list[RouteEvent] = []
        while self._lost and len(events) < events_max:
            events.append(self._lost.popleft())
        while self._dirty and len(events) < events_max:
            peer = next(iter(self._dirty))
            del self._dirty[peer]
            events += self._peer_events(peer)
        return events

    def _peer_events(self, peer: Peer) -> Iterator[RouteEvent]:
        if peer.was_told_up and (peer.went_down or not peer.is_up):
            regions = self._untell(peer)
            peer.was_told_up = False
            yield self._of(peer, RouteChange.PEER_DOWN, regions=self._reached(regions))
        peer.went_down = False
        if peer.is_up and not peer.was_told_up:
            peer.was_told_up = peer.is_known = True
            yield self._of(peer, RouteChange.PEER_UP)
        yield from self._route_events(peer)
        if peer.churn_until_ms:
            over_ms = peer.churn_until_ms - peer.churn_since_ms
            peer.changed_at_ms, peer.churn_since_ms, peer.churn_until_ms = peer.churn_until_ms, peer.churn_until_ms, 0
            counts = {"announced": peer.announced, "withdrawn": peer.withdrawn, "over_ms": max(0, over_ms)}
            yield self._of(peer, RouteChange.CHURN, **counts)
            peer.announced = peer.withdrawn = 0

    def _route_events(self, peer: Peer) -> Iterator[RouteEvent]:
        found: dict[tuple[View, RouteChange], list[Route]] = {}
        for key in peer.changed:
            view, to = key
            new, old = peer.best(key), peer.told.get(key)
            if new == old:
                continue
            self._note(peer, key, new)
            path = new or old
            route = Route(
                to.region_id,
                to.prefix,
                list(path.ases[:AS_PATH_TOLD_MAX]) if path else [],
                path.length if path else 0,
                old.length if old else None,
            )
            kind = RouteChange.PATH_CHANGED
            if new is None:
                kind = RouteChange.WITHDRAWN
            elif old is None:
                kind = RouteChange.REACHABLE
            found.setdefault((view, kind), []).append(route)
        peer.changed.clear()
        for (view, kind), routes in found.items():
            left = iter(routes)
            while part := list(islice(left, ROUTES_AN_EVENT_MAX)):
                regions = self._reached({route.region_id for route in part})
                yield self._of(peer, kind, view=view.value, routes=part, regions=regions)

    def _note(self, peer: Peer, key: _Key, path: AsPath | None) -> None:
        """What is told from now on, and which regions can be reached by it."""
        region, was_there = key[1].region_id, key in peer.told
        if path is not None:
            peer.told[key] = path
            if not was_there:
                peer.regions[region] += 1
                self._reach[region] += peer.regions[region] == 1
        elif was_there:
            del peer.told[key]
            peer.regions[region] -= 1
            if not peer.regions[region]:
                del peer.regions[region]
                self._reach[region] -= 1

    def _untell(self, peer: Peer) -> list[str]:
        """Take back all that was told of the peer's routes; the regions that they led to."""
        regions = list(peer.regions)
        self._reach.subtract(regions)
        peer.regions.clear()
        peer.told.clear()
        return regions

    def _forget_routes(self, peer: Peer) -> None:
        peer.changed = dict.fromkeys(peer.told)
        peer.routes.clear()

    def _reached(self, regions: Iterable[str]) -> list[RegionReach]:
        return [RegionReach(region, self._reach[region]) for region in sorted(regions)]

    def _of(self, peer: Peer, kind: RouteChange, **more: object) -> RouteEvent:
        return self._event(kind, peer.changed_at_ms, peer.router, peer.address, peer.peer_as, **more)

    def _event(
        self, kind: RouteChange, at_ms: int, router: str, address: str = "", peer_as: int = 0, **more: object
    ) -> RouteEvent:
        who = (self._agent_id, self._primary_region)
        return RouteEvent(*who, at_ms, kind.value, router, address, peer_as, **more)  # type: ignore[arg-type]
