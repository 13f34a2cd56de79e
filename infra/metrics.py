"""What others may ask of a role, at the address of `[metrics]`:

    /metrics   what it counts, its breakers, and the process itself, for Prometheus
    /healthz   200 while its loop moves; 503 with the reason: only a new process helps
    /readyz    200 while it does its work; 503 with the reasons

A worker's stages are processes of their own: intake answers at `[metrics] port`, decide at the next, overview at the
one after, and the supervisor of several stages at the third after, whichever of them run.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from schemas import observed
from schemas.config import Metrics
from schemas.errors import ConfigError

log = logging.getLogger(__name__)

PORT_OF: Final = {"intake": 0, "decide": 1, "overview": 2, "supervisor": 3}  # above [metrics] port
_REQUEST_S: Final = 5.0  # from connection to answer
_AT_ONCE_MAX: Final = 8
_THREADS_MAX: Final = 2 * _AT_ONCE_MAX  # with those that were hung up on and have not noticed yet
_AGAIN_S: Final = 2.0


def registry() -> CollectorRegistry:
    """All that a role shows."""
    found = CollectorRegistry()
    observed.register_all(found)
    return found


def serve_metrics(settings: Metrics, role: str) -> None:
    """Answer from threads, until the process ends. Raises ConfigError: the address cannot be had."""
    if not settings.port:
        return
    try:
        _serve(settings.listen, settings.port, role)
    except OSError as error:
        where = f"metrics: {settings.listen}:{settings.port} cannot be had: {error.strerror or error}"
        raise ConfigError([where], do="give another metrics.port") from error


def serve_stage_metrics(settings: Metrics, stage: str) -> None:
    """The same for a stage, or the supervisor: they work without, and try again while the address is taken."""
    if not settings.port:
        return
    port, over = settings.port + PORT_OF[stage], threading.Event()

    def serve() -> None:
        told = False
        while True:
            try:
                _serve(settings.listen, port, stage)
            except OSError as error:
                if not told:
                    log.warning("metrics: %s:%d cannot be had: %s", settings.listen, port, error.strerror or error)
                told = True
                over.wait(_AGAIN_S)
            else:
                return

    threading.Thread(target=serve, name="metrics", daemon=True).start()


def _serve(listen: str, port: int, role: str) -> None:
    server = _Server(listen, port, role)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Server(ThreadingHTTPServer):
    """A few requests at a time, each for a few seconds; who comes beyond that takes the place of the oldest."""

    daemon_threads = True
    request_queue_size = 64  # of 5, a few at once already wait for seconds

    def __init__(self, listen: str, port: int, role: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in listen else socket.AF_INET
        self.role, self.shown = role, registry()
        self._room = threading.BoundedSemaphore(_THREADS_MAX)
        self._lock = threading.Lock()
        self._open: dict[Any, float] = {}  # connections and when each began, the oldest first
        super().__init__((listen, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            if len(self._open) >= _AT_ONCE_MAX:
                self._hang_up(next(iter(self._open)))
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:  # nobody hangs up on what is closed, and perhaps another's by now
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: hang up on who took too long, however busily."""
        with self._lock:
            for request, begun_s in list(self._open.items()):
                if time.monotonic() - begun_s > _REQUEST_S:
                    self._hang_up(request)

    def _hang_up(self, request: Any) -> None:
        """Its thread notices, and closes."""
        del self._open[request]
        with suppress(OSError):  # who asked has gone
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked has gone, or was too slow: nothing to say about that."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_S
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.server.shown))
        elif path == "/healthz":
            self._tell(observed.stuck())
        elif path == "/readyz":
            self._tell(observed.unready())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "application/json", b'{"status":"no such page"}\n')

    def _tell(self, reasons: list[str]) -> None:
        said = {"status": "failing" if reasons else "ok", "role": self.server.role, "reasons": reasons}
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        self._answer(status, "application/json", json.dumps(said).encode() + b"\n")

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Nothing: a line a scrape is no news."""

    def version_string(self) -> str:
        return "proxima"
