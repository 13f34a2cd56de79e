"""Our ICMP and SYN, fping and connect(), each beside a packet capture on the same veth pair: 1,000 probes a second.

The capture says for each probe what its round trip was, from the request's leaving to the reply's coming; the bias is
what the prober says above that.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.records import Outcome
from tests.bench.probing import LONG, load, sampled, skipped, us
from tests.network import Pair, captured, pair, serving

PER_S = 1000
SECONDS = 20 if LONG else 5

# What everybody writes first: blocking, timed around the call. Prints microseconds.
_CONNECT = """
import socket, struct, sys, time
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
began_s = time.monotonic()
for index in range(count):
    time.sleep(max(0, began_s + index / 1000 - time.monotonic()))
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sent_ns = time.perf_counter_ns()
        opened.connect((address, port))
        print((time.perf_counter_ns() - sent_ns) / 1e3)
"""


def run() -> Iterator[dict[str, Any]]:
    """One line a prober, and one with the ratios."""
    missing = skipped()
    if missing:
        yield missing
        return
    with pair() as hosts, serving(hosts.there) as port:
        lines = {}
        for method in ("icmp", "tcp-syn", "tcp-connect"):
            with captured(hosts.here, hosts.device) as seen:
                found = sampled(hosts.here, [hosts.there.address], PER_S, SECONDS, method=method, port=port)
            said_us = np.where(found.outcome == Outcome.ANSWERED, found.rtt_us, np.nan)
            lines[method] = _line(said_us, seen) | {
                "suspect": found.count(Outcome.SUSPECT),
                "lost": found.count(Outcome.TIMED_OUT),
                "cpu_ratio": round(found.cpu_ratio, 3),
            }
            yield {"prober": method, **lines[method]}
        fping = skipped("fping")
        if fping is None:
            with captured(hosts.here, hosts.device) as seen:
                said_us = _fping(hosts)
            lines["fping"] = _line(said_us, seen)
        yield {"prober": "fping", **(fping or lines["fping"])}
        with captured(hosts.here, hosts.device) as seen:
            said = hosts.here.run(sys.executable, "-c", _CONNECT, hosts.there.address, str(port), str(SECONDS * PER_S))
        lines["connect()"] = _line(np.array(said.split(), dtype=float), seen)
        yield {"prober": "connect()", **lines["connect()"]}
    ours = max(abs(lines["icmp"]["bias_p50_us"]), 0.01)
    yield {
        "load": load(),
        "our_bias_p50_us": lines["icmp"]["bias_p50_us"],
        "bias_ratios_to_ours": {
            name: round(line["bias_p50_us"] / ours, 1) for name, line in lines.items() if name != "icmp"
        },
    }


def _line(said_us: npt.NDArray[Any], seen: dict[str, Any]) -> dict[str, Any]:
    captured_us = np.array([np.nan if value is None else value for value in seen["rtts_us"]])
    if len(captured_us) != len(said_us):  # somebody's packet besides, or a capture that overflowed: no pairs
        return {"probes": len(said_us), "captured": len(captured_us), "bias_p50_us": np.nan}
    bias_us = said_us - captured_us
    return {
        "probes": len(said_us),
        **us(said_us),
        "capture": us(captured_us),
        "bias_p50_us": round(float(np.nanmedian(bias_us)), 2),
        "bias_p99_us": round(float(np.nanpercentile(bias_us, 99)), 2),
    }


def _fping(hosts: Pair) -> npt.NDArray[Any]:
    command = ["ip", "netns", "exec", hosts.here.name, "fping", "-q", "-C", str(PER_S * SECONDS), "-p", "1", "-i", "1"]
    done = subprocess.run([*command, hosts.there.address], capture_output=True, text=True, check=False)
    said = done.stderr.partition(" : ")[2].split()
    return np.array([np.nan if value == "-" else float(value) * 1e3 for value in said])
