"""A provider that is none: `python -m infra.provider.simulator [MODE] [PORT]`, with the API of openapi.json.

It says its port on a line of its own. `PUT /simulator/mode/MODE` changes how it behaves while it runs:

    honest    does what it is asked, at once
    slow      answers after five seconds
    hangs     takes the request and never answers
    garbage   answers with something else than JSON
    wrong     answers with JSON that is not what the API describes
    broken    answers 500
    yes       says yes, and does nothing
    moved     redirects to somewhere else
    endless   never stops answering
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from aiohttp import web

from schemas.errors import ConfigError

USUAL_BPS: Final = 1_000_000_000
MODES: Final = ("honest", "slow", "hangs", "garbage", "wrong", "broken", "yes", "moved", "endless")
_SLOW_S: Final = 5.0
_TOKEN: Final = "simulated"  # noqa: S105 - it guards nothing


class Provider:
    """Circuits are made when they are first asked for."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.circuits: dict[str, int] = {}
        self.orders: dict[str, dict[str, Any]] = {}  # by Idempotency-Key
        self.requests: list[dict[str, Any]] = []

    def application(self) -> web.Application:
        """Its routes."""
        app = web.Application(middlewares=[self._misbehave])
        app.router.add_get("/v1/circuits/{circuit}", self._circuit)
        app.router.add_put("/v1/circuits/{circuit}/bandwidth", self._order)
        app.router.add_put("/simulator/mode/{mode}", self._change)
        app.router.add_get("/simulator/requests", self._requests)
        return app

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith("/simulator/"):
            return await handler(request)  # type: ignore[no-any-return]
        if request.headers.get("Authorization") != f"Bearer {_TOKEN}":
            return web.json_response({"error": "who are you?"}, status=401)
        self.requests.append({"method": request.method, "path": request.path})
        match self.mode:
            case "slow":
                await asyncio.sleep(_SLOW_S)
            case "hangs":
                await asyncio.Event().wait()
            case "garbage":
                return web.Response(body=b"\x00<html>maintenance</html>", content_type="application/json")
            case "wrong":
                return web.json_response({"circuit": ["?"], "bandwidth_bps": "a lot", "order": 7})
            case "broken":
                return web.json_response({"error": "try again"}, status=500)
            case "moved":
                raise web.HTTPTemporaryRedirect(f"/simulator/mode/{self.mode}")
            case "endless":
                return await self._endless(request)
        return await handler(request)  # type: ignore[no-any-return]

    @staticmethod
    async def _endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    async def _circuit(self, request: web.Request) -> web.Response:
        circuit = request.match_info["circuit"]
        return web.json_response({"circuit": circuit, "bandwidth_bps": self.circuits.setdefault(circuit, USUAL_BPS)})

    async def _order(self, request: web.Request) -> web.Response:
        circuit, key = request.match_info["circuit"], request.headers.get("Idempotency-Key", "")
        try:
            wanted = (await request.json())["bandwidth_bps"]
        except (ValueError, LookupError, TypeError):
            wanted = None
        if not isinstance(wanted, int) or wanted < 1 or not key:
            return web.json_response({"error": "bandwidth_bps and an Idempotency-Key are needed"}, status=400)
        if key not in self.orders:
            self.orders[key] = {"order": f"order-{len(self.orders) + 1}", "circuit": circuit, "bandwidth_bps": wanted}
            if self.mode != "yes":
                self.circuits[circuit] = wanted
        return web.json_response(self.orders[key], status=202)

    async def _change(self, request: web.Request) -> web.Response:
        if request.match_info["mode"] not in MODES:
            return web.json_response({"error": f"one of {', '.join(MODES)}"}, status=404)
        self.mode = request.match_info["mode"]
        return web.json_response({"mode": self.mode})

    async def _requests(self, _request: web.Request) -> web.Response:
        return web.json_response({"requests": self.requests, "orders": self.orders, "circuits": self.circuits})


async def serve(mode: str, port: int) -> None:
    """Until the process is ended; loopback only."""
    runner = web.AppRunner(Provider(mode).application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    (host, its_port, *_), *_ = runner.addresses
    sys.stdout.write(json.dumps({"url": f"http://{host}:{its_port}", "token": _TOKEN}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    mode, port = (*sys.argv[1:], *("honest", "0")[len(sys.argv) - 1 :])[:2]
    if mode not in MODES:
        raise ConfigError([f"mode {mode} is unknown"], do=f"one of {', '.join(MODES)}")
    asyncio.run(serve(mode, int(port)))
