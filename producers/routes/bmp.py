"""One router's BMP stream (RFC 7854, RFC 9069): messages out of bytes, and back into step after bad ones.

Version 3 has no marker to find a message by, so after bytes that are no message the next one is looked for: a header
that makes sense, of a message whose inside fits its length, with another such header behind it. What was skipped is
counted; everything behind it is taken as usual (a withdrawal among what was skipped is not said again: probes will
tell). A message that says how long it is and only has contents that cannot be read costs nothing but itself.

Memory: what is left of the last message, `MESSAGE_BYTES_MAX` at most.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from producers.routes.update import HEADER_BYTES, MARKER, OPEN, UPDATE

VERSION: Final = 3
ROUTE_MONITORING: Final = 0
STATISTICS: Final = 1
PEER_DOWN: Final = 2
PEER_UP: Final = 3
INITIATION: Final = 4
TERMINATION: Final = 5
MIRRORING: Final = 6

HEADER: Final = struct.Struct("!BIB")
PER_PEER_BYTES: Final = 42
_BODY: Final = HEADER.size + PER_PEER_BYTES
# Smallest and largest of each type. A Peer Up holds two OPENs and text, Route Mirroring a few messages.
_BYTES: Final = {
    ROUTE_MONITORING: (_BODY + HEADER_BYTES, _BODY + 0xFFFF),
    STATISTICS: (_BODY + 4, 1 << 16),
    PEER_DOWN: (_BODY + 1, _BODY + 1 + 2 * 0xFFFF),
    PEER_UP: (_BODY + 20 + 2 * (HEADER_BYTES + 10), 1 << 18),
    INITIATION: (HEADER.size, 1 << 16),
    TERMINATION: (HEADER.size, 1 << 16),
    MIRRORING: (_BODY, 1 << 18),
}
MESSAGE_BYTES_MAX: Final = 1 << 18
_UNKNOWN_BYTES: Final = (HEADER.size, 1 << 16)
_PEER_TYPES: Final = range(4)

_FLAG_IPV6: Final = 0x80
_FLAG_POST_POLICY: Final = 0x40
_FLAG_AS2: Final = 0x20
_FLAG_ADJ_RIB_OUT: Final = 0x10
_LOC_RIB_PEER: Final = 3
_SYS_NAME: Final = 2
_CAPABILITIES: Final = 2
_FOUR_OCTET_AS: Final = 65
_ADD_PATH: Final = 69
_EXTENDED_OPT: Final = 255


class Message(NamedTuple):
    """A BMP message, within the bytes that it came in: its contents are `data[at:end]`, behind the common header."""

    kind: int
    data: bytes
    at: int
    end: int


class Framing:
    """Messages out of a stream of bytes. `skipped` counts bytes that were none, `resyncs` how often that began."""

    def __init__(self) -> None:
        self.skipped = 0
        self.resyncs = 0
        self.skipped_in_a_row = 0  # since the last message
        self._rest = b""
        self._is_lost = False

    def feed(self, received: bytes) -> Iterator[Message]:
        """The messages that are whole with these bytes; whatever they are, nothing is raised."""
        data = self._rest + received if self._rest else received
        at, size = 0, len(data)
        while size - at >= HEADER.size:
            if self._is_lost:
                found = _next_message(data, at)
                self._skip(found - at)
                at = found
                if not _is_sure(data, at):
                    break  # more bytes will tell
                self._is_lost = False
            version, length, kind = HEADER.unpack_from(data, at)
            if version != VERSION or not _fits(data, at, length, kind):
                self._is_lost = True
                self.resyncs += 1
                self._skip(1)
                at += 1
                continue
            end = at + length
            if end > size:
                break
            self.skipped_in_a_row = 0
            yield Message(kind, data, at + HEADER.size, end)
            at = end
        self._rest = data[at:]

    def _skip(self, count: int) -> None:
        self.skipped += count
        self.skipped_in_a_row += count


def _fits(data: bytes, at: int, length: int, kind: int) -> bool:
    """Whether a header's length can be its type's, and an UPDATE in it says the same length, as far as it is there."""
    low, high = _BYTES.get(kind, _UNKNOWN_BYTES)
    if not low <= length <= high:
        return False
    if kind != ROUTE_MONITORING:
        return True
    pdu = at + _BODY
    if len(data) < pdu + HEADER_BYTES:
        return True
    inner = data[pdu + 16] << 8 | data[pdu + 17]
    return inner == length - _BODY and data.startswith(MARKER, pdu)


def _next_message(data: bytes, at: int) -> int:
    """Where a message may begin: the first place from `at` on that nothing speaks against, or the end."""
    size = len(data)
    while True:
        at = data.find(VERSION, at)
        if at < 0:
            return size
        if size - at < HEADER.size:
            return at
        _, length, kind = HEADER.unpack_from(data, at)
        if kind in _BYTES and _fits(data, at, length, kind) and _has_sense(data, at, length, kind):
            return at
        at += 1


def _has_sense(data: bytes, at: int, length: int, kind: int) -> bool:
    """What is asked of a message only after bad bytes: its inside fits, and so does the header behind it."""
    end = at + length
    if kind in (INITIATION, TERMINATION):
        if end <= len(data) and not _are_tlvs(data, at + HEADER.size, end):
            return False
    elif at + HEADER.size < len(data) and data[at + HEADER.size] not in _PEER_TYPES:
        return False
    first_open = at + _BODY + 20
    if kind == PEER_UP and len(data) >= first_open + 16 and not data.startswith(MARKER, first_open):
        return False
    if len(data) - end < HEADER.size:
        return True
    version: int
    version, behind, kind_behind = HEADER.unpack_from(data, end)
    return bool(version == VERSION and kind_behind in _BYTES and _fits(data, end, behind, kind_behind))


def _is_sure(data: bytes, at: int) -> bool:
    """Whether all of the message at `at` is there: what is behind it may come later, or never."""
    if len(data) - at < HEADER.size:
        return False
    length: int = HEADER.unpack_from(data, at)[1]
    return len(data) >= at + length


def _are_tlvs(data: bytes, at: int, end: int) -> bool:
    while at + 4 <= end:
        at += 4 + (data[at + 2] << 8 | data[at + 3])
    return at == end


@dataclass(frozen=True, slots=True)
class PerPeer:
    """The per-peer header (RFC 7854, 4.2): which peer, and which of the router's tables."""

    identity: bytes  # the same for all messages about a peer, whatever the table
    address: str
    peer_as: int
    is_post_policy: bool
    is_loc_rib: bool
    is_outward: bool  # what the router says to the peer (RFC 8671)
    as_width: int


