"""Each probe against real sockets: whose failure was it, and a refusal is never a latency."""

from __future__ import annotations

import asyncio
import math
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.processes import free_ports
from producers.probes import Answer, Endpoint, Probe, stamped
from producers.probes.bandwidth import Bandwidth
from producers.probes.icmp import IcmpEcho
from producers.probes.tcp_connect import TcpConnect
from producers.probes.tcp_syn import TcpSyn
from producers.responder import Responder
from schemas.config import Respond
from schemas.errors import ProbeError
from schemas.records import Outcome

Make = Callable[[float], Probe]


def ask(make: Make, *endpoints: Endpoint, timeout_s: float = 2.0) -> list[Answer]:
    """All answers of one probe to questions asked at once."""

    async def run() -> list[Answer]:
        probe = make(timeout_s)
        try:
            return await asyncio.wait_for(asyncio.gather(*(asked(probe, e) for e in endpoints)), 60)
        finally:
            probe.close()

    return asyncio.run(run())


def asked(probe: Probe, endpoint: Endpoint) -> asyncio.Future[Answer]:
    """A probe's answer, to be awaited; a second one would be an error."""
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    probe.ask(endpoint, answer.set_result)
    return answer


def is_allowed(make: Make) -> bool:
    try:
        ask(make)
    except ProbeError:
        return False
    return True


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probed:
            probed.bind(("::1", 0))
    except OSError:
        return False
    return True


def bandwidth(timeout_s: float) -> Probe:
    return Bandwidth(timeout_s, bytes_per_hour_max=1 << 40)


@contextmanager
def listener(address: str = "127.0.0.1", backlog: int = 4096) -> Iterator[Endpoint]:
    family = Endpoint(address, 0).family
    with socket.create_server((address, 0), family=family, backlog=backlog) as server:
        yield Endpoint(address, server.getsockname()[1])


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


