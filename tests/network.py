"""Two hosts on this machine: network namespaces joined by a veth pair, or by a link of the lab's relay that spoils it.

Both need root and `ip`; `NEEDS_ROOT` skips a test loudly where there is none. Everything that was made is removed.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from infra.lab.links import RelayClient
from infra.lab.namespaces import missing_right
from infra.lab.routers import missing_frr

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def _may_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


MAY_MAKE_NAMESPACES = _may_make_namespaces()
NEEDS_ROOT = pytest.mark.skipif(
    not MAY_MAKE_NAMESPACES, reason="NOT TESTED: needs root, ip and network namespaces: run as root on Linux"
)


def skip_without_lab() -> None:
    """Skip the test where no lab can be made, saying why."""
    missing = missing_right() or missing_frr()
    if missing is not None:
        pytest.skip(f"NOT TESTED: no lab here: {missing}")


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace, and its addresses on the link."""

    name: str
    address: str
    address6: str

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread opens meanwhile are the host's, and stay so."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        other = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            _enter(other)
            yield
        finally:
            _enter(own)
            os.close(own)
            os.close(other)

    def run(self, *argv: str) -> str:
        """What a program that runs there prints."""
        done = subprocess.run(["ip", "netns", "exec", self.name, *argv], capture_output=True, text=True, check=True)
        return done.stdout

    def popen(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Two hosts on one link; `device` is the link's name at the first."""

    here: Host
    there: Host
    device: str


@contextmanager
def pair() -> Iterator[Pair]:
    """Two hosts joined by a veth pair."""
    with hosts("10.77.0", "fd77:") as (here, there):
        macs = {here: "02:00:00:00:00:01", there: "02:00:00:00:00:02"}
        one, other = (f"name veth0 address {macs[host]} netns {host.name}" for host in (here, there))
        _ip(f"link add {one} type veth peer {other}")
        for host, far in ((here, there), (there, here)):
            _ip(f"-n {host.name} address add {host.address}/24 dev veth0")
            _ip(f"-n {host.name} address add {host.address6}/64 dev veth0 nodad")
            _ip(f"-n {host.name} link set veth0 up")
            # Known to each other at once: asking around takes IPv6 a second at first.
            _ip(f"-n {host.name} neigh add {far.address6} lladdr {macs[far]} dev veth0 nud permanent")
        yield Pair(here, there, "veth0")


@contextmanager
def relayed(
    *, rate_bps: float = 0, queue_ms: float = 200, loss: float = 0, bucket_bytes: float = 0, jitter_ms: float = 0
) -> Iterator[Pair]:
    """Two hosts joined by a link of the lab's relay; loss is of the way from here to there, all else of both."""
    with hosts("10.78.0", "fd78:") as (here, there), TemporaryDirectory() as folder:
        control, described = Path(folder, "relay.sock"), Path(folder, "links.json")
        ends = [
            {"namespace": h.name, "device": "tun0", "addresses": [f"{h.address}/24", f"{h.address6}/64"]}
            for h in (here, there)
        ]
        described.write_text(json.dumps([{"name": "link", "ends": ends}]))
        relay = subprocess.Popen(
            [sys.executable, "-m", "infra.lab.relay", str(control), str(described), "0"],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip
        try:
            assert relay.stdout is not None
            assert relay.stdout.readline() == "ready\n"
            with closing(RelayClient(control)) as client:
                both = {"queue_ms": queue_ms, "bucket_bytes": bucket_bytes, "jitter_ms": jitter_ms}
                client.change("link", rate_mbit=rate_bps / 1e6, **both)
                client.change("link", way=0, loss_ratio=loss)
            yield Pair(here, there, "tun0")
        finally:
            relay.kill()
            relay.wait()
            if relay.stdout is not None:
                relay.stdout.close()


@contextmanager
def hosts(net: str, net6: str) -> Iterator[tuple[Host, Host]]:
    tag = secrets.token_hex(4)
    hosts = (
        Host(f"proxima-{tag}-a", f"{net}.1", f"{net6}:1"),
        Host(f"proxima-{tag}-b", f"{net}.2", f"{net6}:2"),
    )
    made: list[Host] = []
    try:
        for host in hosts:
            _ip(f"netns add {host.name}")
            made.append(host)
            _ip(f"-n {host.name} link set lo up")
            # Nobody else can have our addresses, and asking around would keep them from use for a second.
            host.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
        yield hosts
    finally:
        for host in made:
            _ip(f"netns delete {host.name}")


# Takes connections, and lets go of them at once; prints its port.
_SERVER = """
import socket
with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        server.accept()[0].close()
"""


@contextmanager
def serving(host: Host) -> Iterator[int]:
    """A TCP port at the host that takes connections."""
    with host.popen(sys.executable, "-c", _SERVER) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def behind(hosts: Pair, count: int) -> list[str]:
    """So many addresses more that answer at the far host."""
    _ip(f"-n {hosts.there.name} route add local 10.79.0.0/16 dev lo")
    _ip(f"-n {hosts.here.name} route add 10.79.0.0/16 via {hosts.there.address}")
    return [f"10.79.{index // 250}.{index % 250 + 1}" for index in range(count)]


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def captured(host: Host, device: str) -> Iterator[dict[str, Any]]:
    """What passes on a host's device meanwhile; filled in at the end (tests/capture.py)."""
    seen: dict[str, Any] = {}
    with host.popen(sys.executable, "-m", "tests.capture", device) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield seen
        finally:
            process.stdin.close()
        seen |= json.loads(process.stdout.readline())
