"""Against a real router: two bgpd of FRR on loopback, one of them monitored by BMP. Needs no root, but FRR."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.processes import ChildProcess, free_ports
from schemas.records import Region
from tests.producers.routes.test_listener import Running

BGPD = shutil.which("bgpd", path="/usr/lib/frr:/usr/sbin") or ""
OURS, OURS6 = "203.0.113.0/24", "2001:db8:1::/48"
REGIONS = [Region("eu-west-1", 0, 0, prefixes=[OURS, OURS6])]
EDGE_AS, PEER_AS = 65000, 4_200_000_002

pytestmark = pytest.mark.skipif(
    not BGPD, reason="FRR is not installed: NOT TRIED against a real router (apt install frr)"
)

_COMMON = """
hostname {name}
router bgp {own_as}
 bgp router-id 10.255.0.{number}
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 1 3
 neighbor {peer} remote-as {peer_as}
 neighbor {peer} port {peer_port}
 neighbor {peer} update-source {address}
 neighbor {peer} ebgp-multihop 2
 neighbor {peer} disable-connected-check
 neighbor {peer} timers connect 1
 neighbor {peer} advertisement-interval 0
"""
_EDGE = """
 bmp targets proxima
  bmp stats interval 500
  bmp monitor ipv4 unicast pre-policy
  bmp monitor ipv6 unicast pre-policy
  bmp connect 127.0.0.1 port {bmp_port} min-retry 100 max-retry 500
 exit
 address-family ipv4 unicast
  neighbor {peer} soft-reconfiguration inbound
  neighbor {peer} route-map nothing out
 exit-address-family
 address-family ipv6 unicast
  neighbor {peer} activate
  neighbor {peer} soft-reconfiguration inbound
  neighbor {peer} route-map nothing out
 exit-address-family
exit
route-map nothing deny 10
exit
"""
# Next hops within 127.0.0.0/8 are refused.
_PEER = """
 address-family ipv4 unicast
  network 203.0.113.0/24
  network 198.51.100.0/24
  neighbor {peer} route-map out4 out
 exit-address-family
 address-family ipv6 unicast
  network 2001:db8:1::/48
  neighbor {peer} activate
  neighbor {peer} route-map out6 out
 exit-address-family
exit
route-map out4 permit 10
 set ip next-hop 192.0.2.2
exit
route-map out6 permit 10
 set ipv6 next-hop global 2001:db8:ff::2
exit
"""


class Lab:
    """Two routers: `edge` is monitored, `peer` announces our prefixes to it."""

    def __init__(self, folder: Path, bmp_port: int) -> None:
        self._folder = folder
        self._ports = dict(zip(("edge", "peer"), free_ports(2), strict=True))
        edge = {"name": "edge", "number": 1, "own_as": EDGE_AS, "address": "127.0.0.1", "peer": "127.0.0.2",
                "peer_as": PEER_AS, "peer_port": self._ports["peer"], "bmp_port": bmp_port}  # fmt: skip
        peer = {"name": "peer", "number": 2, "own_as": PEER_AS, "address": "127.0.0.2", "peer": "127.0.0.1",
                "peer_as": EDGE_AS, "peer_port": self._ports["edge"]}  # fmt: skip
        self._write("edge", (_COMMON + _EDGE).format(**edge))
        self._write("peer", (_COMMON + _PEER).format(**peer))
        self.running = {name: self.start(name) for name in ("peer", "edge")}

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).mkdir()
        (self._folder / name / "bgpd.conf").write_text(text)

    def start(self, name: str) -> ChildProcess:
        """bgpd alone: no zebra, no kernel, no user of its own."""
        folder = self._folder / name
        address = "127.0.0.1" if name == "edge" else "127.0.0.2"
        argv = [BGPD, "--skip_runas", "--no_zebra", "--no_kernel", "-f", str(folder / "bgpd.conf"), "-i",
                str(folder / "pid"), "--vty_socket", str(folder), "-P", "0", "-p", str(self._ports[name]), "-l",
                address, *(["-M", "bmp"] if name == "edge" else [])]  # fmt: skip
        return ChildProcess.start(argv, name=name, log_path=self._folder / f"{name}.log")

    def configure(self, name: str, *lines: str) -> None:
        commands = [part for line in ("configure terminal", *lines) for part in ("-c", line)]
        subprocess.run(["vtysh", "--vty_socket", self._folder / name, "-d", "bgpd", *commands], check=True, timeout=20,
                       capture_output=True)  # fmt: skip


@pytest.fixture
def monitor() -> Iterator[Running]:
    running = Running(REGIONS)
    yield running
    running.close()


def test_a_real_router_is_understood(monitor: Running, tmp_path: Path) -> None:
    lab = Lab(tmp_path, monitor.port)
    events = monitor.kept.events

    def reachable() -> set[str]:
        found: set[str] = set()
        for event in events:
            found = set() if event.kind == "PEER_DOWN" else found
            prefixes = {route.prefix for route in event.routes}
            found = found - prefixes if event.kind == "WITHDRAWN" else found | prefixes
        return found

    try:
        monitor.until(lambda: reachable() == {OURS, OURS6}, "both prefixes")
        assert events[0].kind == "PEER_UP"
        assert {(e.router, e.peer, e.peer_as, e.view) for e in events} == {("edge", "127.0.0.2", PEER_AS, "pre-policy")}
        assert {tuple(r.as_path) for e in events for r in e.routes} == {(PEER_AS,)}

        lab.configure("peer", "route-map out4 permit 10", "set as-path prepend 65009 65009")
        monitor.until(lambda: events[-1].kind == "PATH_CHANGED", "the longer path")
        [route] = events[-1].routes
        assert (route.prefix, route.as_path_length, route.previous_as_path_length) == (OURS, 3, 1)

        lab.configure("peer", f"router bgp {PEER_AS}", "address-family ipv4 unicast", f"no network {OURS}")
        monitor.until(lambda: events[-1].kind == "WITHDRAWN", "the withdrawal")
        assert [r.prefix for r in events[-1].routes] == [OURS]
        assert reachable() == {OURS6}

        lab.running["peer"].kill()
        monitor.until(lambda: events[-1].kind == "PEER_DOWN", "the peer that was killed")
        assert [(r.region_id, r.peers_left) for r in events[-1].regions] == [("eu-west-1", 0)]

        lab.running["peer"] = lab.start("peer")
        monitor.until(lambda: reachable() == {OURS, OURS6}, "both prefixes again")

        lab.running["edge"].kill()
        monitor.until(lambda: events[-1].kind == "ROUTER_LOST", "the router that was killed")
    finally:
        for child in lab.running.values():
            child.kill()
