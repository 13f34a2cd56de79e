"""The process of `proxima gateway`: until it is told to stop; then its streams end, and it leaves."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from producers.gateway.app import Application, Subscribe, make_app
from producers.gateway.connection import Connection
from producers.gateway.door import Door
from producers.gateway.tokens import TokenBook
from producers.publisher import Publisher
from schemas.config import Gateway, GatewayConfig
from schemas.errors import ConfigError, GatewayError

log = logging.getLogger(__name__)

_CONNECTIONS = 2048  # waiting to be accepted
_LEAVE_S = 10
_DESCRIPTORS = 65_536


def run(role: GatewayConfig, subscribe: Subscribe) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError: tokens or certificate; GatewayError: the address is taken;
    KafkaUnavailableError: the brokers refuse us.
    """
    # Confirmations come in the publisher's thread, which would wait 5 ms for its turn beside a busy event loop.
    sys.setswitchinterval(0.0005)
    _allow_descriptors()
    settings = role.gateway
    tokens = TokenBook(settings.tokens_file)
    publisher = Publisher(
        role.kafka.bootstrap,
        client_id="proxima-gateway",
        topic_prefix=role.kafka.topic_prefix,
        delivery_timeout_s=settings.confirm_timeout_s,
        in_flight_max=settings.in_flight_max,
    )
    try:
        with _listening(settings) as listener:
            app = make_app(settings, publisher, tokens, subscribe)
            server = _Server(_uvicorn(settings, app), app, publisher, settings, listener)
            gc.collect()
            gc.freeze()  # what is there for good is not gone through again while requests wait
            host, port = listener.getsockname()[:2]
            log.info("listens on %s:%d%s", host, port, "" if settings.tls_key_file is None else " with TLS")
            server.run()
            if publisher.refusal is not None:
                raise publisher.refusal
    finally:
        publisher.close()


class _Server(uvicorn.Server):
    """Streams have no end of their own: told to stop, they are ended first, or nothing would.

    It also ends when nothing can be injected any more, now or later: whoever supervises it starts a new one.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: Application,
        publisher: Publisher,
        settings: Gateway,
        listener: socket.socket,
    ) -> None:
        super().__init__(config)
        self._app, self._publisher, self._settings, self._listener = app, publisher, settings, listener
        self._door: Door | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002
        await super().startup(sockets=[])  # it listens to nothing: connections come by the door
        protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        make = partial(
            protocol,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self._door = Door(self._settings, make, self.server_state.connections, self.config.ssl)
        self._door.open(self._listener)

    async def on_tick(self, counter: int) -> bool:
        if self._door is not None:
            self._door.check()
        return self._publisher.refusal is not None or await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own raises what it caught once more at its end; a service that was told to stop ends well."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._door is not None:
            self._door.shut()
        self._listener.close()
        self._app.end_streams()
        await super().shutdown(sockets)


def _allow_descriptors() -> None:
    """A shell's 1,024 are few for connections; the hard limit is what whoever started us allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _listening(settings: Gateway) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
    try:
        listener = socket.create_server((settings.listen, settings.port), family=family, backlog=_CONNECTIONS)
    except OSError as error:
        where = f"{settings.listen}:{settings.port}"
        raise GatewayError(f"cannot listen: {error.strerror or error}", where=where, do="give another port") from None
    with listener:
        yield listener


def _uvicorn(settings: Gateway, app: Application) -> uvicorn.Config:
    secured: dict[str, Any] = {}
    if settings.tls_key_file is not None:
        secured = {"ssl_keyfile": settings.tls_key_file, "ssl_certfile": settings.tls_certificate_file}
    config = uvicorn.Config(
        app,
        http=partial(Connection, settings),  # type: ignore[arg-type] # called as a class is
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is known by a token, and not by an address
        date_header=True,
        ws="none",
        timeout_graceful_shutdown=_LEAVE_S,
        **secured,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        where = f"{settings.tls_certificate_file}, {settings.tls_key_file}"
        raise ConfigError([f"no certificate with its key: {error}"], where=where) from None
    return config
