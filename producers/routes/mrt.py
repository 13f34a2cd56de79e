"""MRT files (RFC 6396, RFC 8050): record by record, and what they add up to.

Plain, gzip or bzip2, by their first bytes. Read are BGP4MP and BGP4MP_ET: messages and state changes with AS numbers of
two and four octets, with and without path identifiers; and what was written before RFC 6396: the type BGP, and
Zebra's records without addresses. What is counted, and what not:

    announced, withdrawn   routes of UPDATEs, as update.py says; also of those whose record is cut short
    state_changes          BGP4MP_STATE_CHANGE and ..._AS4
    peers                  different pairs of peer address and AS number in records that could be read
    unparsed               records that could not be read, or not to their end, and those of other types (table dumps)

Other BGP messages (OPEN, KEEPALIVE, NOTIFICATION, ROUTE-REFRESH) are read and count as nothing. A file that ends within
a record is unparsed there; what stood before it counts.
"""

from __future__ import annotations

import bz2
import gzip
import ipaddress
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

from producers.routes.following import NOTHING, Families
from producers.routes.update import HEADER_BYTES, MARKER, MESSAGE_TYPES, UPDATE, Encoding, Update, decode
from schemas.errors import RouteError

BGP: Final = 5
BGP4MP: Final = 16
BGP4MP_ET: Final = 17
HEADER: Final = struct.Struct("!IHHI")
ESTABLISHED: Final = 6

# A BGP message has 65,535 octets at most (RFC 8654); more is a length that lies, and behind it nothing can be found.
RECORD_BYTES_MAX: Final = 1 << 24
_CHUNK_BYTES: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b\x08"
# The whole of it: a plain file of April 2005 begins with BZh, for its time.
_BZIP2: Final = re.compile(rb"BZh[1-9]1AY&SY")


class _Form(NamedTuple):
    """How a message's record is written, and who said what is in it."""

    encoding: Encoding
    is_from_peer: bool = True


_WITH_IDS: Final = frozenset((1, 2))
# By subtype. What the collector itself said (..._LOCAL) is counted, and followed by nobody.
_MESSAGES: Final = {
    1: _Form(Encoding(2)),
    4: _Form(Encoding(4)),
    6: _Form(Encoding(2), is_from_peer=False),
    7: _Form(Encoding(4), is_from_peer=False),
    8: _Form(Encoding(2, _WITH_IDS)),
    9: _Form(Encoding(4, _WITH_IDS)),
    10: _Form(Encoding(2, _WITH_IDS), is_from_peer=False),
    11: _Form(Encoding(4, _WITH_IDS), is_from_peer=False),
}
_STATE_CHANGES: Final = {0: 2, 5: 4}
_OLD_UPDATE: Final = 1
_OLD_STATE_CHANGE: Final = 3
_OLD_KEEPALIVE: Final = 7
_OLD_BYTES: Final = 12  # AS number and address of the peer, and of the collector
_ADDRESS_BYTES: Final = {1: 4, 2: 16}


class PeerKey(NamedTuple):
    """A peer as records name it: octets of its AS number, its address and the collector's."""

    peer_as: int
    peer: bytes
    local: bytes


class Entry(NamedTuple):
    """A record that could be read: an UPDATE, a state change (old and new state), or neither."""

    at_ms: int
    peer: PeerKey
    update: Update | None = None
    states: tuple[int, int] | None = None


@dataclass(slots=True)
class Counts:
    """What a file adds up to."""

    announced: int = 0
    withdrawn: int = 0
    state_changes: int = 0
    unparsed: int = 0
    seen: set[tuple[int, bytes]] = field(default_factory=set)

    @property
    def peers(self) -> int:
        return len(self.seen)


class MrtReader:
    """The entries of a file, counted as they go by."""

    def __init__(self, path: Path, families: Families = NOTHING) -> None:
        """Raises RouteError: there is no such file, or it may not be read."""
        self.counts = Counts()
        self._families = families
        self._path = path
        try:
            self._file = _open(path)
        except OSError as error:
            raise RouteError(f"the file cannot be read: {error.strerror}", where=str(path)) from None

    def __iter__(self) -> Iterator[Entry]:
        counts = self.counts
        with self._file as file:
            for at_s, kind, subtype, body in _records(file, counts):
                entry = _entry(at_s, kind, subtype, body, self._families)
                if entry is None:
                    counts.unparsed += 1
                    continue
                if entry.peer.peer:
                    counts.seen.add(entry.peer[:2])
                update = entry.update
                if update is not None:
                    counts.announced += update.announced
                    counts.withdrawn += update.withdrawn
                    counts.unparsed += bool(update.flaw)
                elif entry.states is not None:
                    counts.state_changes += 1
                yield entry