# The header without its time: the same bytes, the same header.
PER_PEER_KEY_BYTES: Final = 34


def per_peer(key: bytes) -> PerPeer:
    """The header whose first `PER_PEER_KEY_BYTES` bytes these are."""
    kind, flags = key[0], key[1]
    is_loc_rib = kind == _LOC_RIB_PEER
    is_ipv6 = bool(flags & _FLAG_IPV6) and not is_loc_rib
    address = str(ipaddress.IPv6Address(key[10:26]) if is_ipv6 else ipaddress.IPv4Address(key[22:26]))
    return PerPeer(
        identity=key[:1] + key[2:26],
        address=address,
        peer_as=int.from_bytes(key[26:30], "big"),
        is_post_policy=bool(flags & _FLAG_POST_POLICY) and not is_loc_rib,
        is_loc_rib=is_loc_rib,
        is_outward=bool(flags & _FLAG_ADJ_RIB_OUT) and not is_loc_rib,
        as_width=2 if flags & _FLAG_AS2 and not is_loc_rib else 4,
    )


def update_body(message: Message) -> tuple[int, int] | None:
    """Where the body of a Route Monitoring's UPDATE is, from and to; None if it holds another message."""
    at = message.at + PER_PEER_BYTES
    return (at + HEADER_BYTES, message.end) if message.data[at + 18] == UPDATE else None


def add_path_families(message: Message) -> frozenset[int]:
    """Address families (unicast) for which the session of this Peer Up has path identifiers from the peer (RFC 7911).

    The router said in its OPEN that it can receive them, and the peer that it can send them.
    """
    at = message.at + PER_PEER_BYTES + 20
    sent, end = _open_at(message.data, at, message.end)
    received, _ = _open_at(message.data, end, message.end)
    can_receive, can_send = _add_path(sent), _add_path(received)
    return frozenset(f for f in can_receive if can_receive[f] & 1 and can_send.get(f, 0) & 2)


def own_as(message: Message) -> int:
    """The router's AS number in the session of this Peer Up; 0 if it does not say one of four octets (RFC 6793)."""
    parameters, _ = _open_at(message.data, message.at + PER_PEER_BYTES + 20, message.end)
    values = [value for code, value in _capabilities(parameters) if code == _FOUR_OCTET_AS and len(value) == 4]
    return int.from_bytes(values[0], "big") if values else 0


def system_name(message: Message) -> str:
    """What the router calls itself in its Initiation; empty if it does not say."""
    at, data = message.at, message.data
    while at + 4 <= message.end:
        kind, length = data[at] << 8 | data[at + 1], data[at + 2] << 8 | data[at + 3]
        if kind == _SYS_NAME and at + 4 + length <= message.end:
            text = data[at + 4 : at + 4 + length].decode(errors="replace")
            return "".join(c for c in text if c.isprintable())[:128].strip()
        at += 4 + length
    return ""


def _open_at(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """The optional parameters of the OPEN at `at` from their length on, and where it ends; nothing if there is none."""
    if at + HEADER_BYTES + 10 > end or data[at + 18] != OPEN:
        return b"", end
    stop = min(end, at + (data[at + 16] << 8 | data[at + 17]))
    return data[at + HEADER_BYTES + 9 : stop], stop


def _add_path(parameters: bytes) -> dict[int, int]:
    """Send/receive of each unicast address family, out of an OPEN's optional parameters (RFC 7911)."""
    found: dict[int, int] = {}
    for code, value in _capabilities(parameters):
        for i in range(0, len(value) - 3, 4) if code == _ADD_PATH else ():
            if value[i + 2] == 1:
                found[value[i] << 8 | value[i + 1]] = value[i + 3]
    return found


def _capabilities(parameters: bytes) -> Iterator[tuple[int, bytes]]:
    """Codes and values, out of an OPEN's optional parameters (RFC 5492, RFC 9072)."""
    is_wide = len(parameters) >= 4 and parameters[0] == parameters[1] == _EXTENDED_OPT
    at, width = (4, 2) if is_wide else (1, 1)
    while at + 1 + width <= len(parameters):
        kind, length = parameters[at], int.from_bytes(parameters[at + 1 : at + 1 + width], "big")
        at += 1 + width
        inner, at = at, at + length
        while kind == _CAPABILITIES and inner + 2 <= min(at, len(parameters)):
            size = parameters[inner + 1]
            yield parameters[inner], parameters[inner + 2 : inner + 2 + size]
            inner += 2 + size
