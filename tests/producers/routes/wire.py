"""BGP, MRT and BMP as their speakers write them: the other direction of what is decoded, for tests and benchmarks."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from typing import Final

Prefix = str | tuple[str, int]  # with a path identifier

MARKER: Final = b"\xff" * 16
ORIGIN_IGP: Final = bytes((0x40, 1, 1, 0))
NEXT_HOP: Final = bytes((0x40, 3, 4, 192, 0, 2, 1))
SEQUENCE: Final = 2
SET: Final = 1
CONFED_SEQUENCE: Final = 3
CONFED_SET: Final = 4


def nlri(*prefixes: Prefix) -> bytes:
    """Prefixes as NLRI, each behind its path identifier if it has one."""
    found = b""
    for prefix in prefixes:
        text, path_id = (prefix, None) if isinstance(prefix, str) else prefix
        network = ipaddress.ip_network(text)
        octets = network.network_address.packed[: (network.prefixlen + 7) // 8]
        found += (b"" if path_id is None else struct.pack("!I", path_id)) + bytes((network.prefixlen,)) + octets
    return found


def attribute(kind: int, value: bytes, flags: int = 0x40, *, extended: bool = False) -> bytes:
    """A path attribute; with a length of two octets where it needs one, or is asked for."""
    if extended or len(value) > 255:
        return bytes((flags | 0x10, kind)) + struct.pack("!H", len(value)) + value
    return bytes((flags, kind, len(value))) + value


def segment(kind: int, *ases: int, width: int = 4) -> bytes:
    return bytes((kind, len(ases))) + b"".join(number.to_bytes(width, "big") for number in ases)


def as_path(*ases: int, width: int = 4) -> bytes:
    """AS_PATH of one sequence."""
    return attribute(2, segment(SEQUENCE, *ases, width=width) if ases else b"")


def mp_reach(
    *prefixes: Prefix, afi: int = 2, safi: int = 1, next_hop: bytes = bytes(16), extended: bool = False
) -> bytes:
    value = struct.pack("!HBB", afi, safi, len(next_hop)) + next_hop + b"\0" + nlri(*prefixes)
    return attribute(14, value, 0x80, extended=extended)


def mp_unreach(*prefixes: Prefix, afi: int = 2, safi: int = 1) -> bytes:
    return attribute(15, struct.pack("!HB", afi, safi) + nlri(*prefixes), 0x80)


def body(announced: bytes = b"", attributes: bytes = b"", withdrawn: bytes = b"") -> bytes:
    """An UPDATE without its header."""
    lengths = struct.pack("!H", len(withdrawn)), struct.pack("!H", len(attributes))
    return lengths[0] + withdrawn + lengths[1] + attributes + announced


def message(kind: int, contents: bytes = b"") -> bytes:
    """A BGP message with its header."""
    return MARKER + struct.pack("!HB", 19 + len(contents), kind) + contents


def announce(*prefixes: Prefix, path: Sequence[int] = (65001,), width: int = 4) -> bytes:
    """An UPDATE that announces IPv4 prefixes."""
    return message(2, body(nlri(*prefixes), ORIGIN_IGP + as_path(*path, width=width) + NEXT_HOP))


def announce6(*prefixes: Prefix, path: Sequence[int] = (65001,)) -> bytes:
    return message(2, body(b"", mp_reach(*prefixes) + ORIGIN_IGP + as_path(*path)))


def withdraw(*prefixes: Prefix) -> bytes:
    return message(2, body(withdrawn=nlri(*prefixes)))


def withdraw6(*prefixes: Prefix) -> bytes:
    return message(2, body(attributes=mp_unreach(*prefixes)))


END_OF_RIB: Final = message(2, body())
KEEPALIVE: Final = message(4)


def capability(code: int, value: bytes) -> bytes:
    return bytes((2, 2 + len(value), code, len(value))) + value


def open_message(peer_as: int, *capabilities: bytes) -> bytes:
    """An OPEN; FRR puts each capability into a parameter of its own."""
    parameters = b"".join((capability(65, struct.pack("!I", peer_as)), *capabilities))
    start = struct.pack("!BHH4sB", 4, peer_as if peer_as < 65536 else 23456, 9, bytes(4), len(parameters))
    return message(1, start + parameters)


def add_path(mode: int, afi: int = 1) -> bytes:
    """The ADD-PATH capability: 1 receives, 2 sends, 3 does both."""
    return capability(69, struct.pack("!HBB", afi, 1, mode))


# -- MRT


def record(
    kind: int, subtype: int, contents: bytes, at_s: int = 1_280_000_000, microseconds: int | None = None
) -> bytes:
    if microseconds is not None:
        contents = struct.pack("!I", microseconds) + contents
    return struct.pack("!IHHI", at_s, kind, subtype, len(contents)) + contents


def bgp4mp(
    subtype: int,
    contents: bytes,
    *,
    peer_as: int = 65001,
    peer: str = "192.0.2.1",
    local: str = "192.0.2.254",
    width: int = 0,
    at_s: int = 1_280_000_000,
    microseconds: int | None = None,
) -> bytes:
    """A BGP4MP record, of BGP4MP_ET with microseconds."""
    width = width or (4 if subtype in (4, 5, 7, 9, 11) else 2)
    addresses = [ipaddress.ip_address(a) for a in (peer, local)]
    head = peer_as.to_bytes(width, "big") + (65000).to_bytes(width, "big")
    head += struct.pack("!HH", 0, 1 if addresses[0].version == 4 else 2) + b"".join(a.packed for a in addresses)
    return record(16 if microseconds is None else 17, subtype, head + contents, at_s, microseconds)


def state_change(old: int, new: int, subtype: int = 0, **more: object) -> bytes:
    return bgp4mp(subtype, struct.pack("!HH", old, new), **more)  # type: ignore[arg-type]


# -- BMP


def bmp(kind: int, contents: bytes, version: int = 3) -> bytes:
    return struct.pack("!BIB", version, 6 + len(contents), kind) + contents


def per_peer(
    address: str = "192.0.2.1",
    peer_as: int = 65001,
    *,
    kind: int = 0,
    flags: int = 0,
    at_s: int = 1_700_000_000,
    distinguisher: bytes = bytes(8),
) -> bytes:
    found = ipaddress.ip_address(address)
    flags |= 0x80 if found.version == 6 else 0
    return struct.pack("!BB", kind, flags) + distinguisher + found.packed.rjust(16, b"\0") + struct.pack(
        "!I4sII", peer_as, b"\1\1\1\1", at_s, 0
    )  # fmt: skip


def route_monitoring(update: bytes, **peer: object) -> bytes:
    return bmp(0, per_peer(**peer) + update)  # type: ignore[arg-type]


def peer_up(
    sent: bytes = open_message(65000), received: bytes = open_message(65001), port: int = 40000, **peer: object
) -> bytes:
    contents = bytes(16) + struct.pack("!HH", 179, port) + sent + received
    return bmp(3, per_peer(**peer) + contents)  # type: ignore[arg-type]


def peer_down(reason: int = 4, **peer: object) -> bytes:
    return bmp(2, per_peer(**peer) + bytes((reason,)))  # type: ignore[arg-type]


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value


def initiation(name: str = "edge-1") -> bytes:
    return bmp(4, tlv(1, b"FRRouting 8.4.4") + tlv(2, name.encode()))


def statistics(**peer: object) -> bytes:
    return bmp(1, per_peer(**peer) + struct.pack("!I", 1) + tlv(7, bytes(8)))  # type: ignore[arg-type]


TERMINATION: Final = bmp(5, tlv(1, struct.pack("!H", 1)))


def as_frr(prefixes: Iterable[str], address: str, peer_as: int, own_as: int = 65000) -> bytes:
    """What FRR 8.4 sends of a peer that has come up: Peer Up, a Route Monitoring a prefix, and end-of-RIB.

    It prepends its own AS number to the path, and gives the pre-policy view whole seconds.
    """
    found = [peer_up(open_message(own_as, add_path(1)), open_message(peer_as, add_path(1)), address=address,
                     peer_as=peer_as)]  # fmt: skip
    for prefix in prefixes:
        update = announce(prefix, path=(own_as, peer_as, 64999))
        found.append(route_monitoring(update, address=address, peer_as=peer_as))
    found.append(route_monitoring(END_OF_RIB, address=address, peer_as=peer_as))
    return b"".join(found)
