"""Probes between two hosts, over links whose truth is known: a capture on the wire, a relay that drops and delays.

Medians and counts with wide bounds: this machine may be busy. `make measure` prints the figures themselves.
"""

from __future__ import annotations

import asyncio
import math
import subprocess
from collections.abc import Callable

import numpy as np
import pytest

from producers.probes import Answer, Endpoint, Probe
from producers.probes.bandwidth import Bandwidth
from producers.probes.icmp import IcmpEcho
from producers.probes.tcp_connect import TcpConnect
from producers.probes.tcp_syn import TcpSyn
from schemas.records import Outcome
from tests.bench.probe_bandwidth import errors, measured, with_cross_traffic
from tests.bench.probing import sampled
from tests.network import NEEDS_ROOT, Host, captured, pair, relayed, serving

pytestmark = [NEEDS_ROOT, pytest.mark.timed]
Make = Callable[[float], Probe]
EVERY: list[Make] = [IcmpEcho, TcpSyn, TcpConnect, Bandwidth]


def ask(host: Host, make: Make, endpoint: Endpoint, times: int = 1, timeout_s: float = 0.5) -> list[Answer]:
    async def run() -> list[Answer]:
        probe = make(timeout_s)
        loop, answers = asyncio.get_running_loop(), []
        try:
            for _ in range(times):
                answer: asyncio.Future[Answer] = loop.create_future()
                probe.ask(endpoint, answer.set_result)
                answers.append(await answer)
        finally:
            probe.close()
        return answers

    with host.entered():
        return asyncio.run(run())


@pytest.mark.parametrize("method", ["icmp", "tcp-syn", "tcp-connect"])
def test_half_of_all_round_trips_are_within_ten_microseconds_of_the_wires(method: str) -> None:
    with pair() as hosts, serving(hosts.there) as port, captured(hosts.here, hosts.device) as seen:
        found = sampled(hosts.here, [hosts.there.address], 500, 2, method=method, port=port)
    assert found.count(Outcome.TIMED_OUT) == found.count(Outcome.NOT_SENT) == 0
    on_the_wire_us = np.array([math.nan if rtt is None else rtt for rtt in seen["rtts_us"]])
    assert len(on_the_wire_us) == len(found.rtt_us)
    assert abs(np.nanmedian(found.rtt_us - on_the_wire_us)) <= 10


def test_a_link_that_loses_a_twentieth_is_measured_so() -> None:
    with relayed(loss=0.05) as hosts:
        found = sampled(hosts.here, [hosts.there.address], 1000, 2)
    judged = found.count(Outcome.ANSWERED) + found.count(Outcome.TIMED_OUT)
    assert judged >= 500
    deviation = math.sqrt(judged * 0.05 * 0.95)
    assert abs(found.count(Outcome.TIMED_OUT) - judged * 0.05) <= 4 * deviation


@pytest.mark.parametrize("make", [IcmpEcho, TcpSyn, TcpConnect])
def test_both_versions_of_ip_answer_over_a_link(make: Make) -> None:
    with pair() as hosts, serving(hosts.there) as port:
        for address in (hosts.there.address, hosts.there.address6):
            answers = ask(hosts.here, make, Endpoint(address, port), times=20)
            assert {a.outcome for a in answers} == {Outcome.ANSWERED}


def test_syns_leave_nothing_half_open_at_the_server() -> None:
    with pair() as hosts, serving(hosts.there) as port:
        found = sampled(hosts.here, [hosts.there.address], 1000, 1, method="tcp-syn", port=port)
        assert found.count(Outcome.ANSWERED) > 0
        assert found.count(Outcome.TIMED_OUT) == 0
        left = hosts.there.run("ss", "-Htan", f"sport = :{port}").splitlines()
    assert [line for line in left if "LISTEN" not in line] == []


@pytest.mark.parametrize("make", EVERY)
def test_what_a_router_says_is_told_with_its_code_and_what_it_swallows_is_lost(make: Make) -> None:
    with pair() as hosts:
        name, there, there6 = hosts.there.name, hosts.there.address, hosts.there.address6
        for command in (
            f"netns exec {name} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            f"-n {name} route add prohibit 10.79.1.0/24",
            f"-n {name} route add blackhole 10.79.2.0/24",
            f"-n {name} route add prohibit fd79:1::/64",
            f"-n {hosts.here.name} route add 10.79.0.0/16 via {there}",
            f"-n {hosts.here.name} route add fd79::/16 via {there6}",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        (prohibited,) = ask(hosts.here, make, Endpoint("10.79.1.1", 80))
        (prohibited6,) = ask(hosts.here, make, Endpoint("fd79:1::1", 80))
        (swallowed,) = ask(hosts.here, make, Endpoint("10.79.2.1", 80), timeout_s=0.2)
    assert swallowed.outcome == Outcome.TIMED_OUT
    assert prohibited.outcome == Outcome.UNREACHABLE
    if make is not TcpConnect:  # the kernel tells connect() a kind of code only
        assert (prohibited.code, prohibited6.outcome, prohibited6.code) == (13, Outcome.UNREACHABLE, 1)
    assert math.isnan(prohibited.rtt_ms)


@pytest.mark.parametrize("rate_bps", [5e6, 10e6, 50e6])
@pytest.mark.parametrize("cross_ratio", [0, 0.3])
def test_the_rate_of_a_link_is_measured_within_a_twentieth(rate_bps: float, cross_ratio: float) -> None:
    with relayed(rate_bps=rate_bps) as hosts, with_cross_traffic(hosts, cross_ratio * rate_bps):
        found = errors(asyncio.run(measured(hosts, 5)), rate_bps)
    assert found["answered"] == 5
    assert found["bytes_max"] <= 150_000
    assert abs(found["error_p50"]) <= 0.05


def test_a_bucket_of_tokens_is_seen_through() -> None:
    with relayed(rate_bps=10e6, bucket_bytes=60_000) as hosts:
        found = errors(asyncio.run(measured(hosts, 5)), 10e6)
    assert abs(found["error_p50"]) <= 0.05
    assert found["within_own_uncertainty"] >= 4
