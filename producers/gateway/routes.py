"""The routes, and who may take them. What they work with stands in the application's state (`Parts`)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.responses import Response

from producers.gateway.gauges import Gauges
from producers.gateway.guards import PROBLEM, Refused
from producers.gateway.limits import retry_after
from producers.gateway.metrics import RETRY_S, TOPIC, Injection
from producers.gateway.models import Accepted, Health
from producers.gateway.rankings import LAST_EVENT_ID, Rankings, sequences
from producers.gateway.tokens import Token, TokenBook
from producers.publisher import Publisher
from schemas.config import Gateway
from schemas.validate import REGION_ID

_REACH_S: Final = 1.0  # so long may the broker take to answer /readyz, ...
_REACHED_FOR_S: Final = 1.0  # ... and so long is its answer good
_KEY: Final = r"^[\x21-\x7e]{1,128}$"
_ID: Final = f"^{REGION_ID.pattern}$"
PROBLEM_REF: Final = "#/components/schemas/Problem"


class Reached:
    """Whether the broker answers; asked once for all who want to know at the same time."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher, self._lock = publisher, asyncio.Lock()
        self._at_s, self._answer = -1e9, False

    async def __call__(self) -> bool:
        async with self._lock:
            if time.monotonic() - self._at_s > _REACHED_FOR_S:
                self._answer = await asyncio.to_thread(self._publisher.reaches, TOPIC, _REACH_S)
                self._at_s = time.monotonic()
            return self._answer


@dataclass(slots=True)
class Parts:
    """What the routes work with; `rankings`, and whether more of them are heard, from start-up on."""

    settings: Gateway
    tokens: TokenBook
    injection: Injection
    reached: Reached
    gauges: Gauges
    rankings: Rankings | None = None
    hears: Callable[[], bool] = field(default=lambda: False)

    @property
    def heard(self) -> Rankings:
        """The rankings, which are there since start-up."""
        assert self.rankings is not None  # noqa: S101 - told to the type checker
        return self.rankings


# Dependencies are `async`, though they wait for nothing: FastAPI would run any other in a thread, twice a request.
async def _parts(request: Request) -> Parts:
    return request.app.state.parts  # type: ignore[no-any-return]


Working = Annotated[Parts, Depends(_parts)]
_SCHEME: Final = HTTPBearer(auto_error=False, description="`proxima gateway token new`", scheme_name="token")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)]


async def _bearer(parts: Working, credentials: Credentials) -> Token:
    row = parts.tokens.find(credentials.credentials) if credentials is not None else None
    if row is None:
        headers = {"WWW-Authenticate": "Bearer"}
        raise Refused(HTTPStatus.UNAUTHORIZED, "no such token: Authorization: Bearer px_...", headers=headers)
    return row


Bearer = Annotated[Token, Depends(_bearer)]


async def _reader(row: Bearer) -> Token:
    if not row.reads:
        raise Refused(HTTPStatus.FORBIDDEN, "this token may not read")
    return row


Reader = Annotated[Token, Depends(_reader)]
RegionId = Annotated[str, Query(pattern=_ID)]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    later = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM: {"schema": {"$ref": PROBLEM_REF}}},
            **({"headers": later} if status in (429, 503) else {}),
        }
        for status in statuses
    }


def _answers(what: str, media_type: str, kind: str, *problems: int) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": what, "content": {media_type: {"schema": {"type": kind}}}}, **_problems(*problems)}


router = APIRouter()


