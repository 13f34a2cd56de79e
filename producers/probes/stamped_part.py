"""What `icmp` and `tcp-syn` are alike in: one stamped socket a version of IP, and answers that bring a number back."""

from __future__ import annotations

import asyncio
import socket
import time
from abc import ABC, abstractmethod

from producers.probes import Answer, Ended, Endpoint
from producers.probes.flights import Flight, Flights
from producers.probes.stamped import arrivals, rtt_ms, sent
from schemas.records import Outcome


class StampedPart(ABC):
    """A probe by one version of IP: sends, and ends what was asked when its answer arrives in time."""

    def __init__(self, opened: socket.socket, timeout_s: float, *, has_ip_header: bool) -> None:
        """`has_ip_header`: what arrives stands behind it, as in raw IPv4 sockets. From now on `opened` is read."""
        self._socket, self._has_ip_header = opened, has_ip_header
        self._flights: Flights[int] = Flights(timeout_s, self._receive)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(opened, self._receive)

    @abstractmethod
    def _answered(self, packet: bytes, at: int) -> tuple[Flight[int], Outcome] | None:
        """Which probe this packet, from `at` on, answers and how; None: none of ours. Who sent it is not looked at."""

    @abstractmethod
    def _receive_returns(self) -> None:
        """Read the error queue: stamps of departures, and what routers say."""

    def close(self) -> None:
        self._flights.close()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _send(self, packet: bytes, number: int, endpoint: Endpoint, ended: Ended) -> None:
        flight = self._flights.begin(number, endpoint, ended)
        if sent(self._socket, packet, flight, self._receive_returns):
            self._receive_returns()
        else:
            self._flights.end(flight, Answer(Outcome.NOT_SENT))

    def _receive(self) -> None:
        self._receive_returns()
        for packet, sender, _, arrived_ns, overflown in arrivals(self._socket):
            seen_ns = time.perf_counter_ns()
            self._flights.overflown(overflown)
            found = self._answered(packet, (packet[0] & 0x0F) * 4 if self._has_ip_header and packet else 0)
            if found is None or found[0].endpoint.address != sender:
                continue
            flight, outcome = found
            if not flight.kernel_sent_ns:  # a queue held it up, or it left while we were reading
                self._receive_returns()
            answered = outcome is Outcome.ANSWERED
            self._flights.end(
                flight, Answer(outcome, rtt_ms(flight, arrived_ns, seen_ns)) if answered else Answer(outcome)
            )
