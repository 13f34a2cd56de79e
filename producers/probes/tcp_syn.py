"""TCP SYN (RFC 9293): would the target take a connection, and how soon does it say so? None is ever made.

We send one SYN by a raw socket, which scapy built, and the answer is stamped by the kernel. The kernel knows no
connection that a SYN-ACK could be for, so it resets it at once: nothing stays half-open at the target (unless a
firewall here drops resets that go out). A SYN is never sent again, so a lost one is a lost probe.

Source ports are reserved by sockets that are bound and do nothing else: no program here gets one of them, and the
kernel answers for them. Two probes under way to one endpoint never share one, for a target takes the second SYN of a
pair of ports for a stray of the first; so there are as many as that takes.

A raw TCP socket sees every segment that comes to this machine. A filter in the kernel lets through only what could
answer a SYN.
"""

from __future__ import annotations

import functools
import random
import socket
import struct
from typing import Final

from scapy.layers.inet import TCP

from producers.probes import Answer, Ended, Endpoint
from producers.probes.families import Families
from producers.probes.flights import Flight
from producers.probes.stamped import attach_filter, checksum, open_stamped, returns
from producers.probes.stamped_part import StampedPart
from schemas.records import Outcome

SOURCE_PORTS: Final = 64  # of a family, at first
SOURCE_PORTS_MAX: Final = 4096  # then, if so many probes are under way to one endpoint
_CHECKSUM_AT: Final = 16
_TCP_BYTES: Final = 20
_PORTS_AND_NUMBER: Final = struct.Struct("!HHI")
_PORTS_AND_ACKNOWLEDGED: Final = struct.Struct("!HH4xI")
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
# What Linux itself offers: without options, some firewalls take a SYN for an attack.
_MSS: Final = {socket.AF_INET: 1460, socket.AF_INET6: 1440}
_LOAD_FLAGS: Final = {
    socket.AF_INET: [(0xB1, 0, 0, 0), (0x50, 0, 0, 13)],  # x = length of the IP header; a = byte [x + 13]
    socket.AF_INET6: [(0x30, 0, 0, 13)],  # a = byte [13]
}
_SYN_ACK_OR_RST: Final = [
    (0x45, 2, 0, _RST),  # if a & RST: take
    (0x54, 0, 0, _SYN | _ACK),  # a &= SYN | ACK
    (0x15, 0, 1, _SYN | _ACK),  # unless a == SYN | ACK: leave
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
]


class TcpSyn(Families):
    """The method `tcp-syn`; make it where an event loop runs. Raises ProbeError when no raw socket may be had."""

    method: Final = "tcp-syn"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            lambda family: _Family(family, timeout_s),
            what="raw",
            where="method tcp-syn",
            do="give the process CAP_NET_RAW, or use the method tcp-connect",
        )


