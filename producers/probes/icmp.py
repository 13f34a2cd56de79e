"""ICMP echo (RFC 792, RFC 4443): is the target's network stack there, and how long is the way there and back?

One socket a family asks everybody. Where `net.ipv4.ping_group_range` has one of our groups it is an unprivileged
datagram socket (for IPv6 too), else a raw one (CAP_NET_RAW); both are stamped by the kernel alike.

A raw socket sees everybody's replies, and a reply may come so late that its 16-bit sequence number is in use again.
So each echo carries a token of this process and its whole number, and both must come back.
"""

from __future__ import annotations

import secrets
import socket
import struct
from typing import Final

from producers.probes import Answer, Ended, Endpoint
from producers.probes.families import Families
from producers.probes.flights import Flight
from producers.probes.stamped import checksum, open_stamped, returns
from producers.probes.stamped_part import StampedPart
from schemas.records import Outcome

_ICMP_FILTER_LEVEL, _ICMP_FILTER = 255, 1
_ICMP6_FILTER: Final = 1
_REQUEST: Final = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY: Final = {socket.AF_INET: 0, socket.AF_INET6: 129}
_HEADER: Final = struct.Struct("!BBHHH")
# The data: token, number, and what fills it up to ping's 56 bytes.
_DATA: Final = struct.Struct("!8sQ40x")
_ECHO_BYTES: Final = _HEADER.size + _DATA.size


class IcmpEcho(Families):
    """The method `icmp`; make it where an event loop runs. Raises ProbeError when no ICMP socket may be had."""

    method: Final = "icmp"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            lambda family: _Family(family, timeout_s),
            what="ICMP",
            where="method icmp",
            do='allow it with sysctl net.ipv4.ping_group_range="0 2147483647", or give the process CAP_NET_RAW',
        )


class _Family(StampedPart):
    """Echoes by one version of IP; a probe's key is its sequence number."""

    def __init__(self, family: socket.AddressFamily, timeout_s: float) -> None:
        opened, self._raw = _open(family)
        self._request, self._reply = _REQUEST[family], _REPLY[family]
        self._token = secrets.token_bytes(8)
        self._identifier = secrets.randbelow(1 << 16)
        self._number = 0
        super().__init__(opened, timeout_s, has_ip_header=self._raw and family == socket.AF_INET)

    def ask(self, endpoint: Endpoint, ended: Ended) -> None:
        self._number += 1
        sequence = self._number & 0xFFFF
        if sequence in self._flights:  # 65,536 under way
            ended(Answer(Outcome.NOT_SENT))
        else:
            self._send(self._packet(sequence), sequence, endpoint, ended)

    def _packet(self, sequence: int) -> bytes:
        data = _DATA.pack(self._token, self._number)
        header = _HEADER.pack(self._request, 0, 0, self._identifier, sequence)
        if self._has_ip_header:  # in all other cases the kernel does it
            header = _HEADER.pack(self._request, 0, checksum(header + data), self._identifier, sequence)
        return header + data

    def _answered(self, packet: bytes, at: int) -> tuple[Flight[int], Outcome] | None:
        if len(packet) != at + _ECHO_BYTES or packet[at] != self._reply:
            return None
        flight = self._flight_of(*_DATA.unpack_from(packet, at + _HEADER.size))
        return None if flight is None else (flight, Outcome.ANSWERED)

    def _receive_returns(self) -> None:
        for packet, sent_to, departed_ns, code in returns(self._socket):
            if code is None:
                if len(packet) >= _ECHO_BYTES:
                    flight = self._flight_of(*_DATA.unpack_from(packet, len(packet) - _DATA.size))
                    if flight is not None:
                        flight.kernel_sent_ns = departed_ns
            else:
                flight = self._undelivered(packet)
                if flight is not None and flight.endpoint.address == sent_to:
                    self._flights.end(flight, Answer(Outcome.UNREACHABLE, code=code))

    def _flight_of(self, token: bytes, number: int) -> Flight[int] | None:
        """The probe of this number, if it is ours and awaited: one of the last 65,536."""
        if token != self._token or not self._number - 0xFFFF <= number <= self._number:
            return None
        return self._flights.get(number & 0xFFFF)

    def _undelivered(self, packet: bytes) -> Flight[int] | None:
        """The probe whose echo a router returned: its header for sure, and maybe no data."""
        if len(packet) < _HEADER.size:
            return None
        icmp_type, _, _, identifier, sequence = _HEADER.unpack_from(packet)
        token = packet[_HEADER.size :][: len(self._token)]
        # A datagram socket's identifier is the kernel's own, which keeps strangers' from us.
        if icmp_type != self._request or (self._raw and identifier != self._identifier):
            return None
        return self._flights.get(sequence) if self._token.startswith(token) else None


def _open(family: socket.AddressFamily) -> tuple[socket.socket, bool]:
    """An ICMP socket, and whether it is a raw one. Raises OSError when neither may be had."""
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    try:
        return open_stamped(family, socket.SOCK_DGRAM, protocol), False
    except OSError:
        opened = open_stamped(family, socket.SOCK_RAW, protocol)
    # A set bit keeps that type from us: all but replies.
    reply = _REPLY[family]
    if family == socket.AF_INET6:
        masks = [0xFFFFFFFF] * 8
        masks[reply >> 5] &= ~(1 << (reply & 31))
        opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("8I", *masks))
    else:
        opened.setsockopt(_ICMP_FILTER_LEVEL, _ICMP_FILTER, struct.pack("I", 0xFFFFFFFF & ~(1 << reply)))
    return opened, True
