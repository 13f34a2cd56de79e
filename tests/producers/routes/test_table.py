"""What is told of the followed routes: net effects, few events, and always where everything stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from producers.routes.following import Followed
from producers.routes.paths import AsPath
from producers.routes.table import PATHS_A_PREFIX_MAX, ROUTES_AN_EVENT_MAX, Peer, RouteTable
from producers.routes.update import Said, Update
from schemas.codec import encode
from schemas.records import RouteEvent, View
from schemas.topics import TOPICS
from schemas.validate import mistakes

PRE = View.PRE_POLICY
EU, US = Followed("203.0.113.0/24", "eu-west-1"), Followed("198.51.100.0/24", "us-east-1")
SHORT, LONG = AsPath((65001,), 1), AsPath((65001, 65002), 2)


def table() -> RouteTable:
    return RouteTable("eu-west-1/routes", "eu-west-1")


def peer_of(routes: RouteTable, number: int = 1, router: str = "edge-1") -> Peer:
    peer = routes.add(router, f"192.0.2.{number}", 65000 + number, 0)
    routes.up(peer, 0)
    return peer


def says(
    routes: RouteTable, peer: Peer, to: Followed, path: AsPath | None, *, view: View = PRE, path_id: int = 0
) -> None:
    routes.take(peer, view, Update(int(path is not None), int(path is None), [Said(to, path_id, path)]), 1)


def told(routes: RouteTable) -> list[RouteEvent]:
    events = routes.tell(1_000_000)
    assert [m for e in events for m in mistakes(e)] == []
    return events


def kinds(events: Iterable[RouteEvent]) -> list[str]:
    return [e.kind for e in events]


def test_a_route_is_reachable_then_changes_its_path_then_is_withdrawn() -> None:
    routes = table()
    peer = peer_of(routes)
    says(routes, peer, EU, SHORT)
    up, reachable = told(routes)
    assert (up.kind, up.peer, up.peer_as, up.router) == ("PEER_UP", "192.0.2.1", 65001, "edge-1")
    [route] = reachable.routes
    assert (reachable.kind, route.region_id, route.prefix) == ("REACHABLE", "eu-west-1", EU.prefix)
    assert (route.as_path, route.as_path_length, route.previous_as_path_length) == ([65001], 1, None)
    says(routes, peer, EU, LONG)
    [changed] = told(routes)
    assert changed.kind == "PATH_CHANGED"
    assert (changed.routes[0].as_path_length, changed.routes[0].previous_as_path_length) == (2, 1)
    says(routes, peer, EU, None)
    [withdrawn] = told(routes)
    assert (withdrawn.kind, withdrawn.routes[0].as_path) == ("WITHDRAWN", [65001, 65002])
    assert [(r.region_id, r.peers_left) for r in withdrawn.regions] == [("eu-west-1", 0)]


def test_the_same_again_is_no_event() -> None:
    routes = table()
    peer = peer_of(routes)
    says(routes, peer, EU, SHORT)
    told(routes)
    says(routes, peer, EU, SHORT)
    says(routes, peer, US, None)
    assert told(routes) == []


def test_a_route_that_comes_and_goes_meanwhile_is_told_as_it_stands() -> None:
    routes = table()
    peer = peer_of(routes)
    for _ in range(1000):
        says(routes, peer, EU, SHORT)
        says(routes, peer, EU, None)
    assert kinds(told(routes)) == ["PEER_UP"]


def test_a_peer_that_goes_down_is_one_event_however_many_routes_it_had() -> None:
    routes = table()
    peer = peer_of(routes)
    many = [Followed(f"10.{n >> 8}.{n & 255}.0/24", f"region-{n % 3}") for n in range(3000)]
    for to in many:
        says(routes, peer, to, SHORT)
    assert len(told(routes)) == 1 + 3000 / ROUTES_AN_EVENT_MAX
    routes.down(peer, 2)
    [event] = told(routes)
    assert (event.kind, event.routes) == ("PEER_DOWN", [])
    assert [(r.region_id, r.peers_left) for r in event.regions] == [(f"region-{n}", 0) for n in range(3)]


def test_a_bounce_within_a_moment_is_down_and_up_and_what_is_there_now() -> None:
    routes = table()
    peer = peer_of(routes)
    says(routes, peer, EU, SHORT)
    says(routes, peer, US, SHORT)
    told(routes)
    for _ in range(100):
        routes.down(peer, 2)
        routes.up(peer, 2)
    says(routes, peer, EU, SHORT)
    events = told(routes)
    assert kinds(events) == ["PEER_DOWN", "PEER_UP", "REACHABLE"]
    assert [r.prefix for r in events[2].routes] == [EU.prefix]


def test_a_peer_that_was_never_up_does_not_go_down() -> None:
    routes = table()
    routes.down(routes.add("edge-1", "192.0.2.1", 65001, 0), 1)
    assert told(routes) == []


def test_who_announces_is_up() -> None:
    routes = table()
    peer = routes.add("edge-1", "192.0.2.1", 65001, 0)
    says(routes, peer, EU, SHORT)
    assert kinds(told(routes)) == ["PEER_UP", "REACHABLE"]


def test_peers_left_says_whether_somebody_else_still_leads_there() -> None:
    routes = table()
    first, second = peer_of(routes, 1), peer_of(routes, 2, "edge-2")
    for peer in (first, second):
        says(routes, peer, EU, SHORT)
    assert [e.regions[0].peers_left for e in told(routes) if e.kind == "REACHABLE"] == [1, 2]
    routes.down(first, 1)
    assert [e.regions[0].peers_left for e in told(routes)] == [1]
    says(routes, second, EU, None)
    assert [e.regions[0].peers_left for e in told(routes)] == [0]


def test_views_are_told_apart() -> None:
    routes = table()
    peer = peer_of(routes)
    says(routes, peer, EU, SHORT)
    says(routes, peer, EU, SHORT, view=View.POST_POLICY)
    told(routes)
    says(routes, peer, EU, None, view=View.POST_POLICY)
    [event] = told(routes)
    assert (event.kind, event.view) == ("WITHDRAWN", "post-policy")
    assert event.regions[0].peers_left == 1, "the peer still says so"


def test_of_several_paths_the_shortest_is_told_and_the_last_one_withdraws() -> None:
    routes = table()
    peer = peer_of(routes)
    says(routes, peer, EU, LONG, path_id=1)
    says(routes, peer, EU, SHORT, path_id=2)
    assert told(routes)[1].routes[0].as_path_length == 1
    says(routes, peer, EU, None, path_id=2)
    assert [(e.kind, e.routes[0].as_path_length) for e in told(routes)] == [("PATH_CHANGED", 2)]
    says(routes, peer, EU, None, path_id=1)
    assert kinds(told(routes)) == ["WITHDRAWN"]
    for path_id in range(10 * PATHS_A_PREFIX_MAX):
        says(routes, peer, EU, SHORT, path_id=path_id)
    assert len(peer.routes[(PRE, EU)]) == PATHS_A_PREFIX_MAX


def test_what_the_router_says_itself_is_counted_and_not_followed() -> None:
    routes = table()
    peer = peer_of(routes)
    routes.take(peer, None, Update(1, 0, [Said(EU, 0, SHORT)]), 1)
    routes.minute(60_000)
    assert kinds(told(routes)) == ["PEER_UP", "CHURN"]


def test_a_router_that_is_lost_is_one_event_and_nobody_is_down() -> None:
    routes = table()
    peers = [peer_of(routes, n) for n in range(1, 4)]
    for peer in peers:
        says(routes, peer, EU, SHORT)
    other = peer_of(routes, 9, "edge-2")
    says(routes, other, EU, SHORT)
    told(routes)
    routes.lose("edge-1", peers, 5)
    [event] = told(routes)
    assert (event.kind, event.router, event.peer, event.observed_at_ms) == ("ROUTER_LOST", "edge-1", "", 5)
    assert [(r.region_id, r.peers_left) for r in event.regions] == [("eu-west-1", 1)]
    routes.lose("edge-3", [routes.add("edge-3", "192.0.2.7", 1, 0)], 6)
    assert told(routes) == [], "of whom nothing was told, nothing is taken back"


def test_churn_counts_all_prefixes_of_peers_that_said_anything() -> None:
    routes = table()
    peer = peer_of(routes)
    peer_of(routes, 2)
    routes.take(peer, PRE, Update(7, 3), 1)
    routes.minute(60_000)
    churn = [e for e in told(routes) if e.kind == "CHURN"]
    assert [(e.peer, e.announced, e.withdrawn, e.over_ms, e.observed_at_ms) for e in churn] == [
        ("192.0.2.1", 7, 3, 60_000, 60_000)
    ]
    routes.minute(120_000)
    assert told(routes) == []


def test_no_event_is_too_large_for_its_topic() -> None:
    routes = table()
    peer = peer_of(routes)
    endless = AsPath(tuple([4_294_967_295] * 16_000), 16_000)
    for n in range(1, 251):
        says(routes, peer, Followed(f"2001:db8:{n:x}::/48", "r" * 63), endless)
    sizes = [len(encode(e)) for e in told(routes)]
    assert max(sizes) < TOPICS["bgp-events"].max_message_bytes / 4


def test_what_does_not_fit_into_a_telling_waits_for_the_next() -> None:
    routes = table()
    for n in range(1, 31):
        says(routes, peer_of(routes, n), EU, SHORT)
    parts = [routes.tell(8) for _ in range(10)]
    assert max(map(len, parts)) <= 9
    assert sum(map(len, parts)) == 60


# -- a subscriber that believes what it is told knows how things stand

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("up"), st.integers(0, 2)),
        st.tuples(st.just("down"), st.integers(0, 2)),
        st.tuples(st.just("tell"), st.integers(1, 3)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(
            st.just("says"),
            st.integers(0, 2),
            st.sampled_from((EU, US)),
            st.sampled_from((None, SHORT, LONG)),
            st.integers(0, 2),
            st.sampled_from((View.PRE_POLICY, View.LOC_RIB)),
        ),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(_STEPS)
def test_believing_every_event_gives_the_table(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    routes = table()
    peers = [peer_of(routes, n) for n in range(3)]
    believed: dict[tuple[str, str, str], int] = {}
    up: set[str] = set()

    def hear(events: Iterable[RouteEvent]) -> None:
        for e in events:
            if e.kind in ("PEER_DOWN", "ROUTER_LOST"):
                for key in [k for k in believed if e.kind == "ROUTER_LOST" or k[0] == e.peer]:
                    del believed[key]
                up.difference_update([e.peer] if e.peer else list(up))
            elif e.kind == "PEER_UP":
                assert e.peer not in up
                up.add(e.peer)
            for route in e.routes:
                assert e.peer in up
                key = (e.peer, e.view, route.prefix)
                assert believed.get(key) == route.previous_as_path_length
                if e.kind == "WITHDRAWN":
                    del believed[key]
                else:
                    believed[key] = route.as_path_length
            there = defaultdict(set)
            for peer, _, prefix in believed:
                there[EU.region_id if prefix == EU.prefix else US.region_id].add(peer)

    for step in steps:
        match step:
            case ("up", number):
                routes.up(peers[number], 1)
            case ("down", number):
                routes.down(peers[number], 1)
            case ("tell", number):
                hear(routes.tell(number))
            case ("lose", _):
                routes.lose("edge-1", peers, 1)
                peers = [peer_of(routes, n) for n in range(3)]
            case (_, number, to, path, path_id, view):
                says(routes, peers[number], to, path, view=view, path_id=path_id)
    hear(told(routes))
    stands = {
        (peer.address, view.value, to.prefix): min(p.length for p in paths.values())
        for peer in peers
        for (view, to), paths in peer.routes.items()
    }
    assert believed == stands
    assert up == {peer.address for peer in peers if peer.is_up}
