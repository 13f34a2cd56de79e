"""BMP sessions on a socket, into the table: routers connect, a monitor only listens (RFC 7854, 3.2).

There is no way in BMP to ask for anything again but a new session: when other prefixes are to be followed, all sessions
are closed, and the routers come back and say everything anew.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from dataclasses import fields
from typing import Any, Final

from producers.routes.following import NOTHING, Families
from producers.routes.session import BmpSession, Heard
from producers.routes.table import RouteTable
from schemas import config
from schemas.errors import RouteError

log = logging.getLogger(__name__)

# A router that vanished without a word is noticed after so long; its routes are unknown from then on.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Listener:
    """Routers' sessions; make it where an event loop runs."""

    def __init__(self, settings: config.Routes, table: RouteTable, families: Families = NOTHING) -> None:
        self._settings, self._table, self._families = settings, table, families
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._ended = Heard()  # by all sessions that are over
        self.refused = 0

    @property
    def sessions(self) -> int:
        """How many routers are connected."""
        return len(self._connections)

    @property
    def heard(self) -> Heard:
        """What all sessions were since the start, in numbers."""
        sessions = [each.session for each in list(self._connections)]
        every = [self._ended, *(session.heard for session in sessions if session is not None)]
        return Heard(*(sum(getattr(each, f.name) for each in every) for f in fields(Heard)))

    async def open(self) -> int:
        """Listen; returns the port. Raises RouteError: the address is taken, or none of this machine's."""
        loop = asyncio.get_running_loop()
        where = f"{self._settings.listen}:{self._settings.port}"
        try:
            self._server = await loop.create_server(self._connection, self._settings.listen, self._settings.port)
        except (OSError, UnicodeError) as error:
            what = f"cannot listen for routers: {getattr(error, 'strerror', None) or error}"
            raise RouteError(what, where=where, do="give another address or port in [routes]") from None
        port: int = self._server.sockets[0].getsockname()[1]
        log.info("listening for BMP at %s:%d", self._settings.listen, port)
        return port

    def follow(self, families: Families) -> None:
        """Follow these prefixes from now on."""
        if families == self._families:
            return
        self._families = families
        for connection in list(self._connections):
            connection.close("the followed prefixes have changed")

    def close(self) -> None:
        """Listen no more; the routers' peers stay as they were last told, for nobody knows of a change."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.leave()

    def _connection(self) -> asyncio.Protocol:
        return _Connection(self)

    def admit(self, connection: _Connection, address: str) -> BmpSession | str:
        """The session of a router that may connect, else why it may not."""
        allow = self._settings.allow
        if allow and not any(_mapped(address) in network for network in allow):
            return "it is in none of routes.allow"
        if len(self._connections) >= self._settings.routers_max:
            return f"{self._settings.routers_max} sessions are open; routes.routers_max allows no more"
        self._connections.add(connection)
        return BmpSession(address, self._table, self._families, self._settings.peers_max)

    def left(self, connection: _Connection, session: BmpSession | None) -> None:
        """It is over."""
        self._connections.discard(connection)
        if session is not None:
            for each in fields(Heard):
                setattr(self._ended, each.name, getattr(self._ended, each.name) + getattr(session.heard, each.name))


class _Connection(asyncio.Protocol):
    """One router's."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._session: BmpSession | None = None
        self._why = "the router closed it"

    @property
    def session(self) -> BmpSession | None:
        """None: not admitted, or over."""
        return self._session

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""  # none: it has gone already
        admitted = self._listener.admit(self, address)
        if isinstance(admitted, str):
            self._listener.refused += 1
            log.warning("a BMP session from %s is refused: %s", address or "nowhere", admitted)
            transport.abort()
            return
        _keep_alive(transport.get_extra_info("socket"))
        self._session = admitted
        log.info("%s: BMP session open", address)

    def data_received(self, data: bytes) -> None:
        if self._session is None:
            return
        self._session.take(data, _now_ms())
        if self._session.over_because:
            self.close(self._session.over_because)

    def connection_lost(self, exc: Exception | None) -> None:
        session, self._session = self._session, None
        self._listener.left(self, session)
        if session is not None:
            session.end(_now_ms())
            log.warning("%s: BMP session over (%s): %s", session.router, exc or self._why, session.heard)

    def close(self, why: str) -> None:
        """End the session; what it told is unknown from now on."""
        self._why = why
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """End it because this process ends: nothing is said of its peers."""
        if self._session is not None:
            log.info("%s: BMP session left: %s", self._session.router, self._session.heard)
        self._session = None
        self.close("")


def _mapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as `routes.allow` has it: IPv4 on a socket of IPv6 is IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0] or "::")
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
