"""Probes: one kind a file, each one question to the network and how it is timed.

    icmp.py          ICMP echo, IPv4 and IPv6: is the target's network stack there
    tcp_syn.py       one SYN of our own making: would a connection be accepted; never makes one
    tcp_connect.py   the same with the kernel's connect(), which needs no privilege
    bandwidth.py     trains of packets to a responder (producers/responder.py): how much fits through the path
    trains.py        what a train is on the wire, and what its arrivals say
    methods.py       which of them a configuration may name
    budget.py        bytes that may be spent an hour
    families.py      one probe by both versions of IP
    stamped.py       sockets whose packets the kernel stamps, and what they bring back
    stamped_part.py  what icmp and tcp_syn make of one such socket
    flights.py       what was asked and has not ended

A probe says how its question ended, and is strict about whose failure that was. A refusal or an unreachable is the
path's answer, and never a latency: a fast "no" must not look like a fast path. What could not be sent from here is
the agent's own trouble (NOT_SENT), and never the path's loss.

They call back instead of being awaited: a task and a future a probe would cost more than all else that a probe does.

The agent (`producers/agent.py`) decides when and whom to ask. What must not live here: pacing, records, Kafka.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from schemas.records import Outcome


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a region is asked: an IPv4 or IPv6 address in its shortest form, and a port where methods need one."""

    address: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


@dataclass(frozen=True, slots=True)
class Answer:
    """How a probe ended.

    `rtt_ms` is NaN unless answered, and `code` the ICMP code of an unreachable, else 0. A bandwidth probe that was
    answered says the capacity in IP bits a second, half the width of its 95 % interval over it (0 to 1), and, however
    it ended, the IP bytes that it sent.
    """

    outcome: Outcome
    rtt_ms: float = math.nan
    code: int = 0
    bandwidth_bps: float = math.nan
    uncertainty_ratio: float = math.nan
    bytes_sent: int = 0


Ended = Callable[[Answer], None]


class Probe(Protocol):
    """A method of asking. It opens its sockets when it is made, and belongs to the event loop that it is made in."""

    @property
    def method(self) -> str:
        """Its name in ProbeBatch."""
        ...

    def ask(self, endpoint: Endpoint, ended: Ended) -> None:
        """Ask once, now; `ended` is called exactly once, maybe before this returns. Never raises OSError.

        Many may be under way at once, to the same endpoint too.
        """
        ...

    def close(self) -> None:
        """Let go of sockets; what is under way never ends."""
        ...
