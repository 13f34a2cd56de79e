"""Routers' sessions on a socket: several at once, whole tables in seconds, and hostile ones beside good ones."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import psutil
import pytest

from infra.processes import free_ports, wait_until
from producers.publisher import Publisher
from producers.routes.following import following
from producers.routes.monitor import ALIVE_EVERY_S, IN_FLIGHT_MAX, RouteMonitor
from schemas.config import Routes
from schemas.errors import RouteError
from schemas.records import Region, RouteEvent
from schemas.validate import mistakes
from streams.core.routes import SILENT_MS
from tests.pipeline import seed_from_environment
from tests.producers.routes import wire
from tests.producers.routes.test_fuzz import bmp_stream, noise

OURS = "203.0.113.0/24"
REGIONS = [Region("eu-west-1", 0, 0, prefixes=[OURS])]
DEADLINE_S = 20


class Kept(Publisher):
    """A publisher that keeps what it is given: what is looked at here is what a monitor says, not how it travels."""

    def __init__(self) -> None:
        super().__init__(f"127.0.0.1:{free_ports(1)[0]}", client_id="test")
        self.events: list[RouteEvent] = []
        self.alive: list[RouteEvent] = []
        self.is_away = False

    def publish(self, topic: str, key: str, record: Any, *, droppable: bool | None = None) -> None:
        assert (topic, key, droppable) == ("bgp-events", "eu-west-1/routes", None)
        assert len(self.events) > 500 or mistakes(record) == []  # a sample of tens of thousands
        assert not self.is_away, "a publisher without room would hold the routers' sessions up"
        if record.kind == "ALIVE":
            assert self.alive or not self.events, "the first goes before everything else"
            self.alive.append(record)
        else:
            self.events.append(record)

    @property
    def stats(self) -> Any:
        found = super().stats
        return type(found)(in_flight=IN_FLIGHT_MAX) if self.is_away else found

    def kinds(self, router: str = "") -> list[str]:
        return [e.kind for e in self.events if router in ("", e.router)]


class Running:
    """A monitor in a thread, on a port of its own."""

    def __init__(self, regions: list[Region], **settings: Any) -> None:
        self.kept = Kept()
        given = {"agent_id": "eu-west-1/routes", "primary_region": "eu-west-1", "port": 0, "settle_ms": 20}
        self._settings = Routes.model_validate({**given, **settings})
        self._regions = regions
        self._opened = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self.port = 0
        self._thread.start()
        assert self._opened.wait(DEADLINE_S)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = self._loop.create_future()
        self._monitor = RouteMonitor(self._settings, self.kept, following(self._regions))
        await self._monitor.run(self._stop, self._open)

    def _open(self, port: int) -> None:
        self.port = port
        self._opened.set()

    def follow(self, regions: list[Region]) -> None:
        self._loop.call_soon_threadsafe(self._monitor.follow, regions)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        wait_until(is_so, DEADLINE_S, what)

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set_result, None)
        self._thread.join(DEADLINE_S)
        self.kept.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(regions: list[Region] = REGIONS, **settings: Any) -> Running:
        running.append(Running(regions, **settings))
        return running[-1]

    yield begin
    for monitor in running:
        monitor.close()


def table_of(address: str, peer_as: int, updates: list[bytes]) -> bytes:
    """A whole table as FRR sends it when a peer has come up; its headers are the same for all routes."""
    head = wire.route_monitoring(updates[0], address=address, peer_as=peer_as)[: -len(updates[0])]
    assert {len(u) for u in updates} == {len(updates[0])}
    end = wire.route_monitoring(wire.END_OF_RIB, address=address, peer_as=peer_as)
    up = wire.as_frr([], address, peer_as)[: -len(end)]
    return up + b"".join([head + update for update in updates]) + end


def test_several_routers_are_heard_at_once_each_under_its_name(start: Callable[..., Running]) -> None:
    monitor = start()
    with monitor.connect() as first, monitor.connect() as second:
        for name, sock in (("edge-1", first), ("edge-2", second)):
            sock.sendall(wire.initiation(name) + wire.as_frr([OURS], "192.0.2.1", 65001))
        monitor.until(lambda: len(monitor.kept.events) == 4, "what both say")
        assert {e.router for e in monitor.kept.events} == {"edge-1", "edge-2"}
        first.sendall(wire.peer_down())
        monitor.until(lambda: monitor.kept.kinds("edge-1")[-1] == "PEER_DOWN", "the peer that went down")
        assert monitor.kept.events[-1].regions[0].peers_left == 1
    monitor.until(lambda: monitor.kept.kinds().count("ROUTER_LOST") == 2, "both being lost")


def test_a_monitor_that_ends_says_nothing_of_its_peers(start: Callable[..., Running]) -> None:
    monitor = start()
    with monitor.connect() as router:
        router.sendall(wire.as_frr([OURS], "192.0.2.1", 65001))
        monitor.until(lambda: len(monitor.kept.events) == 2, "the route")
        monitor.close()
        assert monitor.kept.kinds() == ["PEER_UP", "REACHABLE"]


def test_other_prefixes_are_asked_for_by_new_sessions(start: Callable[..., Running]) -> None:
    monitor = start()
    with monitor.connect() as router:
        router.sendall(wire.initiation() + wire.as_frr(["10.0.0.0/8"], "192.0.2.1", 65001))
        monitor.until(lambda: monitor.kept.kinds() == ["PEER_UP"], "the peer")
        monitor.follow(REGIONS)  # no others: nothing happens
        monitor.follow([Region("us-east-1", 0, 0, prefixes=["10.0.0.0/8"])])
        assert router.recv(1) == b"", "closed"
    with monitor.connect() as router:
        router.sendall(wire.initiation() + wire.as_frr(["10.0.0.0/8"], "192.0.2.1", 65001))
        monitor.until(lambda: len(monitor.kept.events) == 4, "the same again")
    assert monitor.kept.kinds() == ["PEER_UP", "ROUTER_LOST", "PEER_UP", "REACHABLE"]


def test_while_kafka_is_away_nothing_piles_up_and_then_it_is_told_how_things_stand(
    start: Callable[..., Running],
) -> None:
    monitor = start()
    with monitor.connect() as router:
        router.sendall(wire.as_frr([OURS], "192.0.2.1", 65001))
        monitor.until(lambda: len(monitor.kept.events) == 2, "the route")
        monitor.kept.is_away = True
        for _ in range(2000):
            router.sendall(wire.route_monitoring(wire.withdraw(OURS)) + wire.route_monitoring(wire.announce(OURS)))
        router.sendall(wire.route_monitoring(wire.withdraw(OURS)) + wire.initiation("marker"))
        router.shutdown(socket.SHUT_WR)
        monitor.until(lambda: not router.recv(1), "all of it being read")
        assert len(monitor.kept.events) == 2
        monitor.kept.is_away = False
        monitor.until(lambda: len(monitor.kept.events) > 2, "what happened meanwhile")
        assert monitor.kept.kinds()[2:] == ["ROUTER_LOST"]


def test_too_many_routers_and_those_from_elsewhere_are_refused(start: Callable[..., Running]) -> None:
    monitor = start(routers_max=2, allow=["127.0.0.0/8"])
    with monitor.connect() as first, monitor.connect() as second, monitor.connect() as third:
        assert third.recv(1) == b"" if _is_closed_kindly(third) else True
        for router, peer in ((first, 1), (second, 2)):
            router.sendall(wire.peer_up(address=f"192.0.2.{peer}"))
        monitor.until(lambda: monitor.kept.kinds() == ["PEER_UP"] * 2, "the two that came first")
    elsewhere = start(allow=["192.0.2.0/24", "2001:db8::/32"])
    with elsewhere.connect() as router:
        assert router.recv(1) == b"" if _is_closed_kindly(router) else True


def _is_closed_kindly(sock: socket.socket) -> bool:
    """Whether the other end closed it; False: it did so by a reset, which recv would raise."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except ConnectionResetError:
        return False


