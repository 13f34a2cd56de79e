"""A webhook's receiver: a real HTTP(S) server that answers as it is told, and remembers what came."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from infra.processes import free_ports


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request, in the order of arrival."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float

    @property
    def ranking(self) -> dict[str, Any]:
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def primary(self) -> str:
        return self.ranking["primary_region"]  # type: ignore[no-any-return]

    @property
    def sequence(self) -> int:
        return self.ranking["sequence"]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` None: without end, until the other side has enough."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = b""
    after_s: float = 0.0


class Receiver:
    """At one port for its whole life; `down` and `up` turn it off and on. `answer` says what becomes of a request."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.answer: Callable[[Delivery], Answer] = lambda _: Answer()
        self.deliveries: list[Delivery] = []  # all that came
        self.accepted: list[Delivery] = []  # of these, answered 2xx
        self.body_bytes = 0  # sent in answers without end
        self.hanging_up = threading.Event()
        self._certificate = certificate
        (self.port,) = free_ports(1)
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self.port}/hook"

    def up(self) -> Self:
        self.hanging_up.clear()
        receiver = self

        class Handler(_Handler):
            pass

        Handler.receiver = receiver
        self._server = _Server(("127.0.0.1", self.port), Handler)
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
            # The handshake belongs to the request's thread: a client that gives up must not stop the others.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def down(self) -> None:
        if self._server is not None and self._thread is not None:
            self.hanging_up.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def sequences(self, *, accepted: bool = True) -> dict[str, list[int]]:
        """Each primary's, in the order of arrival."""
        found: dict[str, list[int]] = defaultdict(list)
        for delivery in list(self.accepted if accepted else self.deliveries):
            found[delivery.primary].append(delivery.sequence)
        return dict(found)


def certificate(folder: Path, name: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    stem = name.replace(":", "-")
    certificate, key = folder / f"{stem}.pem", folder / f"{stem}.key"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=receiver", "-addext", f"subjectAltName={name}",
            "-keyout", str(key), "-out", str(certificate)]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    return certificate, key


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up, or whose TLS failed, is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    receiver: Receiver
    timeout = 30

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        delivery = Delivery(self.path, headers, body, time.monotonic())
        self.receiver.deliveries.append(delivery)
        answer = self.receiver.answer(delivery)
        if answer.after_s and self.receiver.hanging_up.wait(answer.after_s):
            self.close_connection = True
            return
        if answer.status // 100 == 2:
            self.receiver.accepted.append(delivery)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.body is not None:
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            return
        self.end_headers()
        self.close_connection = True
        while not self.receiver.hanging_up.is_set():
            self.wfile.write(bytes(4096))
            self.receiver.body_bytes += 4096

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""
