"""Bandwidth: how much fits through the path to a target's responder, by trains of packets (trains.py).

Trains grow by half until two agree, or `bytes_max` is spent. Measurements stand in line, one under way at a time:
two at once would measure each other. What a path may cost in an hour is bounded; a measurement that might exceed it
is not begun (NOT_SENT, no byte sent).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from producers.probes import Answer, Ended, Endpoint
from producers.probes.budget import HourlyBudget
from producers.probes.stamped import arrivals, open_stamped, returns
from producers.probes.trains import (
    ASK,
    CAR,
    COOKIE,
    HEADER,
    IP_UDP_BYTES,
    MAGIC,
    PACKET_BYTES,
    REQUEST_BYTES,
    TRAIN_PACKETS_MAX,
    Kind,
    Train,
    judge,
    report_of,
)
from schemas.errors import ProbeError
from schemas.records import Outcome

# 20, 30 and 45 packets of 1,400 bytes: two cost 72 kB, and a third, where these disagree, 136 kB in all.
FIRST_PACKETS: Final = 20
GROWTH: Final = 1.5
_AGAIN_S: Final = 0.1
_PORT_UNREACHABLE: Final = {socket.AF_INET: 3, socket.AF_INET6: 4}


@dataclass(slots=True, eq=False)
class _Measurement:
    endpoint: Endpoint
    ended: Ended
    session: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    cookie: bytes = b""
    greeted_ns: int = 0
    heard_ns: int = 0
    rtt_ms: float = 0.0
    bytes_sent: int = 0
    trains: list[Train] = field(default_factory=list)
    # Of the train that is under way: its number (from 0), length and speed, and how many of it had arrived last time.
    train: int = -1
    packets: int = 0
    sent_bps: float = 0.0
    arrived: int = -1


class Bandwidth:
    """The method `bandwidth`; make it where an event loop runs. Raises ProbeError when there is no UDP."""

    method: Final = "bandwidth"

    def __init__(self, timeout_s: float, *, bytes_max: int = 150_000, bytes_per_hour_max: int = 2_000_000) -> None:
        """`timeout_s` is how long a responder may be silent; `bytes_max` (IP) what a measurement may send."""
        self._timeout_s, self._bytes_max = timeout_s, bytes_max
        self._budget = HourlyBudget(bytes_per_hour_max)
        self._waiting: deque[_Measurement] = deque()
        self._now: _Measurement | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, socket.socket] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                self._sockets[family] = open_stamped(family, socket.SOCK_DGRAM, departures=False)
            except OSError:  # a machine without IPv6 asks by IPv4
                continue
            self._loop.add_reader(self._sockets[family], self._receive, self._sockets[family])
        if not self._sockets:
            raise ProbeError("no UDP socket may be opened", where="method bandwidth")

    def ask(self, endpoint: Endpoint, ended: Ended) -> None:
        self._waiting.append(_Measurement(endpoint, ended))
        if self._now is None:
            self._next()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for opened in self._sockets.values():
            self._loop.remove_reader(opened)
            opened.close()

    def _next(self) -> None:
        while self._now is None and self._waiting:
            self._now = self._waiting.popleft()
            endpoint = self._now.endpoint
            if endpoint.family not in self._sockets or self._budget.left(endpoint) < self._bytes_max:
                self._end(Answer(Outcome.NOT_SENT))
            else:
                self._now.heard_ns = time.perf_counter_ns()
                self._greet(self._now)

    def _end(self, answer: Answer) -> None:
        ending, self._now = self._now, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if ending is not None:
            self._budget.spend(ending.endpoint, ending.bytes_sent)
            ending.ended(replace(answer, bytes_sent=ending.bytes_sent))
            # Not from within: who is told may ask again at once, and a line of refusals would be a deep stack.
            self._loop.call_soon(self._next)

    def _greet(self, now: _Measurement) -> None:
        now.greeted_ns = time.perf_counter_ns()
        if self._send(now, HEADER.pack(MAGIC, Kind.HELLO, now.session)) or now.bytes_sent:
            self._wait(_AGAIN_S)
        else:
            self._end(Answer(Outcome.NOT_SENT))

    def _wait(self, for_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(for_s, self._again)

    def _again(self) -> None:
        """Nothing came: say it once more, or give up."""
        for opened in self._sockets.values():
            self._receive(opened)
        now = self._now
        if now is None:
            return
        if time.perf_counter_ns() - now.heard_ns > self._timeout_s * 1e9:
            self._conclude(now)
        elif now.train < 0:
            self._greet(now)
        else:
            self._ask_for_report(now)

    def _receive(self, opened: socket.socket) -> None:
        for packet, sender, port, *_ in arrivals(opened):
            now = self._now
            if now is None or (sender, port) != (now.endpoint.address, now.endpoint.port):
                continue
            if len(packet) < HEADER.size or packet[:4] != MAGIC:
                continue
            _, kind, session = HEADER.unpack_from(packet)
            if session != now.session:
                continue
            if kind == Kind.COOKIE and now.train < 0 and len(packet) == HEADER.size + COOKIE.size:
                self._welcomed(now, packet[HEADER.size :])
            elif kind == Kind.REPORT and now.train >= 0:
                self._told(now, packet)
            elif kind == Kind.BUSY:
                self._end(Answer(Outcome.REFUSED))
        for _packet, sent_to, _, code in returns(opened):
            if self._now is not None and code is not None and sent_to == self._now.endpoint.address:
                refused = code == _PORT_UNREACHABLE[self._now.endpoint.family]
                self._end(Answer(Outcome.REFUSED) if refused else Answer(Outcome.UNREACHABLE, code=code))

    def _welcomed(self, now: _Measurement, cookie: bytes) -> None:
        now.heard_ns = time.perf_counter_ns()
        now.rtt_ms = (now.heard_ns - now.greeted_ns) / 1e6
        now.cookie = cookie
        self._send_train(now, FIRST_PACKETS)

    def _send_train(self, now: _Measurement, wanted: int) -> None:
        """The next train, as long as wanted or as the bytes allow; none when these are spent."""
        packet_bytes = PACKET_BYTES + IP_UDP_BYTES[_version(now.endpoint)]
        # What is left, but for the questions afterwards.
        left = self._bytes_max - now.bytes_sent - 4 * (REQUEST_BYTES + IP_UDP_BYTES[_version(now.endpoint)])
        packets = min(wanted, TRAIN_PACKETS_MAX, left // packet_bytes)
        if packets < FIRST_PACKETS:
            self._conclude(now)
            return
        now.train, now.packets, now.arrived = now.train + 1, packets, -1
        header = HEADER.pack(MAGIC, Kind.TRAIN, now.session)
        # Made before the first leaves: it is the narrow link that should space them, not we.
        cars = [header + CAR.pack(now.cookie, now.train, index, packets) for index in range(packets)]
        cars = [car.ljust(PACKET_BYTES, b"\0") for car in cars]
        began_ns = time.perf_counter_ns()
        for car in cars:
            self._send(now, car)
        took_s = (time.perf_counter_ns() - began_ns) / 1e9
        now.sent_bps = packets * packet_bytes * 8 / took_s
        now.heard_ns = time.perf_counter_ns()
        self._ask_for_report(now)

    def _ask_for_report(self, now: _Measurement) -> None:
        self._send(now, HEADER.pack(MAGIC, Kind.ASK, now.session) + ASK.pack(now.cookie, now.train))
        self._wait(max(_AGAIN_S, 2 * now.rtt_ms / 1000))

    def _told(self, now: _Measurement, packet: bytes) -> None:
        report = report_of(packet)
        if report is None or report[0] != now.train:
            return
        _, index, arrived_ns = report
        last_came = now.packets - 1 in index
        if not last_came and len(index) != now.arrived:
            # More may be under way: it is over when the last is there, or nothing new came within a while.
            if len(index) > max(now.arrived, 0):
                now.heard_ns = time.perf_counter_ns()
            now.arrived = len(index)
            return
        if not len(index):
            return
        packet_bits = 8 * (PACKET_BYTES + IP_UDP_BYTES[_version(now.endpoint)])
        now.trains.append(Train(now.packets, packet_bits, now.sent_bps, index, arrived_ns - np.min(arrived_ns)))
        now.heard_ns = time.perf_counter_ns()
        if judge(now.trains)[1]:
            self._conclude(now)
        else:
            self._send_train(now, round(now.packets * GROWTH))

    def _conclude(self, now: _Measurement) -> None:
        """Answered if any train told something; else whoever is there fell silent."""
        found, _settled = judge(now.trains)
        if found is None:
            self._end(Answer(Outcome.TIMED_OUT))
        else:
            self._end(Answer(Outcome.ANSWERED, now.rtt_ms, 0, found.bps, found.uncertainty_ratio))

    def _send(self, now: _Measurement, packet: bytes) -> bool:
        packet = packet.ljust(REQUEST_BYTES, b"\0")
        for _ in range(2):  # the first may fail for an error that came back about an earlier packet
            try:
                self._sockets[now.endpoint.family].sendto(packet, (now.endpoint.address, now.endpoint.port))
            except OSError:
                continue
            now.bytes_sent += len(packet) + IP_UDP_BYTES[_version(now.endpoint)]
            return True
        return False


def _version(endpoint: Endpoint) -> int:
    return 6 if endpoint.family == socket.AF_INET6 else 4
