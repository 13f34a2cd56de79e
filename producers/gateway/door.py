"""The door: who connects is let in, and counted from then on, not first when its TLS handshake is through.

Uvicorn hears of a connection after its handshake, for which asyncio gives a minute. Whoever connects and says nothing
would meanwhile hold a descriptor and the buffers of a handshake (a quarter of a megabyte), and be counted by nobody.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sized
from contextlib import suppress
from typing import Any, Final

from schemas.config import Gateway

log = logging.getLogger(__name__)

_AGAIN_S: Final = 1.0  # no descriptor is left: one may be by then


class Door:
    """Lets connections in until it is shut; `inside` are those that were let in and have not left."""

    def __init__(
        self, settings: Gateway, make: Callable[[], asyncio.Protocol], inside: Sized, context: ssl.SSLContext | None
    ) -> None:
        self._make, self._inside, self._max = make, inside, settings.connections_max
        self._how: dict[str, Any] = {}
        if context is not None:
            times = dict.fromkeys(("ssl_handshake_timeout", "ssl_shutdown_timeout"), settings.request_s)
            self._how = {"ssl": context, **times}
        self._coming: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None

    def open(self, listener: socket.socket) -> None:
        """From now on."""
        listener.setblocking(False)
        self._keeper = asyncio.create_task(self._keep(listener), name="door")

    def check(self) -> None:
        """Raises what ended it, for nobody would be let in any more."""
        if self._keeper is not None and self._keeper.done():
            self._keeper.result()

    def shut(self) -> None:
        """Nobody more; who is inside stays."""
        for task in (self._keeper, *self._coming):
            if task is not None:
                task.cancel()

    async def _keep(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                log.error("cannot let anybody in: %s", error)
                await asyncio.sleep(_AGAIN_S)
                continue
            if len(self._coming) + len(self._inside) >= self._max:
                connection.close()
            else:
                task = asyncio.create_task(self._let_in(loop, connection))
                self._coming.add(task)
                task.add_done_callback(self._coming.discard)
            await asyncio.sleep(0)  # with many at the door those inside would have to wait

    async def _let_in(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        with suppress(OSError):  # it left, was no TLS or too slow: ssl.SSLError is one
            await loop.connect_accepted_socket(self._make, connection, **self._how)
