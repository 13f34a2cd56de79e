"""Thousands of targets by one agent: its processor, its losses and its spacing; and whether it measures loss right.

The yardstick is fping at the same rate to as many targets, which paces worse and times in user space, but is C.
"""

from __future__ import annotations

import math
import resource
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas.records import Outcome
from tests.bench.probing import LONG, Sampled, load, sampled, skipped, us
from tests.network import Pair, behind, captured, pair, relayed

LOSS = 0.05
JITTER_MS = 3


def run() -> Iterator[dict[str, Any]]:
    """10,000 probes a second; 3,000 targets once a second; a link that loses 5 %; a link with known jitter."""
    missing = skipped()
    if missing:
        yield missing
        return
    with pair() as hosts:
        addresses = behind(hosts, 10_000)
        for targets, seconds in ((10_000, 30 if LONG else 5), (3_000, 60 if LONG else 10)):
            yield _scaled(hosts, addresses[:targets], seconds)
    with relayed(loss=LOSS) as hosts:
        yield _loss(sampled(hosts.here, [hosts.there.address], 1000, 30 if LONG else 5))
    with relayed(jitter_ms=JITTER_MS) as hosts:
        yield _variation(sampled(hosts.here, [hosts.there.address], 20, 60 if LONG else 20))


def _scaled(hosts: Pair, addresses: list[str], seconds: int) -> dict[str, Any]:
    with captured(hosts.here, hosts.device) as seen:
        found = sampled(hosts.here, addresses, 1, seconds)
    gaps_ms = np.concatenate([np.diff(found.sent_at_ms[found.target_index == t]) for t in range(0, len(addresses), 97)])
    return {
        "targets": len(addresses),
        "seconds": seconds,
        "probes": len(found.outcome),
        "every_target_every_tick": bool(
            (np.bincount(found.target_index, minlength=len(addresses)) >= seconds - 1).all()
        ),
        "lost": found.count(Outcome.TIMED_OUT),
        "not_sent": found.count(Outcome.NOT_SENT),
        "suspect": found.count(Outcome.SUSPECT),
        "longest_stall_ms": round(found.longest_stall_ms, 1),
        "gap_ms_p1_p99": np.percentile(gaps_ms, (1, 99)).round(1).tolist(),
        "most_in_a_ms_ratio": round(seen["per_ms_max"] / len(addresses), 4),
        **us(found.rtt_us),
        "core_ratio": round(found.cpu_ratio, 3),
        "fping": _fping(hosts, addresses, seconds),
        "load": load(),
    }


def _fping(hosts: Pair, addresses: list[str], seconds: int) -> dict[str, Any]:
    missing = skipped("fping")
    if missing:
        return missing
    between_ms = f"{1000 / len(addresses):.3f}"
    command = [
        "ip",
        "netns",
        "exec",
        hosts.here.name,
        "fping",
        "-q",
        "-C",
        str(seconds),
        "-p",
        "1000",
        "-i",
        between_ms,
    ]
    with captured(hosts.here, hosts.device) as seen:
        began_s, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([*command, *addresses], capture_output=True, text=True, check=False)
        after, took_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began_s
    said = np.array(
        [float(v) for line in done.stderr.splitlines() for v in line.partition(" : ")[2].split() if v != "-"]
    )
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "probes": len(said),
        **us(said * 1e3),
        "core_ratio": round(cpu_s / took_s, 3),
        "most_in_a_ms_ratio": round(seen["per_ms_max"] / len(addresses), 4),
    }


def _loss(found: Sampled) -> dict[str, Any]:
    # What was asked during a stall of ours is neither loss nor answer.
    judged = found.count(Outcome.ANSWERED) + found.count(Outcome.TIMED_OUT)
    lost = found.count(Outcome.TIMED_OUT)
    deviations = (lost - judged * LOSS) / math.sqrt(judged * LOSS * (1 - LOSS))
    return {
        "link_loss_ratio": LOSS,
        "measured_ratio": round(lost / judged, 4),
        "probes": judged,
        "suspect": found.count(Outcome.SUSPECT),
        "standard_deviations_off": round(deviations, 2),
        "load": load(),
    }


def _variation(found: Sampled) -> dict[str, Any]:
    """RFC 3393's: the difference between one delay and the next. Each way adds what is exponential of mean 3 ms.

    The absolute difference of two sums of two such is 3 ms · 3/2 in the mean. Probes are 50 ms apart: the link keeps
    their order, and so takes some of the variation away if one can catch up with another.
    """
    measured_ms = float(np.nanmean(np.abs(np.diff(found.rtt_us)))) / 1e3
    return {"variation_ms": round(JITTER_MS * 3 / 2, 3), "measured_ms": round(measured_ms, 3), "load": load()}