def address_of(octets: bytes) -> str:
    """An address as people write it."""
    return str(ipaddress.ip_address(octets)) if len(octets) in (4, 16) else ""


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        start = file.read(10)
    if start.startswith(_GZIP):
        return cast(IO[bytes], gzip.open(path))
    return cast(IO[bytes], bz2.open(path)) if _BZIP2.match(start) else path.open("rb")


def _records(file: IO[bytes], counts: Counts) -> Iterator[tuple[int, int, int, bytes]]:
    """Time, type, subtype and contents of each record; what the file ends with and is none counts as unparsed."""
    data, at = b"", 0
    while True:
        if len(data) - at >= HEADER.size:
            at_s, kind, subtype, length = HEADER.unpack_from(data, at)
            if length > RECORD_BYTES_MAX:
                counts.unparsed += 1
                return
            end = at + HEADER.size + length
            if end <= len(data):
                yield at_s, kind, subtype, data[at + HEADER.size : end]
                at = end
                continue
        more = _read(file, counts)
        if not more:
            counts.unparsed += at < len(data)
            return
        data, at = data[at:] + more, 0


def _read(file: Any, counts: Counts) -> bytes:
    """The next bytes; none when what is compressed is broken, which leaves something unparsed."""
    try:
        return cast(bytes, file.read(_CHUNK_BYTES))
    except (OSError, EOFError, zlib.error, ValueError):
        counts.unparsed += 1
        return b""


def _entry(at_s: int, kind: int, subtype: int, body: bytes, families: Families) -> Entry | None:
    """A record's contents (RFC 6396, 4.4); None for what is none, or cannot be read."""
    at, at_ms = 0, at_s * 1000
    if kind == BGP4MP_ET:
        at_ms += int.from_bytes(body[:4], "big") // 1000  # microseconds
        at = 4
    elif kind != BGP4MP:
        return _old_entry(at_ms, subtype, body, families) if kind == BGP else None
    message = _MESSAGES.get(subtype)
    as_width = message.encoding.as_width if message is not None else _STATE_CHANGES.get(subtype, 0)
    if not as_width:
        return None
    peer_as = int.from_bytes(body[at : at + as_width], "big")
    at += 2 * as_width  # and the collector's AS number
    width = _ADDRESS_BYTES.get(int.from_bytes(body[at + 2 : at + 4], "big"))  # behind the interface
    if width is None or len(body) < at + 4 + 2 * width:
        return _zebra_entry(Entry(at_ms, PeerKey(peer_as, b"", b"")), body[at:], is_state_change=message is None)
    at += 4
    peer = PeerKey(peer_as, body[at : at + width], body[at + width : at + 2 * width])
    at += 2 * width
    if message is None:
        return Entry(at_ms, peer, states=_states(body[at:])) if len(body) - at == 4 else None
    families = families if message.is_from_peer else NOTHING
    return _message(Entry(at_ms, peer), body, at, families, message.encoding)


def _zebra_entry(entry: Entry, rest: bytes, *, is_state_change: bool) -> Entry | None:
    """What Zebra wrote in the first years, without addresses: state changes, and OPENs right behind the AS numbers."""
    if is_state_change:
        return entry._replace(states=_states(rest)) if len(rest) == 4 else None
    return entry if rest.startswith(MARKER) else None


def _old_entry(at_ms: int, subtype: int, body: bytes, families: Families) -> Entry | None:
    """A record of the type before BGP4MP (RFC 6396, B.2): UPDATEs without their header, of IPv4 peers."""
    peer = PeerKey(int.from_bytes(body[:2], "big"), body[2:6], body[8:12])
    if subtype == _OLD_UPDATE and len(body) >= _OLD_BYTES:
        return Entry(at_ms, peer, decode(body, _OLD_BYTES, len(body), families, Encoding(2)))
    if subtype == _OLD_STATE_CHANGE and len(body) == 10:
        return Entry(at_ms, peer._replace(local=b""), states=_states(body[6:]))
    return Entry(at_ms, peer) if subtype == _OLD_KEEPALIVE and len(body) == _OLD_BYTES else None


def _states(octets: bytes) -> tuple[int, int]:
    return octets[0] << 8 | octets[1], octets[2] << 8 | octets[3]


def _message(entry: Entry, body: bytes, at: int, families: Families, encoding: Encoding) -> Entry | None:
    """The entry with the BGP message at `at`; None if there is none."""
    if len(body) < at + HEADER_BYTES or not body.startswith(MARKER, at):
        return None
    length, kind = body[at + 16] << 8 | body[at + 17], body[at + 18]
    if length < HEADER_BYTES or kind not in MESSAGE_TYPES:
        return None
    if kind != UPDATE:
        return entry
    end = at + length
    update = decode(body, at + HEADER_BYTES, min(end, len(body)), families, encoding)
    if end > len(body) and not update.flaw:
        update = update._replace(followed=(), flaw="the record is shorter than its message")
    return Entry(entry.at_ms, entry.peer, update)
