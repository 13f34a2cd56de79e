"""One router's BMP session: what its messages do to the table of routes.

Peers are told apart by distinguisher, address and kind; a peer's tables (before and after policy) by the flags of each
message. What the router says to its peers (RFC 8671), and its own routes, which FRR gives peer 0.0.0.0, is counted and
not followed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from producers.routes import bmp
from producers.routes.following import Families
from producers.routes.paths import AsPath
from producers.routes.table import Peer, RouteTable
from producers.routes.update import Encoding, Said, decode
from schemas.records import View

log = logging.getLogger(__name__)

SKIPPED_BYTES_MAX: Final = 1 << 20  # without a message among them: looking for one costs time that is others' too
_TABLES_A_PEER_MAX: Final = 8  # flags differ by table, and numbers when the peer comes back as somebody else
_OURSELVES: Final = ("0.0.0.0", "::")  # noqa: S104 - no address to listen on


@dataclass(slots=True)
class Heard:
    """What a session was, in numbers."""

    messages: int = 0
    announced: int = 0
    withdrawn: int = 0
    unparsed: int = 0
    ignored: int = 0  # about peers beyond the bound
    skipped_bytes: int = 0
    resyncs: int = 0


@dataclass(slots=True, eq=False)
class _Monitored:
    """A peer as this session knows it; `peer` is None when there are too many."""

    peer: Peer | None
    came_up_with: int | None = None  # a hash of ports and OPENs: another session of the peer has others
    add_path: frozenset[int] = frozenset()  # by what its OPENs say
    own_as: int = 0  # the router's own number towards it; 0: not known, or the same as the peer's


class _Table(NamedTuple):
    """Where the routes of a per-peer header go."""

    monitored: _Monitored
    view: View | None
    encoding: Encoding


class BmpSession:
    """Takes the bytes of one router; raises on none of them."""

    def __init__(self, address: str, table: RouteTable, families: Families, peers_max: int) -> None:
        self.heard = Heard()
        self.over_because = ""  # why nothing more is to be heard of it
        self.router = address
        self._address, self._table, self._families = address, table, families
        self._peers_max = peers_max
        self._framing = bmp.Framing()
        self._peers: dict[bytes, _Monitored] = {}  # by identity
        self._tables: dict[bytes, _Table] = {}  # by the per-peer header

    def take(self, received: bytes, at_ms: int) -> None:
        """Bytes that arrived at `at_ms` (Unix time)."""
        heard = self.heard
        for message in self._framing.feed(received):
            heard.messages += 1
            if message.kind == bmp.ROUTE_MONITORING:
                self._routes(message, at_ms)
            elif message.kind in (bmp.PEER_UP, bmp.PEER_DOWN):
                self._peer_changed(message, at_ms)
            elif message.kind == bmp.INITIATION:
                name = bmp.system_name(message)
                if name and not self._peers:  # what was told under one name is not found under another
                    self.router = name
            elif message.kind == bmp.TERMINATION:
                self.over_because = "the router ended it"
            elif message.kind not in (bmp.STATISTICS, bmp.MIRRORING):
                heard.unparsed += 1
        if self._framing.resyncs and not heard.resyncs:
            log.warning("%s (%s): bytes that are no BMP message; looking for the next one", self.router, self._address)
        heard.skipped_bytes, heard.resyncs = self._framing.skipped, self._framing.resyncs
        if self._framing.skipped_in_a_row > SKIPPED_BYTES_MAX:
            self.over_because = "it sends no BMP"  # a router comes back and says everything anew

    def end(self, at_ms: int) -> None:
        """Nothing more comes: what is known of the router's peers is forgotten."""
        self._table.lose(self.router, [m.peer for m in self._peers.values() if m.peer is not None], at_ms)
        self._peers.clear()
        self._tables.clear()

    def _routes(self, message: bmp.Message, at_ms: int) -> None:
        body = bmp.update_body(message)
        if body is None:
            self.heard.unparsed += 1
            return
        key = message.data[message.at : message.at + bmp.PER_PEER_KEY_BYTES]
        known = self._tables.get(key)
        if known is None:
            known = self._open(key, at_ms)
        monitored, view, encoding = known
        update = decode(message.data, *body, self._families, encoding)
        if update.flaw and encoding.add_path:
            # Some routers negotiate path identifiers, and leave them out here.
            without = decode(message.data, *body, self._families, Encoding(encoding.as_width))
            update = update if without.flaw else without
        if update.followed and monitored.own_as:
            own_as = monitored.own_as
            followed = [Said(to, path_id, _without(path, own_as)) for to, path_id, path in update.followed]
            update = update._replace(followed=followed)
        heard = self.heard
        heard.announced += update.announced
        heard.withdrawn += update.withdrawn
        if update.flaw:
            heard.unparsed += 1
        if monitored.peer is None:
            heard.ignored += 1
        else:
            self._table.take(monitored.peer, view, update, at_ms)

    def _peer_changed(self, message: bmp.Message, at_ms: int) -> None:
        key = message.data[message.at : message.at + bmp.PER_PEER_KEY_BYTES]
        header = bmp.per_peer(key)
        if header.address in _OURSELVES and not header.is_loc_rib:
            return
        monitored = self._peers.get(header.identity)
        if message.kind == bmp.PEER_DOWN:
            if monitored is not None and monitored.peer is not None:
                monitored.came_up_with = None
                self._table.down(monitored.peer, at_ms)
            return
        if monitored is None:
            monitored = self._meet(header, at_ms)
        came_up_with = hash(message.data[message.at + bmp.PER_PEER_BYTES : message.end])
        if monitored.peer is None or came_up_with == monitored.came_up_with:
            return  # FRR says it twice; its routes are not said again
        if monitored.came_up_with is not None:
            self._table.down(monitored.peer, at_ms)
        monitored.came_up_with, monitored.add_path = came_up_with, bmp.add_path_families(message)
        own_as = bmp.own_as(message)
        monitored.own_as = own_as if own_as != header.peer_as else 0
        for header_key in [k for k, known in self._tables.items() if known.monitored is monitored]:
            del self._tables[header_key]  # its encoding may be another now
        self._table.up(monitored.peer, at_ms)

    def _open(self, key: bytes, at_ms: int) -> _Table:
        header = bmp.per_peer(key)
        monitored = self._peers.get(header.identity) or self._meet(header, at_ms)
        view: View | None = View.PRE_POLICY
        if header.is_loc_rib:
            view = View.LOC_RIB
        elif header.is_outward or header.address in _OURSELVES:
            view = None
        elif header.is_post_policy:
            view = View.POST_POLICY
        opened = _Table(monitored, view, Encoding(header.as_width, monitored.add_path))
        if len(self._tables) < _TABLES_A_PEER_MAX * len(self._peers):  # else each made-up header would stay
            self._tables[key] = opened
        return opened

    def _meet(self, header: bmp.PerPeer, at_ms: int) -> _Monitored:
        """A peer that was not heard of before."""
        if len(self._peers) >= self._peers_max:
            if not self.heard.ignored:
                log.warning("%s: too many peers; the rest is not followed: raise routes.peers_max", self.router)
            self.heard.ignored += 1
            return _Monitored(None)
        monitored = _Monitored(self._table.add(self.router, header.address, header.peer_as, at_ms))
        self._peers[header.identity] = monitored
        return monitored


@lru_cache(maxsize=4096)
def _without(path: AsPath | None, own_as: int) -> AsPath | None:
    """FRR puts its own number before the path of an external peer, where no other can have put it."""
    if path is None or path.ases[:1] != (own_as,):
        return path
    return AsPath(path.ases[1:], path.length - 1)