def test_a_monitor_says_that_it_is_alive_from_the_beginning_on_and_not_into_a_full_queue(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SILENT_MS == 3 * 1000 * ALIVE_EVERY_S, "what two folders say that do not know each other"
    monkeypatch.setattr("producers.routes.monitor.ALIVE_EVERY_S", 0.05)
    monitor = start()
    monitor.until(lambda: len(monitor.kept.alive) >= 3, "signs of life")
    monitor.kept.is_away = True  # `publish` would fail
    said = len(monitor.kept.alive)
    monitor.kept.is_away = False
    monitor.until(lambda: len(monitor.kept.alive) > said, "signs of life again")
    over_ms = [event.over_ms for event in monitor.kept.alive]
    assert over_ms[0] == 0
    assert over_ms == sorted(set(over_ms))


def test_an_address_that_is_taken_is_an_error_that_says_what_to_do() -> None:
    async def main(port: int) -> None:
        kept = Kept()
        settings = Routes(agent_id="a", primary_region="b", port=port)
        try:
            await RouteMonitor(settings, kept).run(asyncio.get_running_loop().create_future())
        finally:
            kept.close()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RouteError, match=rf"cannot listen for routers: .*\(127.0.0.1:{port}\): give another"):
            asyncio.run(main(port))


def test_nobody_listens_beyond_loopback_unless_told() -> None:
    assert Routes(agent_id="a", primary_region="b").listen == "127.0.0.1"


