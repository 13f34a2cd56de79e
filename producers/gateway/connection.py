"""A connection, which has to be used: a request that does not come whole in time ends it.

Uvicorn's own deadline is for silence between two requests only; whoever sends half of one, and no more, would hold a
descriptor for ever, before anybody asked who it is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from schemas.config import Gateway


class Connection(HttpToolsProtocol):
    """Uvicorn's, with a deadline for each request."""

    def __init__(self, settings: Gateway, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._settings = settings
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            self._arm()
        else:
            self._disarm()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body and not self.cycle.response_complete:  # the next, half sent behind the one before
            self._arm()
        else:
            self._disarm()  # silence is uvicorn's

    def _arm(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self._settings.request_s, self.transport.abort)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