# A process that answers bandwidth trains, on a port that it prints: in this one it would share the probe's loop.
_RESPONDER = """
import asyncio
from producers.responder import Responder
from schemas.config import Respond

async def main():
    print(Responder(Respond(bind="::", port=0, bytes_per_hour_max=1 << 40)).port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def responder() -> Iterator[int]:
    argv = [sys.executable, "-c", _RESPONDER]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


# Broadcast is refused to sockets that did not ask for it, before anything leaves this machine.
NOT_FROM_HERE = Endpoint("255.255.255.255", 80)

METHODS = [
    pytest.param(TcpConnect, id="tcp-connect"),
    pytest.param(IcmpEcho, id="icmp", marks=pytest.mark.skipif(not is_allowed(IcmpEcho), reason="no ICMP socket here")),
    pytest.param(TcpSyn, id="tcp-syn", marks=pytest.mark.skipif(not is_allowed(TcpSyn), reason="no raw socket here")),
    pytest.param(bandwidth, id="bandwidth"),
]
PORTED = [param for param in METHODS if param.id != "icmp"]
ADDRESSES = [
    "127.0.0.1",
    pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
]


@contextmanager
def whom(make: Make, address: str, responder: int) -> Iterator[Endpoint]:
    """Somebody who answers this kind of probe."""
    if make is bandwidth:
        yield Endpoint(address, responder)
    else:
        with listener(address) as endpoint:
            yield endpoint


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("make", METHODS)
def test_who_is_there_answers_within_a_sensible_time(make: Make, address: str, responder: int) -> None:
    with whom(make, address, responder) as endpoint:
        for answer in ask(make, *[endpoint] * 50):
            assert answer.outcome == Outcome.ANSWERED
            assert 0 < answer.rtt_ms < 1000
            assert answer.code == 0


@pytest.mark.parametrize("make", METHODS)
def test_what_cannot_be_sent_is_our_own_failure(make: Make) -> None:
    for answer in ask(make, NOT_FROM_HERE, NOT_FROM_HERE):
        assert answer.outcome == Outcome.NOT_SENT
        assert math.isnan(answer.rtt_ms)


@pytest.mark.parametrize("make", METHODS)
def test_a_failure_to_send_to_one_is_not_the_next_ones(make: Make, responder: int) -> None:
    with whom(make, "127.0.0.1", responder) as endpoint:
        outcomes = [a.outcome for a in ask(make, NOT_FROM_HERE, endpoint, NOT_FROM_HERE, endpoint)]
    assert outcomes == [Outcome.NOT_SENT, Outcome.ANSWERED] * 2


@pytest.mark.parametrize("make", METHODS)
def test_a_closed_probe_leaves_no_socket_behind(make: Make) -> None:
    with deaf_listener() as endpoint:

        async def run() -> None:
            probe = make(60.0)
            for _ in range(10):
                probe.ask(endpoint, lambda _: None)
            probe.close()  # pytest makes an error of a ResourceWarning

        asyncio.run(run())


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("make", PORTED)
def test_who_refuses_has_refused_and_is_no_latency(make: Make, address: str) -> None:
    for answer in ask(make, *[Endpoint(address, free_ports(1)[0])] * 10):
        assert answer.outcome == Outcome.REFUSED
        assert math.isnan(answer.rtt_ms)


@pytest.mark.parametrize("make", PORTED)
def test_who_says_nothing_times_out(make: Make) -> None:
    with deaf_listener() as endpoint, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((endpoint.address, endpoint.port))
        (answer,) = ask(make, endpoint, timeout_s=0.2)
    assert answer.outcome == Outcome.TIMED_OUT
    assert math.isnan(answer.rtt_ms)


def test_an_answer_to_a_second_syn_is_a_lost_probe() -> None:
    async def run(endpoint: Endpoint, server: socket.socket, fillers: list[socket.socket]) -> Answer:
        probe = TcpConnect(5.0)
        # The first SYN is dropped as it is sent. Then there is room, and the kernel's second one is answered.
        answer = asked(probe, endpoint)
        for _ in fillers:
            server.accept()[0].close()
        try:
            return await answer
        finally:
            probe.close()

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        endpoint = Endpoint(*server.getsockname())
        fillers = [socket.create_connection(server.getsockname())]
        answer = asyncio.run(run(endpoint, server, fillers))
        fillers[0].close()
    assert answer.outcome == Outcome.TIMED_OUT


@pytest.mark.parametrize("make", [param for param in PORTED if param.id != "bandwidth"])
def test_many_connections_leave_nothing_half_open_and_no_port_used_up(make: Make) -> None:
    with listener() as endpoint:
        port = f":{endpoint.port:04X}"
        for _ in range(10):
            ask(make, *[endpoint] * 20)
        with open("/proc/net/tcp") as table:  # noqa: PTH123 - a file of the kernel
            rows = [row.split() for row in table]
    of_ours = [row[3] for row in rows if row[1].endswith(port) or row[2].endswith(port)]
    assert "06" not in of_ours  # TIME_WAIT
    assert "03" not in of_ours  # SYN_RECV


def test_a_silent_target_does_not_hold_up_the_others_of_a_busy_probe() -> None:
    with deaf_listener() as silent, listener() as endpoint:
        for make in (TcpConnect, TcpSyn):
            if is_allowed(make):
                outcomes = [a.outcome for a in ask(make, silent, endpoint, timeout_s=0.3)]
                assert outcomes == [Outcome.TIMED_OUT, Outcome.ANSWERED]


@pytest.mark.parametrize("make", [param for param in METHODS if param.id in ("icmp", "tcp-syn")])
def test_what_we_were_too_slow_to_read_is_suspect_and_no_loss(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamped, "_RECEIVE_BUFFER_BYTES", 1)  # the kernel's least: a packet or two
    with listener() as endpoint:

        async def run() -> list[Answer]:
            probe = make(0.3)
            waiting = [asked(probe, endpoint) for _ in range(50)]  # all answers come before anybody reads
            await waiting[0]
            waiting.append(asked(probe, endpoint))  # its answer says what happened to the others
            answers = await asyncio.gather(*waiting)
            probe.close()
            return answers

        outcomes = [answer.outcome for answer in asyncio.run(run())]
    assert outcomes[0] == outcomes[-1] == Outcome.ANSWERED
    assert outcomes.count(Outcome.SUSPECT) >= 40
    assert Outcome.TIMED_OUT not in outcomes


def test_a_spent_budget_sends_nothing_and_is_no_loss() -> None:
    async def run() -> list[Answer]:
        responder = Responder(Respond(bind="127.0.0.1", port=0))
        probe = Bandwidth(2.0, bytes_max=150_000, bytes_per_hour_max=300_000)
        try:
            return [await asked(probe, Endpoint("127.0.0.1", responder.port)) for _ in range(4)]
        finally:
            probe.close()
            responder.close()

    answers = asyncio.run(run())
    assert [a.outcome for a in answers] == [Outcome.ANSWERED] * 2 + [Outcome.NOT_SENT] * 2
    assert [a.bytes_sent > 0 for a in answers] == [True, True, False, False]
    assert sum(a.bytes_sent for a in answers) <= 300_000


def test_a_responder_whose_own_budget_is_spent_refuses() -> None:
    async def run() -> list[Answer]:
        responder = Responder(Respond(bind="127.0.0.1", port=0, bytes_per_hour_max=40_000))
        probe = bandwidth(1.0)
        try:
            return [await asked(probe, Endpoint("127.0.0.1", responder.port)) for _ in range(2)]
        finally:
            probe.close()
            responder.close()

    assert asyncio.run(run())[1].outcome == Outcome.REFUSED


# In a network namespace of its own: who sends into a tunnel that nobody reads is never answered, and beyond it is
# nothing.
_IN_A_NAMESPACE = """
import asyncio, subprocess
from producers.probes import Endpoint
from producers.probes.icmp import IcmpEcho
from producers.probes.tcp_connect import TcpConnect
from producers.probes.tcp_syn import TcpSyn

for command in ("link set lo up", "tuntap add d0 mode tun", "address add 10.9.0.1/24 dev d0", "link set d0 up"):
    subprocess.run(["ip", *command.split()], check=True)

async def main():
    for probe in (TcpConnect(0.2), IcmpEcho(0.2), TcpSyn(0.2)):
        for address in ("10.9.0.2", "10.10.0.1", "10.9.0.1"):
            answer = asyncio.get_running_loop().create_future()
            probe.ask(Endpoint(address, 9), answer.set_result)
            print((await answer).outcome.name)

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
        *("TIMED_OUT", "NOT_SENT", "REFUSED"),
    ], done.stderr