class _Family(StampedPart):
    """SYNs by one version of IP; a probe's key is its sequence number."""

    def __init__(self, family: socket.AddressFamily, timeout_s: float) -> None:
        self._family = family
        opened = open_stamped(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
        attach_filter(opened, _LOAD_FLAGS[family] + _SYN_ACK_OR_RST)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, _CHECKSUM_AT)
        # Connected to a target it says which of our addresses a packet there leaves from, and sends nothing.
        self._router = socket.socket(family, socket.SOCK_DGRAM)
        self._reserved: list[socket.socket] = []
        self._ports: list[int] = []
        for _ in range(SOURCE_PORTS):
            self._reserve()
        self._busy: set[tuple[Endpoint, int]] = set()
        self._template = bytearray(_syn(family))
        self._random = random.SystemRandom()
        super().__init__(opened, timeout_s, has_ip_header=family == socket.AF_INET)

    def ask(self, endpoint: Endpoint, ended: Ended) -> None:
        number = self._random.getrandbits(32)
        try:
            port = self._free_port(endpoint)
            packet = self._packet(endpoint, port, number) if port is not None else b""
        except OSError:  # no way there from here, or no socket left
            port = None
        if port is None or number in self._flights:
            ended(Answer(Outcome.NOT_SENT))
            return
        self._busy.add((endpoint, port))
        self._send(packet, number, endpoint, functools.partial(self._end, endpoint, port, ended))

    def close(self) -> None:
        super().close()
        for opened in (self._router, *self._reserved):
            opened.close()

    def _end(self, endpoint: Endpoint, port: int, ended: Ended, answer: Answer) -> None:
        self._busy.discard((endpoint, port))
        ended(answer)

    def _free_port(self, endpoint: Endpoint) -> int | None:
        """One that no probe to the endpoint has now, by chance: should a reset be lost, the next SYN takes another."""
        for port in self._random.sample(self._ports, 4):
            if (endpoint, port) not in self._busy:
                return port
        for port in self._ports:
            if (endpoint, port) not in self._busy:
                return port
        return self._reserve() if len(self._ports) < SOURCE_PORTS_MAX else None

    def _reserve(self) -> int:
        """One port more; raises OSError when there is none, or no descriptor left."""
        opened = socket.socket(self._family, socket.SOCK_STREAM)
        self._reserved.append(opened)
        opened.bind(("", 0))
        self._ports.append(opened.getsockname()[1])
        return self._ports[-1]

    def _packet(self, endpoint: Endpoint, port: int, number: int) -> bytes:
        packet = self._template
        _PORTS_AND_NUMBER.pack_into(packet, 0, port, endpoint.port, number)
        self._router.connect((endpoint.address, endpoint.port))
        if self._family == socket.AF_INET:  # in IPv6 the kernel does it
            source = socket.inet_aton(self._router.getsockname()[0])
            pseudo = struct.pack("!4s4sHH", source, socket.inet_aton(endpoint.address), socket.IPPROTO_TCP, len(packet))
            struct.pack_into("!H", packet, _CHECKSUM_AT, 0)
            struct.pack_into("!H", packet, _CHECKSUM_AT, checksum(pseudo + packet))
        return bytes(packet)

    def _answered(self, packet: bytes, at: int) -> tuple[Flight[int], Outcome] | None:
        if len(packet) < at + _TCP_BYTES:
            return None
        theirs, ours, acknowledged = _PORTS_AND_ACKNOWLEDGED.unpack_from(packet, at)
        flight = self._flights.get((acknowledged - 1) & 0xFFFFFFFF)
        if flight is None or not self._is(flight, ours, theirs):
            return None
        # The header alone: nobody's options are worth a look, or a mistake of a dissector.
        flags = int(TCP(packet[at : at + _TCP_BYTES]).flags)
        if flags & _RST:
            return flight, Outcome.REFUSED
        return (flight, Outcome.ANSWERED) if flags & (_SYN | _ACK) == _SYN | _ACK else None

    def _receive_returns(self) -> None:
        for packet, sent_to, departed_ns, code in returns(self._socket):
            at = len(packet) - len(self._template) if code is None else 0
            if at < 0 or len(packet) < _PORTS_AND_NUMBER.size:
                continue
            ours, theirs, number = _PORTS_AND_NUMBER.unpack_from(packet, at)
            flight = self._flights.get(number)
            if flight is None or not self._is(flight, ours, theirs):
                continue
            if code is None:
                flight.kernel_sent_ns = departed_ns
            elif flight.endpoint.address == sent_to:
                self._flights.end(flight, Answer(Outcome.UNREACHABLE, code=code))

    def _is(self, flight: Flight[int], ours: int, theirs: int) -> bool:
        return flight.endpoint.port == theirs and (flight.endpoint, ours) in self._busy


def _syn(family: socket.AddressFamily) -> bytes:
    """A SYN as scapy builds it, with ports, number and checksum still to come."""
    options = [("MSS", _MSS[family]), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    return bytes(TCP(sport=0, dport=0, seq=0, flags="S", window=64240, chksum=0, options=options))
