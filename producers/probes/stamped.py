"""Sockets whose packets the kernel stamps, and what they bring back besides data.

`SO_TIMESTAMPING` in software: a packet that leaves is stamped where the driver takes it, one that arrives where the
driver gives it. So neither our own way into the kernel nor a late wake-up counts as the path's time. The stamp of a
departure comes back on the socket's error queue with the packet itself, there as soon as `sendto` returns unless a
queue held it up; packets are recognised by their own last bytes, for counters (`SOF_TIMESTAMPING_OPT_ID`) go wrong
with the first send that fails. Where stamps of departures are not given, ours from just before `sendto` serves.

Both stamps are of the wall clock. If that was set in between, they make no sense, and the time by the performance
counter is taken, which reads some microseconds high.

The same queue brings what routers say about packets of ours that they could not deliver (`IP_RECVERR`).
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from producers.probes.flights import Flight, Key

# Not in Python's socket module; the numbers of Linux on all but a few old architectures.
_SO_TIMESTAMPING: Final = 37
_SO_ATTACH_FILTER: Final = 26
_SO_RXQ_OVFL: Final = 40
_TX_SOFTWARE, _RX_SOFTWARE, _SOFTWARE = 1 << 1, 1 << 3, 1 << 4
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_ORIGINS_ICMP: Final = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
_ORIGIN_STAMP: Final = 4
# ICMP's unreachable and time exceeded; ICMPv6's too.
_UNREACHABLE_TYPES: Final = {socket.AF_INET: (3, 11), socket.AF_INET6: (1, 3)}
_RECEIVE_BUFFER_BYTES: Final = 4 << 20
_ERROR: Final = struct.Struct("=IBBB")
_TIMESPEC: Final = struct.Struct("=qq")
_PACKET_BYTES_MAX, _ANCILLARY_BYTES_MAX = 2048, 512
# As many as a receive buffer of usual size holds: more did not wait when reading began.
_READS_MAX: Final = 8192

Ancillary = Sequence[tuple[int, int, bytes]]


class Arrival(NamedTuple):
    """A packet, who sent it, and when the kernel had it (wall clock, nanoseconds; 0 when it did not say).

    `overflown` counts what the kernel had thrown away by then, ever, because we did not read soon enough.
    """

    packet: bytes
    sender: str
    port: int
    kernel_ns: int
    overflown: int


class Returned(NamedTuple):
    """A packet of ours that came back: with the stamp of its departure, or with an ICMP code if it is undeliverable.

    With a stamp it is whole, link header included; with a code it begins behind the IP header, and a router may have
    cut it off after 8 bytes. `sent_to` is the address that it was sent to, and empty with a stamp.
    """

    packet: bytes
    sent_to: str
    kernel_ns: int
    code: int | None


def open_stamped(
    family: socket.AddressFamily, kind: int, protocol: int = 0, *, departures: bool = True
) -> socket.socket:
    """A non-blocking socket with stamps, of `departures` too unless said, and errors.

    Raises OSError when this process may have none.
    """
    opened = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    try:
        wanted = _RX_SOFTWARE | _SOFTWARE | (_TX_SOFTWARE if departures else 0)
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, wanted)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    except OSError:
        opened.close()
        raise
    return opened


def sent(opened: socket.socket, packet: bytes, flight: Flight[Key], read_returns: Callable[[], None]) -> bool:
    """Send a probe and note when; False: it cannot be.

    An error that came back for one target also fails the next `sendto`, whoever that is for. So a failed one is tried
    once more, when the errors were read; what fails then is our own failure to send.
    """
    for _ in range(2):
        flight.sent_wall_ns, flight.sent_ns = time.time_ns(), time.perf_counter_ns()
        try:
            opened.sendto(packet, (flight.endpoint.address, 0))
        except OSError:
            read_returns()
        else:
            return True
    return False


def arrivals(opened: socket.socket) -> Iterator[Arrival]:
    """What has arrived, until there is no more."""
    for _ in range(_READS_MAX):
        try:
            packet, ancillary, _flags, sender = opened.recvmsg(_PACKET_BYTES_MAX, _ANCILLARY_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:  # an error that came back: reading it clears it, and the error queue says more
            continue
        overflown = 0
        if len(ancillary) > 1:  # it is not there while it is 0
            overflown = next((int.from_bytes(c[2], sys.byteorder) for c in ancillary if c[1] == _SO_RXQ_OVFL), 0)
        yield Arrival(packet, sender[0], sender[1], _stamp_ns(ancillary), overflown)


def returns(opened: socket.socket) -> Iterator[Returned]:
    """What is on the error queue, until there is no more."""
    for _ in range(_READS_MAX):
        try:
            packet, ancillary, _flags, sent_to = opened.recvmsg(
                _PACKET_BYTES_MAX, _ANCILLARY_BYTES_MAX, socket.MSG_ERRQUEUE
            )
        except OSError:  # empty
            return
        for level, kind, data in ancillary:
            if (level, kind) in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                _error, origin, icmp_type, code = _ERROR.unpack_from(data)
                if origin == _ORIGIN_STAMP:
                    yield Returned(packet, "", _stamp_ns(ancillary), None)
                elif origin in _ORIGINS_ICMP and icmp_type in _UNREACHABLE_TYPES[opened.family]:
                    yield Returned(packet, sent_to[0] if sent_to else "", 0, code)


def rtt_ms(flight: Flight[Key], arrived_ns: int, seen_ns: int) -> float:
    """From departure to arrival: by the kernel's stamps where they make sense, else as we saw it.

    `arrived_ns` is the kernel's stamp (0: none), and `seen_ns` the performance counter when we read it.
    """
    seen_rtt_ns = seen_ns - flight.sent_ns
    for departed_ns in (flight.kernel_sent_ns, flight.sent_wall_ns):
        stamped_rtt_ns = arrived_ns - departed_ns
        if departed_ns and 0 < stamped_rtt_ns <= seen_rtt_ns:
            return stamped_rtt_ns / 1e6
    return seen_rtt_ns / 1e6


def attach_filter(opened: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Let only packets through that a classic BPF program wants: (code, jump if true, jump if false, operand)."""
    instructions = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(instructions)
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(held)))


def checksum(packet: bytes) -> int:
    """RFC 1071's, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _stamp_ns(ancillary: Ancillary) -> int:
    for level, kind, data in ancillary:
        if kind == _SO_TIMESTAMPING and level == socket.SOL_SOCKET:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return 0