def walked_s(tables: Sequence[bytes]) -> float:
    """CPU time to do no more with these messages than to find each (RFC 7854, 4.1) and count its bytes."""
    began_s, sizes = time.process_time(), Counter[int]()
    for table in tables:
        at = 0
        while at < len(table):
            size = int.from_bytes(table[at + 1 : at + 5])
            sizes[size] += sum(table[at : at + size]) >= 0
            at += size
    return time.process_time() - began_s


@pytest.mark.timed
@pytest.mark.parametrize(
    ("followed", "times"),
    [
        pytest.param(10, 20, id="ten prefixes are followed"),
        pytest.param(3000, 40, id="all of them are followed", marks=pytest.mark.soak),
    ],
)
def test_a_bounce_of_100_peers_with_3000_routes_each_costs_little_more_than_to_look_at_it(
    start: Callable[..., Running], followed: int, times: int
) -> None:
    """In some 4 s, and some 10 when all are followed; judged is the CPU time beside that of a bare walk (8 and 11)."""
    peers = 100
    prefixes = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(3000)]
    regions = [Region(f"region-{n}", 0, 0, prefixes=prefixes[n:followed:10]) for n in range(10)]
    monitor = start(regions, settle_ms=100)
    updates = [wire.announce(prefix, path=(65000, 65001, 64999)) for prefix in prefixes]
    who = [(f"192.0.2.{n + 1}", 65001 + n) for n in range(peers)]
    tables = [table_of(address, number, updates) for address, number in who]
    downs = b"".join(wire.peer_down(address=address, peer_as=number) for address, number in who)
    events, most = monitor.kept.events, followed * peers // 100 + 2 * peers
    with monitor.connect() as router:
        router.sendall(wire.initiation())
        for table in tables:
            router.sendall(table)
        monitor.until(lambda: sum(len(e.routes) for e in events) == peers * followed, "the first tables")
        events.clear()
        started_s, started_cpu_s = time.monotonic(), time.process_time()
        router.sendall(downs)
        for table in tables:
            router.sendall(table)
        monitor.until(lambda: sum(len(e.routes) for e in events) == peers * followed, "the bounce")
        took_s, cpu_s = time.monotonic() - started_s, time.process_time() - started_cpu_s
    sizes = f"{peers} peers x {len(prefixes)} routes, {sum(map(len, tables)) / 1e6:.0f} MB"
    kinds = Counter(e.kind for e in events)
    bare_s = walked_s(tables)
    figures = f"{took_s:.2f} s, CPU {cpu_s:.2f} s, {cpu_s / bare_s:.1f} times a bare walk ({bare_s:.2f} s)"
    sys.stderr.write(f"\nbounce of {sizes}, {followed} followed: {figures}, {dict(kinds)}\n")
    assert cpu_s < times * bare_s
    # A table that arrives over several moments is told in so many parts; ten followed prefixes are in one or two.
    assert kinds["PEER_DOWN"] == kinds["PEER_UP"] == peers
    assert kinds["REACHABLE"] <= 2 * most
    assert set(kinds) <= {"PEER_DOWN", "PEER_UP", "REACHABLE"}


def test_hostile_sessions_take_no_memory_and_good_ones_go_on_beside_them(start: Callable[..., Running]) -> None:
    chance = random.Random(seed_from_environment("hostile sessions"))
    monitor = start()
    process = psutil.Process(os.getpid())
    size, sent, settled = 1_000_000, 0, 0
    pieces = noise(chance, bmp_stream)
    with closing(monitor.connect()) as good:
        good.sendall(wire.initiation("good") + wire.as_frr([OURS], "192.0.2.1", 65001))
        while sent < size:
            with closing(monitor.connect()) as hostile:
                for piece in (next(pieces) for _ in range(40)):
                    try:
                        hostile.sendall(piece)
                    except (BrokenPipeError, ConnectionResetError):
                        break  # a Termination was among it
                    sent += len(piece)
            if not settled and sent > size // 4:
                settled = process.memory_info().rss
        monitor.kept.events[:] = [e for e in monitor.kept.events if e.router == "good"]
        for path in ((65001, 65009), (65001,)):
            before = len(monitor.kept.kinds("good"))
            good.sendall(wire.route_monitoring(wire.announce(OURS, path=path)))
            monitor.until(lambda n=before: len(monitor.kept.kinds("good")) == n + 1, "the good one's change")  # type: ignore[misc]
        assert monitor.kept.kinds("good") == ["PEER_UP", "REACHABLE", "PATH_CHANGED", "PATH_CHANGED"]
    assert process.memory_info().rss - settled < 30 << 20
