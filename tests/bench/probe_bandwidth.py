"""Bandwidth by trains through a relay of known rate, with and without cross-traffic, beside a second of iperf3."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from producers.probes import Answer, Endpoint
from producers.probes.bandwidth import Bandwidth
from producers.responder import Responder
from schemas.config import Respond
from schemas.records import Outcome
from tests.bench.probing import LONG, load, skipped
from tests.network import Pair, relayed

MEASUREMENTS = 20 if LONG else 8
CROSS_RATIO = 0.3
_CROSS_BYTES = 1228
# Poisson arrivals, as long as it lives.
_CROSS = """
import random, socket, sys, time
target, rate_bps, packet_bytes = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
    due_s = time.monotonic()
    while True:
        due_s += random.expovariate(rate_bps / (8 * packet_bytes))
        time.sleep(max(0, due_s - time.monotonic()))
        try:
            opened.sendto(bytes(packet_bytes - 28), (target, 9))
        except OSError:
            pass
"""


def run() -> Iterator[dict[str, Any]]:
    """One line a rate and kind of link."""
    missing = skipped()
    if missing:
        yield missing
        return
    for rate_bps in (5e6, 10e6, 50e6):
        for cross in (0.0, CROSS_RATIO):
            for queue_ms in (200, 30):
                with relayed(rate_bps=rate_bps, queue_ms=queue_ms) as hosts:
                    with with_cross_traffic(hosts, cross * rate_bps):
                        answers = asyncio.run(measured(hosts, MEASUREMENTS))
                    iperf3 = _iperf3(hosts, rate_bps) if not cross and queue_ms == 200 else None
                yield {
                    "rate_mbit": rate_bps / 1e6,
                    "cross_ratio": cross,
                    "queue_ms": queue_ms,
                    **errors(answers, rate_bps),
                    **({"iperf3": iperf3} if iperf3 else {}),
                    "load": load(),
                }


def errors(answers: list[Answer], rate_bps: float) -> dict[str, Any]:
    """How far measurements were off, as shares of the rate, and the most bytes that one sent."""
    found = [a for a in answers if a.outcome == Outcome.ANSWERED]
    off = np.array([a.bandwidth_bps / rate_bps - 1 for a in found])
    return {
        "answered": len(found),
        "error_p50": round(float(np.median(off)), 4),
        "error_worst": round(float(off[np.argmax(np.abs(off))]), 4),
        "within_5_percent": int((np.abs(off) <= 0.05).sum()),
        "within_own_uncertainty": sum(
            bool(abs(o) <= max(a.uncertainty_ratio, 0.001)) for o, a in zip(off, found, strict=True)
        ),
        "bytes_max": max(a.bytes_sent for a in answers),
    }


async def measured(hosts: Pair, count: int) -> list[Answer]:
    with hosts.there.entered():
        responder = Responder(Respond(bind="0.0.0.0", port=0, bytes_per_hour_max=1 << 40))  # noqa: S104
    with hosts.here.entered():
        probe = Bandwidth(1.0, bytes_per_hour_max=1 << 40)
    loop, answers = asyncio.get_running_loop(), []
    try:
        for _ in range(count):
            answer: asyncio.Future[Answer] = loop.create_future()
            probe.ask(Endpoint(hosts.there.address, responder.port), answer.set_result)
            answers.append(await answer)
            await asyncio.sleep(0.2)  # the queue empties
    finally:
        probe.close()
        responder.close()
    return answers


@contextmanager
def with_cross_traffic(hosts: Pair, rate_bps: float) -> Iterator[None]:
    if not rate_bps:
        yield
        return
    with hosts.there.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("", 9))
        argv = [sys.executable, "-c", _CROSS, hosts.there.address, str(rate_bps), str(_CROSS_BYTES)]
        with hosts.here.popen(*argv) as process:
            try:
                yield
            finally:
                process.kill()


def _iperf3(hosts: Pair, rate_bps: float) -> dict[str, Any]:
    missing = skipped("iperf3")
    if missing:
        return missing
    with hosts.there.popen("iperf3", "-s") as server:
        deadline_s = time.monotonic() + 10
        while True:
            command = ["ip", "netns", "exec", hosts.here.name, "iperf3", "-c", hosts.there.address, "-t", "1", "-J"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            end = json.loads(done.stdout or "{}").get("end", {})  # empty while the server does not listen: not an error
            if "sum_received" in end or time.monotonic() > deadline_s:
                break
        server.kill()
    if "sum_received" not in end:
        return {"NOT_MEASURED": "iperf3 came to no result"}
    bps, sent = end["sum_received"]["bits_per_second"], end["sum_sent"]["bytes"]
    return {"error": round(bps / rate_bps - 1, 4), "bytes": sent}
