"""What stands before every route: a bound on the body, and errors as problem+json (RFC 9457), never a stack trace."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

PROBLEM = "application/problem+json"


class Refused(Exception):  # noqa: N818 - an answer, and no error of ours
    """A request that is answered with a problem."""

    def __init__(
        self, status: int, detail: str, *, mistakes: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.mistakes, self.headers = status, detail, tuple(mistakes), headers


def problem(
    status: int, detail: str, *, mistakes: Sequence[str] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """An answer that says what was wrong."""
    said = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    body = json.dumps({**said, "mistakes": list(mistakes)})
    return Response(body, status, dict(headers or {}), media_type=PROBLEM)


def install(app: FastAPI) -> None:
    """Every error of this application is a problem."""

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        return problem(error.status, error.detail, mistakes=error.mistakes, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        mistakes = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the request is not as it should be", mistakes=mistakes)

    @app.exception_handler(ClientDisconnect)
    async def left(_request: Request, _error: ClientDisconnect) -> Response:
        return problem(HTTPStatus.BAD_REQUEST, "the body ended too soon")  # counted; nobody is there to read it

    @app.exception_handler(Exception)
    async def ours(_request: Request, _error: Exception) -> Response:
        return _ours()  # and it is raised again, for the log


class Guard:
    """The outermost layer: a body within bounds, and whatever went wrong inside answered without its trace."""

    def __init__(self, app: ASGIApp, body_bytes_max: int) -> None:
        self._app, self._max = app, body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, self._bounded(scope, receive), sending)
        except Exception:
            log.exception("%s %s", scope["method"], scope["path"])
            if not begun:
                await _ours()(scope, receive, send)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive`, which gives up on a body that is too large: before it is read if it says so itself."""
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        declared = int(length) if length.isdigit() else 0
        read = 0

        async def receiving() -> Message:
            nonlocal read
            if declared > self._max:
                raise self._too_large()
            message: Any = await receive()
            read += len(message.get("body", b""))
            if read > self._max:
                raise self._too_large()
            return message  # type: ignore[no-any-return]

        return receiving

    def _too_large(self) -> Refused:
        return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has {self._max} bytes at most")


def _ours() -> Response:
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "a mistake of ours; the log says which")
