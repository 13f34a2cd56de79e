"""BMP: messages out of any pieces, back into step after bad bytes, and what a router's session does to the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.routes import bmp
from producers.routes.following import following
from producers.routes.session import BmpSession
from producers.routes.table import RouteTable
from schemas.records import Region, RouteEvent
from tests.producers.routes import wire

OURS, OURS6 = "203.0.113.0/24", "2001:db8:1::/48"
NOBODY = "0.0.0.0"  # noqa: S104
FAMILIES = following([Region("eu-west-1", 0, 0, prefixes=[OURS, OURS6])])
GOOD = [
    wire.initiation(),
    wire.peer_up(),
    wire.route_monitoring(wire.announce(OURS, "10.0.0.0/8")),
    wire.route_monitoring(wire.END_OF_RIB),
    wire.statistics(),
    wire.peer_down(),
    wire.bmp(6, wire.per_peer() + wire.tlv(0, wire.KEEPALIVE)),
    wire.TERMINATION,
]


class Router:
    """A session with a table of its own."""

    def __init__(self, families: Any = FAMILIES, peers_max: int = 100) -> None:
        self.table = RouteTable("eu-west-1/routes", "eu-west-1")
        self.session = BmpSession("127.0.0.1", self.table, families, peers_max)

    def sends(self, *messages: bytes) -> list[RouteEvent]:
        for message in messages:
            self.session.take(message, 1000)
        return self.table.tell(10_000)

    def kinds(self, *messages: bytes) -> list[str]:
        return [e.kind for e in self.sends(*messages)]


def framed(*pieces: bytes) -> tuple[list[bytes], bmp.Framing]:
    framing = bmp.Framing()
    found = [m.data[m.at - 6 : m.end] for piece in pieces for m in framing.feed(piece)]
    return found, framing


# -- framing


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(GOOD), max_size=20), st.lists(st.integers(0, 2000), max_size=20))
def test_messages_come_out_whole_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    stream, at = b"".join(messages), 0
    pieces = []
    for cut in sorted({min(c, len(stream)) for c in cuts}):
        pieces.append(stream[at:cut])
        at = cut
    found, framing = framed(*pieces, stream[at:])
    assert found == messages
    assert (framing.skipped, framing.resyncs) == (0, 0)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(GOOD), min_size=2, max_size=8), st.binary(min_size=1, max_size=100), st.data())
def test_after_bad_bytes_it_is_back_in_step(messages: list[bytes], bad: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(messages) - 1))
    after = messages[at:]
    stream = b"".join(messages[:at]) + bad + b"".join(after)
    found, framing = framed(stream)
    assert found[:at] == messages[:at]
    # Bad bytes may look like the beginning of a message, which then takes the next ones with it; never more than that.
    if framing.resyncs and framing.skipped == len(bad):
        assert found == messages


_MORE = [wire.route_monitoring(wire.announce(OURS, path=(n + 1,))) for n in range(bmp.MESSAGE_BYTES_MAX // 90)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.sampled_from(GOOD).map(lambda m: m[:-9]), max_size=5).map(b"".join))
def test_whatever_came_it_is_back_in_step_after_the_largest_message(bad: bytes) -> None:
    found, _ = framed(bad + b"".join(_MORE))
    assert found[-1] == _MORE[-1]
    assert sum(map(len, _MORE)) > bmp.MESSAGE_BYTES_MAX


def test_a_stream_that_is_no_bmp_is_given_up() -> None:
    router = Router()
    for _ in range(20):
        router.sends(b"\3" * 10_000)
    assert router.session.over_because == ""
    for _ in range(100):
        router.sends(b"\3" * 10_000)
    assert router.session.over_because == "it sends no BMP"


def test_zeros_text_and_an_unknown_version_are_skipped() -> None:
    for bad in (bytes(1000), b"GET / HTTP/1.1\r\n\r\n", wire.bmp(0, bytes(80), version=4), b"\3" * 50):
        found, framing = framed(GOOD[1] + bad + GOOD[2] + GOOD[4])
        assert found == [GOOD[1], GOOD[2], GOOD[4]], bad[:20]
        assert (framing.skipped, framing.resyncs) == (len(bad), 1)


def test_a_length_that_lies_costs_that_message_only() -> None:
    update = wire.route_monitoring(wire.announce(OURS))
    for length in (0, 5, len(update) - 1, len(update) + 1, 70_000, 0xFFFFFFFF):
        lying = update[:1] + length.to_bytes(4, "big") + update[5:]
        found, framing = framed(lying + GOOD[2] + GOOD[5])
        assert found == [GOOD[2], GOOD[5]], length
        assert framing.resyncs == 1


def test_an_unknown_type_is_passed_over() -> None:
    later = wire.bmp(9, b"what version 3 may have one day")
    assert framed(later + GOOD[2])[0] == [later, GOOD[2]]
    router = Router()
    router.sends(later)
    assert router.session.heard.unparsed == 1


def test_bytes_that_never_make_sense_are_not_kept() -> None:
    framing = bmp.Framing()
    for _ in range(100):
        list(framing.feed(b"\3\0\4\0\0\0" * 5000))
        assert len(framing._rest) <= bmp.MESSAGE_BYTES_MAX
    assert framing.skipped > 2_000_000


# -- sessions


def test_a_router_tells_its_peers_and_their_routes() -> None:
    router = Router()
    events = router.sends(
        wire.initiation("edge-1"),
        wire.peer_up(),
        wire.route_monitoring(wire.announce(OURS, path=(65000, 65001, 4_200_000_003))),
        wire.route_monitoring(wire.announce6(OURS6)),
        wire.statistics(),
    )
    assert [e.kind for e in events] == ["PEER_UP", "REACHABLE"]
    assert [(e.router, e.peer, e.peer_as, e.view) for e in events] == [("edge-1", "192.0.2.1", 65001, "pre-policy")] * 2
    assert [(r.prefix, r.as_path) for r in events[1].routes] == [
        (OURS, [65001, 4_200_000_003]),
        (OURS6, [65001]),
    ], "without the router's own number, which FRR puts first"
    assert router.kinds(wire.route_monitoring(wire.withdraw(OURS))) == ["WITHDRAWN"]
    assert router.kinds(wire.peer_down()) == ["PEER_DOWN"]


def test_peers_of_ipv6_and_of_vpns_are_peers_of_their_own() -> None:
    router = Router()
    peers: list[dict[str, Any]] = [
        {"address": "2001:db8::1"}, {"address": "192.0.2.1"},
        {"address": "192.0.2.1", "kind": 1, "distinguisher": b"\0\1" + bytes(6)},
    ]  # fmt: skip
    up = router.sends(*(wire.peer_up(**p) for p in peers))
    assert [e.peer for e in up] == ["2001:db8::1", "192.0.2.1", "192.0.2.1"]
    assert router.kinds(wire.peer_down(**peers[2])) == ["PEER_DOWN"]


def test_paths_of_two_octets_are_said_by_a_flag() -> None:
    router = Router()
    update = wire.announce(OURS, path=(65001, 65002), width=2)
    events = router.sends(wire.route_monitoring(update, flags=0x20))
    assert events[1].routes[0].as_path == [65001, 65002]


def test_views_are_told_apart_and_a_peer_down_is_for_all() -> None:
    router = Router()
    events = router.sends(
        wire.peer_up(),
        wire.route_monitoring(wire.announce(OURS)),
        wire.route_monitoring(wire.announce(OURS), flags=0x40),
        wire.route_monitoring(wire.announce(OURS), address=NOBODY, kind=3),
    )
    assert [(e.kind, e.view) for e in events if e.routes] == [
        ("REACHABLE", "pre-policy"),
        ("REACHABLE", "post-policy"),
        ("REACHABLE", "loc-rib"),
    ]
    assert router.kinds(wire.peer_down()) == ["PEER_DOWN"]
    assert router.kinds(wire.route_monitoring(wire.withdraw(OURS), flags=0x40)) == []


def test_what_the_router_says_to_others_and_its_own_routes_are_not_followed() -> None:
    router = Router()
    outward = wire.route_monitoring(wire.announce(OURS), flags=0x10)
    own = wire.route_monitoring(wire.announce(OURS), address=NOBODY)
    assert router.kinds(outward, own, wire.peer_up(address=NOBODY)) == []
    assert router.session.heard.announced == 2


def test_frrs_habits_make_no_events() -> None:
    router = Router()
    assert router.kinds(wire.initiation(), wire.peer_down()) == [], "a peer that was not up yet"
    frr = wire.as_frr([OURS, "10.0.0.0/8"], "192.0.2.1", 65001)
    assert router.kinds(frr) == ["PEER_UP", "REACHABLE"]
    assert router.kinds(frr) == [], "all of it twice"


def test_of_an_internal_peer_the_path_stays_as_it_is() -> None:
    router = Router()
    up = wire.peer_up(wire.open_message(65001), wire.open_message(65001))
    events = router.sends(up, wire.route_monitoring(wire.announce(OURS, path=(65001, 65002))))
    assert events[1].routes[0].as_path == [65001, 65002]


def test_a_peer_that_comes_up_from_another_port_has_bounced_unseen() -> None:
    router = Router()
    router.sends(wire.peer_up(port=40000), wire.route_monitoring(wire.announce(OURS)))
    assert router.kinds(wire.peer_up(port=40001)) == ["PEER_DOWN", "PEER_UP"]


@pytest.mark.parametrize(
    ("sent", "received", "has_ids"),
    [
        (wire.add_path(1), wire.add_path(2), True),
        (wire.add_path(3), wire.add_path(3), True),
        (wire.add_path(1), wire.add_path(1), False),
        (wire.add_path(2), wire.add_path(2), False),
        (wire.add_path(1), b"", False),
        (wire.add_path(1, afi=2), wire.add_path(2, afi=1), False),
    ],
)
def test_path_identifiers_are_there_if_both_have_agreed(sent: bytes, received: bytes, has_ids: bool) -> None:
    router = Router()
    up = wire.peer_up(wire.open_message(65000, sent), wire.open_message(65001, received))
    there: wire.Prefix = (OURS, 77) if has_ids else OURS
    assert router.kinds(up, wire.route_monitoring(wire.announce(there))) == ["PEER_UP", "REACHABLE"]
    assert router.session.heard.unparsed == 0


def test_identifiers_that_were_agreed_on_and_left_out_are_noticed() -> None:
    """FRR before version 10 writes none into BMP, whatever was agreed."""
    router = Router()
    up = wire.peer_up(wire.open_message(65000, wire.add_path(3)), wire.open_message(65001, wire.add_path(3)))
    assert router.kinds(up, wire.route_monitoring(wire.announce(OURS))) == ["PEER_UP", "REACHABLE"]


def test_an_update_that_cannot_be_read_costs_only_itself() -> None:
    router = Router()
    broken = wire.message(2, b"\0\0\0\x63" + bytes(4))
    assert router.kinds(wire.peer_up(), wire.route_monitoring(broken), wire.route_monitoring(wire.announce(OURS))) == [
        "PEER_UP",
        "REACHABLE",
    ]
    assert (router.session.heard.unparsed, router.session.heard.resyncs) == (1, 0)


def test_treat_as_withdraw_withdraws() -> None:
    router = Router()
    router.sends(wire.peer_up(), wire.route_monitoring(wire.announce(OURS)))
    no_path = wire.message(2, wire.body(wire.nlri(OURS), wire.ORIGIN_IGP + wire.NEXT_HOP))
    assert router.kinds(wire.route_monitoring(no_path)) == ["WITHDRAWN"]


def test_peers_beyond_the_bound_are_counted_and_keep_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    router = Router(peers_max=3)
    for n in range(1, 200):
        router.sends(wire.route_monitoring(wire.announce(OURS), address=f"192.0.2.{n}", peer_as=n))
    assert len(router.session._peers) == 3
    assert len(router.session._tables) <= 24
    assert router.session.heard.ignored >= 196
    assert caplog.text.count("too many peers") == 1
    for n in range(500):
        router.sends(wire.route_monitoring(wire.announce(OURS), peer_as=n))
    assert len(router.session._tables) <= 24


def test_the_end_of_a_session_is_one_event() -> None:
    router = Router()
    router.sends(wire.initiation(), wire.peer_up(), wire.route_monitoring(wire.announce(OURS)))
    router.sends(wire.TERMINATION)
    assert router.session.over_because
    router.session.end(2000)
    [event] = router.table.tell(10)
    assert (event.kind, event.router, [r.region_id for r in event.regions]) == ("ROUTER_LOST", "edge-1", ["eu-west-1"])


@pytest.mark.parametrize("name", ["", "\0\x1b[31m", "ü" * 300])
def test_a_routers_name_is_fit_to_be_shown(name: str) -> None:
    router = Router()
    router.sends(wire.initiation(name))
    assert router.session.router.isprintable()
    assert 0 < len(router.session.router) <= 128


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(GOOD) | st.binary(max_size=60), max_size=12), st.randoms())
def test_no_bytes_raise_anything(pieces: list[bytes], random: Any) -> None:
    router = Router()
    for piece in pieces:
        changed = bytearray(piece)
        if changed and random.random() < 0.5:
            changed[random.randrange(len(changed))] = random.randrange(256)
        router.sends(bytes(changed))
    router.session.end(1)


_READERS: list[Callable[[bmp.Message], object]] = [bmp.update_body, bmp.add_path_families, bmp.own_as, bmp.system_name]


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=bmp.PER_PEER_BYTES + 61, max_size=400))
def test_contents_of_any_kind_are_read_without_an_exception(contents: bytes) -> None:
    for read in _READERS:
        read(bmp.Message(0, contents, 0, len(contents)))
    bmp.per_peer(contents[: bmp.PER_PEER_KEY_BYTES])