@router.post(
    "/v1/metrics",
    status_code=202,
    response_model=Accepted,
    summary="Inject one metric, or a batch",
    responses=_problems(401, 403, 413, 415, 422, 429, 503),
    openapi_extra={
        "security": [{_SCHEME.scheme_name: []}],
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "pattern": _KEY},
            }
        ],
        # The schema is that of the validator itself: `app.document`.
        "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
    },
)
async def post_metrics(request: Request) -> Response:
    """202 when the broker has confirmed all of them, and not before. The same `Idempotency-Key` with the same body
    gives the same answer and no second record.
    """
    # Taken from the request here, and not by FastAPI's dependencies, which would take a sixth of what one metric costs.
    parts = await _parts(request)
    row = await _bearer(parts, await _SCHEME(request))
    idempotency_key = request.headers.get("idempotency-key")
    if idempotency_key is not None and re.fullmatch(_KEY, idempotency_key) is None:
        mistakes = [f"header.idempotency-key: should match {_KEY}"]
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "the request is not as it should be", mistakes=mistakes)
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        what = f"a body in {encoding[:40]!r} is not read: send it as it is"
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, what, headers={"Accept-Encoding": "identity"})
    count, repeated = await parts.injection.accept(row, await request.body(), idempotency_key)
    headers = {"Idempotency-Replayed": "true"} if repeated else None
    return Response(f'{{"accepted":{count}}}', 202, headers, media_type="application/json")


@router.get(
    "/v1/rankings/stream",
    summary="All rankings, as they come",
    response_class=Response,
    responses=_answers("Server-sent events of type `ranking`", "text/event-stream", "string", 401, 403, 422, 429, 503),
)
async def stream(
    parts: Working,
    row: Reader,
    credentials: Credentials,
    primary: Annotated[list[RegionId] | None, Query(max_length=100, description="only these")] = None,
    last_event_id: Annotated[str | None, Header(pattern=LAST_EVENT_ID, max_length=65_536)] = None,
) -> Response:
    """Each event's id says what its subscriber has by then; with it as `Last-Event-ID`, it gets what it missed."""
    for each in primary or ():
        _in_scope(row, each)
    if parts.heard.is_full:
        what = f"{parts.settings.streams_max} subscribe already"
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, what, headers={"Retry-After": retry_after(RETRY_S)})
    if parts.heard.has_enough(row.token_id):
        what = f"this token has {parts.settings.token_streams_max} streams open already"
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, what, headers={"Retry-After": retry_after(RETRY_S)})
    text = credentials.credentials if credentials is not None else ""

    def is_known() -> bool:  # and may what it might when the stream began
        return parts.tokens.find(text) == row

    return parts.heard.subscribe(row.token_id, row.may_see, sequences(last_event_id or ""), primary or (), is_known)


@router.get(
    "/v1/rankings/{primary}",
    summary="The latest ranking of a primary",
    response_class=Response,
    responses=_answers(
        "A FailoverRanking, as `schemas/avsc` describes it", "application/json", "object", 401, 403, 404, 422
    ),
)
async def ranking(
    parts: Working,
    row: Reader,
    primary: Annotated[str, Path(pattern=_ID, description="the region whose failover it is about")],
) -> Response:
    """It is stale `stale_after_ms` after its `decided_at_ms`."""
    _in_scope(row, primary)
    text = parts.heard.latest(primary)
    if text is None:
        raise Refused(HTTPStatus.NOT_FOUND, f"nothing has been decided about {primary}")
    return Response(text, media_type="application/json", headers={"Cache-Control": "no-store"})


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Whether it lives", response_model=Health)
async def healthz() -> Response:
    """It does."""
    return Response('{"status":"ok"}', media_type="application/json")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Whether it can take metrics", response_model=Health, responses=_problems(503))
async def readyz(parts: Working) -> Response:
    """While the broker does not answer, it cannot; and rankings have to be heard."""
    what = "rankings are heard no more: the log says why" if not parts.hears() else ""
    if not await parts.reached():
        what = "the broker does not answer, or has no topic for metrics"
    if what:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, what, headers={"Retry-After": retry_after(RETRY_S)})
    return Response('{"status":"ok"}', media_type="application/json")


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    summary="What it counts, for Prometheus",
    response_class=Response,
    responses=_answers("Exposition format", "text/plain", "string"),
)
async def metrics(parts: Working) -> Response:
    """Nothing secret is in it; whoever reaches the address may read it."""
    return Response(parts.gauges.text(), media_type="text/plain; version=0.0.4")


def _in_scope(row: Token, primary: str) -> None:
    if not row.may_see(primary):
        raise Refused(HTTPStatus.FORBIDDEN, f"{primary} is beyond this token")
