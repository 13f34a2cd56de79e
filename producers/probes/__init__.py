"""Probes: one kind a file, each one question to the network and how it is timed.

    tcp_connect.py   would a connection be accepted, and after how long
    icmp.py          ICMP echo (IPv4)

A probe says how its question ended, and is strict about whose failure that was. A refusal or an unreachable is the
path's answer, and never a latency: a fast "no" must not look like a fast path. What could not be sent from here is
the agent's own trouble (NOT_SENT), and never the path's loss.

The agent (`producers/agent.py`) decides when and whom to ask. What must not live here: pacing, records, Kafka.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from schemas.records import Outcome


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a region is asked: an IPv4 address, and a port for the methods that need one."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """How a probe ended; `rtt_ms` is NaN unless answered, `code` the ICMP code of an unreachable, else 0."""

    outcome: Outcome
    rtt_ms: float = math.nan
    code: int = 0


class Probe(Protocol):
    """A method of asking. It belongs to the event loop that it was made in."""

    @property
    def method(self) -> str:
        """Its name in configuration and in ProbeBatch."""
        ...

    async def ask(self, endpoint: Endpoint, timeout_s: float) -> Answer:
        """Ask once and wait for the end, at most `timeout_s`; sent before the first suspension; never raises OSError.

        Many may be under way at once, to the same endpoint too.
        """
        ...

    def close(self) -> None:
        """Let go of sockets; what is under way times out."""
        ...
