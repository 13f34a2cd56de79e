"""A connection, which has to be used: a request that does not come whole in time, or has no end, ends it.

Uvicorn's own deadline is for silence between two requests only; whoever sends half of one, and no more, would hold a
descriptor for ever, before anybody asked who it is. And its parser appends to a header, or to an address, whatever
comes of it: each read copies all that came before, so one header without end would soon take the whole event loop.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from producers.gateway.guards import problem
from schemas.config import Gateway

# Last-Event-ID of a subscriber to very many primaries. A read more may be taken, for they are counted by reads.
HEAD_BYTES_MAX: Final = 128 << 10


class Connection(HttpToolsProtocol):
    """Uvicorn's, with a deadline for each request, and bounds on what is no body."""

    def __init__(self, settings: Gateway, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._settings = settings
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # that came since the parser had something whole

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            detail = f"what is no body has {HEAD_BYTES_MAX} bytes at most"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
        elif self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            self._arm()
        else:
            self._disarm()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body and not self.cycle.response_complete:  # the next, half sent behind the one before
            self._arm()
        else:
            self._disarm()  # silence is uvicorn's

    def send_400_response(self, msg: str) -> None:
        """Of the parser."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """The last answer of this connection; none within an answer that has begun."""
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if answering or self.pipeline:
            self.transport.abort()
            return
        answer = problem(status, detail, headers={"Connection": "close"})
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
        lines += [b"%b: %b" % header for header in (*self.server_state.default_headers, *answer.raw_headers)]
        self.transport.write(b"\r\n".join([*lines, b"", answer.body]))
        self.transport.close()

    def _arm(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self._settings.request_s, self.transport.abort)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
