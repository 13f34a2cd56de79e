"""ICMP echo: is the target's network stack there, and how long is the way there and back?

One socket asks everybody. Where `net.ipv4.ping_group_range` has one of our groups it is an unprivileged datagram
socket, else a raw one (root or CAP_NET_RAW); both measured the same. The kernel stamps arrivals
(`SO_TIMESTAMPNS`), so a late wake-up of ours does not count as the path's time. The departure is stamped by us just
before `sendto`, on the clock that the kernel uses: the wall clock. Should that be set meanwhile, the stamp makes no
sense, and the monotonic clock's time, which reads some microseconds high, is taken instead.

`IP_RECVERR` brings routers' unreachables, with the packet that they are about. It has a trap: an error that came back
for one target also fails the next `sendto`, whoever that is for. So a failed `sendto` is tried once more; what fails
then is our own failure to send.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import time
from dataclasses import dataclass
from typing import Final

from producers.probes import Answer, Endpoint
from schemas.errors import ProbeError
from schemas.records import Outcome

# Not in Python's socket module; the numbers of Linux on all but a few old architectures.
_SO_TIMESTAMPNS: Final = 35
_IP_RECVERR: Final = 11
_ICMP_FILTER_LEVEL, _ICMP_FILTER = 255, 1
_ECHO_REPLY, _UNREACHABLE, _ECHO_REQUEST, _TIME_EXCEEDED = 0, 3, 8, 11
_ORIGIN_ICMP: Final = 2
_HEADER: Final = struct.Struct("!BBHHH")
_TOKEN_BYTES: Final = 8
_DATA_BYTES: Final = 56  # as ping has it
_RECEIVE_BUFFER_BYTES: Final = 1 << 20


@dataclass(slots=True)
class _Flight:
    address: str
    sent_wall_ns: int
    sent_ns: int
    ended: asyncio.Future[Answer]


class IcmpEcho:
    """The method `icmp`; make it where an event loop runs. Raises ProbeError when no ICMP socket may be had."""

    method: Final = "icmp"

    def __init__(self) -> None:
        self._socket, self._raw = _open()
        # Others ping from this machine too, and raw sockets see everybody's replies.
        self._token = secrets.token_bytes(_TOKEN_BYTES)
        self._identifier = secrets.randbelow(1 << 16)
        self._sequence = 0
        self._flights: dict[int, _Flight] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive)

    async def ask(self, endpoint: Endpoint, timeout_s: float) -> Answer:
        sequence = self._sequence = (self._sequence + 1) & 0xFFFF
        if sequence in self._flights:  # 65,536 under way
            return Answer(Outcome.NOT_SENT)
        packet = self._packet(sequence)
        flight = _Flight(endpoint.address, time.time_ns(), time.perf_counter_ns(), self._loop.create_future())
        self._flights[sequence] = flight
        try:
            if not self._sent(packet, flight):
                return Answer(Outcome.NOT_SENT)
            async with asyncio.timeout(timeout_s):
                return await flight.ended
        except TimeoutError:
            return Answer(Outcome.TIMED_OUT)
        finally:
            del self._flights[sequence]

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _packet(self, sequence: int) -> bytes:
        data = self._token.ljust(_DATA_BYTES, b"\0")
        header = _HEADER.pack(_ECHO_REQUEST, 0, 0, self._identifier, sequence)
        # A datagram socket's checksum and identifier are the kernel's own.
        return _HEADER.pack(_ECHO_REQUEST, 0, _checksum(header + data), self._identifier, sequence) + data

    def _sent(self, packet: bytes, flight: _Flight) -> bool:
        for _ in range(2):
            flight.sent_wall_ns, flight.sent_ns = time.time_ns(), time.perf_counter_ns()
            try:
                self._socket.sendto(packet, (flight.address, 0))
            except OSError:
                self._receive_errors()
            else:
                return True
        return False

    def _receive(self) -> None:
        while True:
            try:
                packet, ancillary, _flags, sender = self._socket.recvmsg(2048, 256)
            except BlockingIOError:
                break
            except OSError:  # an error that came back: reading it clears it, and the error queue says more
                continue
            seen_ns = time.perf_counter_ns()
            if self._raw:
                packet = packet[(packet[0] & 0x0F) * 4 :] if packet else packet
            flight = self._flight_of(packet, sender[0], _ECHO_REPLY)
            if flight is not None:
                flight.ended.set_result(Answer(Outcome.ANSWERED, _rtt_ms(flight, seen_ns, ancillary)))
        self._receive_errors()

    def _receive_errors(self) -> None:
        """Unreachables: each comes with the packet of ours that it is about, and the address that this was sent to."""
        while True:
            try:
                packet, ancillary, _flags, sent_to = self._socket.recvmsg(2048, 512, socket.MSG_ERRQUEUE)
            except OSError:  # empty
                return
            if self._raw and packet[4:6] != self._identifier.to_bytes(2):  # about a stranger's echo
                continue
            flight = self._flight_of(packet, sent_to[0], _ECHO_REQUEST)
            for level, kind, data in ancillary:
                if flight is None or (level, kind) != (socket.IPPROTO_IP, _IP_RECVERR):
                    continue
                _error, origin, icmp_type, code = struct.unpack_from("=IBBB", data)
                if origin == _ORIGIN_ICMP and icmp_type in (_UNREACHABLE, _TIME_EXCEEDED):
                    flight.ended.set_result(Answer(Outcome.UNREACHABLE, code=code))
                    break

    def _flight_of(self, packet: bytes, address: str, icmp_type: int) -> _Flight | None:
        """The probe that an ICMP packet belongs to, if it is ours, from whom it should be, and still awaited."""
        if len(packet) < _HEADER.size or packet[0] != icmp_type:
            return None
        # Of a packet that it could not deliver, a router returns the header for sure, and maybe no data.
        token = packet[_HEADER.size :][:_TOKEN_BYTES]
        if not self._token.startswith(token) or (icmp_type == _ECHO_REPLY and token != self._token):
            return None
        flight = self._flights.get(_HEADER.unpack_from(packet)[4])
        return flight if flight is not None and flight.address == address and not flight.ended.done() else None


def _open() -> tuple[socket.socket, bool]:
    """A non-blocking ICMP socket, and whether it is a raw one."""
    last: OSError | None = None
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            opened = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        except OSError as error:
            last = error
            continue
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        opened.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        if kind == socket.SOCK_RAW:  # a set bit keeps that type from us: all but replies
            opened.setsockopt(_ICMP_FILTER_LEVEL, _ICMP_FILTER, struct.pack("I", 0xFFFFFFFF & ~(1 << _ECHO_REPLY)))
        return opened, kind == socket.SOCK_RAW
    raise ProbeError(
        f"no ICMP socket may be opened: {os.strerror(last.errno or 0) if last else ''}",
        where="method icmp",
        do='allow it with sysctl net.ipv4.ping_group_range="0 2147483647", or give the process CAP_NET_RAW',
    )


def _rtt_ms(flight: _Flight, seen_ns: int, ancillary: list[tuple[int, int, bytes]]) -> float:
    seen_rtt_ns = seen_ns - flight.sent_ns
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack_from("qq", data)
            stamped_rtt_ns = seconds * 1_000_000_000 + nanoseconds - flight.sent_wall_ns
            if 0 < stamped_rtt_ns <= seen_rtt_ns:
                return float(stamped_rtt_ns / 1e6)
    return seen_rtt_ns / 1e6


def _checksum(packet: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
