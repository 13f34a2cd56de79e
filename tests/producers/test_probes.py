"""Each probe against real sockets: whose failure was it, and a refusal is never a latency."""

from __future__ import annotations

import asyncio
import math
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from infra.processes import free_ports
from producers.probes import Answer, Endpoint, Probe
from producers.probes.icmp import IcmpEcho
from producers.probes.tcp_connect import TcpConnect
from schemas.errors import ProbeError
from schemas.records import Outcome


def ask(make: Callable[[], Probe], *endpoints: Endpoint, timeout_s: float = 2.0) -> list[Answer]:
    """All answers of one probe to questions asked at once."""

    async def run() -> list[Answer]:
        probe = make()
        try:
            return list(await asyncio.gather(*(probe.ask(endpoint, timeout_s) for endpoint in endpoints)))
        finally:
            probe.close()

    return asyncio.run(run())


def icmp_is_allowed() -> bool:
    try:
        ask(IcmpEcho)
    except ProbeError:
        return False
    return True


@contextmanager
def listener(backlog: int = 100) -> Iterator[Endpoint]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        yield Endpoint("127.0.0.1", server.getsockname()[1])


@contextmanager
def deaf_listener() -> Iterator[Endpoint]:
    """A port whose queue of connections is full and never emptied: the kernel drops further SYNs, as a filter does."""
    with listener(backlog=0) as endpoint:
        waiting = []
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex((endpoint.address, endpoint.port))
            waiting.append(client)
        yield endpoint
        for client in waiting:
            client.close()


# Broadcast is refused to sockets that did not ask for it, before anything leaves this machine.
NOT_FROM_HERE = Endpoint("255.255.255.255", 80)

METHODS = [
    pytest.param(TcpConnect, id="tcp-connect"),
    pytest.param(IcmpEcho, id="icmp", marks=pytest.mark.skipif(not icmp_is_allowed(), reason="no ICMP socket here")),
]


@pytest.mark.parametrize("make", METHODS)
def test_who_is_there_answers_within_a_sensible_time(make: Callable[[], Probe]) -> None:
    with listener() as endpoint:
        for answer in ask(make, *[endpoint] * 50):
            assert answer.outcome == Outcome.ANSWERED
            assert 0 < answer.rtt_ms < 1000
            assert answer.code == 0


@pytest.mark.parametrize("make", METHODS)
def test_what_cannot_be_sent_is_our_own_failure(make: Callable[[], Probe]) -> None:
    for answer in ask(make, NOT_FROM_HERE, NOT_FROM_HERE):
        assert answer.outcome == Outcome.NOT_SENT
        assert math.isnan(answer.rtt_ms)


@pytest.mark.parametrize("make", METHODS)
def test_a_failure_to_send_to_one_is_not_the_next_ones(make: Callable[[], Probe]) -> None:
    with listener() as endpoint:
        outcomes = [a.outcome for a in ask(make, NOT_FROM_HERE, endpoint, NOT_FROM_HERE, endpoint)]
    assert outcomes == [Outcome.NOT_SENT, Outcome.ANSWERED] * 2


@pytest.mark.parametrize("make", METHODS)
def test_a_closed_probe_leaves_no_socket_behind(make: Callable[[], Probe]) -> None:
    with listener() as endpoint:
        ask(make, *[endpoint] * 10)  # pytest makes an error of a ResourceWarning


def test_a_refused_connection_is_refused_and_no_latency() -> None:
    (answer,) = ask(TcpConnect, Endpoint("127.0.0.1", free_ports(1)[0]))
    assert answer.outcome == Outcome.REFUSED
    assert math.isnan(answer.rtt_ms)


def test_a_filtered_port_times_out() -> None:
    with deaf_listener() as endpoint:
        (answer,) = ask(TcpConnect, endpoint, timeout_s=0.2)
    assert answer.outcome == Outcome.TIMED_OUT
    assert math.isnan(answer.rtt_ms)


def test_an_answer_to_a_second_syn_is_a_lost_probe() -> None:
    async def run(endpoint: Endpoint, server: socket.socket, fillers: list[socket.socket]) -> Answer:
        asked = asyncio.create_task(TcpConnect().ask(endpoint, 5.0))
        # The first SYN is dropped as it is sent. Then there is room, and the kernel's second one is answered.
        await asyncio.sleep(0)
        for _ in fillers:
            server.accept()[0].close()
        return await asked

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        endpoint = Endpoint(*server.getsockname())
        fillers = [socket.create_connection(server.getsockname())]
        answer = asyncio.run(run(endpoint, server, fillers))
        fillers[0].close()
    assert answer.outcome == Outcome.TIMED_OUT


def test_many_connections_do_not_use_up_the_source_ports() -> None:
    with listener(backlog=4096) as endpoint:
        port = f":{endpoint.port:04X}"
        for _ in range(10):
            ask(TcpConnect, *[endpoint] * 20)
        with open("/proc/net/tcp") as table:  # noqa: PTH123 - a file of the kernel
            states = [fields[3] for fields in map(str.split, table) if fields[2].endswith(port)]
    assert "06" not in states  # TIME_WAIT


# In a network namespace of its own: who sends into a tunnel that nobody reads is never answered, and beyond it is
# nothing.
_IN_A_NAMESPACE = """
import asyncio, subprocess
from producers.probes import Endpoint
from producers.probes.icmp import IcmpEcho
from producers.probes.tcp_connect import TcpConnect

for command in ("link set lo up", "tuntap add d0 mode tun", "address add 10.9.0.1/24 dev d0", "link set d0 up"):
    subprocess.run(["ip", *command.split()], check=True)

async def main():
    for probe in (TcpConnect(), IcmpEcho()):
        for address in ("10.9.0.2", "10.10.0.1", "10.9.0.1"):
            print((await probe.ask(Endpoint(address, 9), 0.2)).outcome.name)

asyncio.run(main())
"""


def test_silence_is_a_lost_probe_and_no_route_is_our_own_failure() -> None:
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", _IN_A_NAMESPACE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "unshare" in done.stderr or "RTNETLINK" in done.stderr:
        pytest.skip("no network namespace may be made here")
    if done.returncode and "tuntap" in done.stderr:
        pytest.skip("no tunnel may be made here")
    assert done.stdout.split() == [
        *("TIMED_OUT", "NOT_SENT", "REFUSED"),
        *("TIMED_OUT", "NOT_SENT", "ANSWERED"),
    ], done.stderr
