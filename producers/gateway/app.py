"""The application: parts and routes put together, guarded and counted, and the document that describes it truly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producers.gateway import guards, page
from producers.gateway.gauges import Gauges
from producers.gateway.metrics import Injection
from producers.gateway.models import Problem, body_adapter
from producers.gateway.rankings import Rankings
from producers.gateway.routes import Parts, Reached, router
from producers.gateway.tokens import TokenBook
from producers.publisher import Publisher
from schemas.config import Gateway
from schemas.records import FailoverRanking

_ABOUT: Final = """Metrics that you know better than Proxima's probes go in; rankings of failover targets come out.

Every error is `application/problem+json`. 429 and 503 carry `Retry-After`."""


class Subscription(Protocol):
    """To the rankings."""

    @property
    def is_alive(self) -> bool:
        """Whether it still tells what comes."""

    def close(self) -> None:
        """It tells nothing more."""


Subscribe = Callable[[Callable[[Sequence[FailoverRanking]], None]], Subscription]


def make_app(settings: Gateway, publisher: Publisher, tokens: TokenBook, subscribe: Subscribe) -> Application:
    """`subscribe(heard)` begins to tell of rankings, some of one primary at a time: first the last that are there."""
    gauges = Gauges(lambda: publisher.stats.in_flight)
    gauges.stale_tokens.set_function(lambda: tokens.is_stale)
    adapter = body_adapter(settings.batch_max)
    injection = Injection(settings, adapter, publisher, gauges)
    parts = Parts(settings, tokens, injection, Reached(publisher), gauges)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        parts.rankings = Rankings(settings, gauges)
        subscription = await asyncio.to_thread(subscribe, parts.rankings.heard)
        parts.hears = lambda: subscription.is_alive
        try:
            yield
        finally:
            await asyncio.to_thread(subscription.close)

    app = FastAPI(
        title="Proxima gateway", version="1", description=_ABOUT, lifespan=lifespan,
        docs_url=None, redoc_url=None,  # FastAPI's pages run scripts of another origin
        redirect_slashes=False,  # it would lead to what the Host header names, in the clear behind whatever ends TLS
    )  # fmt: skip
    app.state.parts = parts
    app.include_router(router)
    guards.install(app)
    body = adapter.json_schema(ref_template="#/components/schemas/{model}")
    app.openapi = lambda: document(app, body)  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return page.answer(app.openapi())

    return Application(guards.Guard(app, settings.body_bytes_max), parts)


def document(app: FastAPI, body: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document, with what the body's own validator says of it, and problems as they are."""
    if app.openapi_schema is None:
        made = FastAPI.openapi(app)
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        schemas |= body["$defs"]
        schemas["Problem"] = Problem.model_json_schema(mode="serialization")
        for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which no answer has
            schemas.pop(name, None)
        content = made["paths"]["/v1/metrics"]["post"]["requestBody"]["content"]
        content["application/json"]["schema"] = {name: part for name, part in body.items() if name != "$defs"}
        app.openapi_schema = made
    return app.openapi_schema


class Application:
    """The whole of it: guarded, and every answer counted by route and status."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app, self._parts = app, parts

    def end_streams(self) -> None:
        """They have no end of their own."""
        if self._parts.rankings is not None:
            self._parts.rankings.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The route's own path, for a path that was asked for could be anything.
                route = getattr(scope.get("route"), "path", "none")
                self._parts.gauges.requests.labels(route, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counting)
