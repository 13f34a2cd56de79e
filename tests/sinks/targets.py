"""Each sink's target in the same clothes, so that one suite can try them all: open, look, break, mend."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any, Protocol, Self

import redis

from infra.redis import RedisServer
from sinks.jsonlines import JsonLinesSink
from sinks.redis import RedisSink
from sinks.sink import Sink


class Ids(dict[str, str]):
    """Topic ids for tests that have no broker: a topic's name is its id."""

    def __missing__(self, name: str) -> str:
        return name


class Target(Protocol):
    """One store of our own."""

    @classmethod
    def start(cls, folder: Path) -> Self: ...

    def open(self, prefix: str = "") -> Sink: ...

    def served(self, prefix: str = "") -> dict[str, int]:
        """Primary -> sequence of the ranking that a reader of the target finds."""

    def content(self) -> Any:
        """Everything in it, to compare."""

    def destroy(self) -> None:
        """Make it fail, with `kill -9` where it is a process."""

    def mend(self) -> None: ...

    def stop(self) -> None: ...


class RedisTarget:
    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)

    @classmethod
    def start(cls, folder: Path) -> Self:
        return cls(RedisServer.start(data_dir=folder / "redis", log_dir=folder))

    def open(self, prefix: str = "") -> RedisSink:
        return RedisSink(self.server.url, Ids(), prefix=prefix)

    def served(self, prefix: str = "") -> dict[str, int]:
        names = f"{prefix}proxima:ranking:"
        return {key.removeprefix(names): self.latest(key)["sequence"] for key in self.client.keys(f"{names}*")}

    def latest(self, key: str) -> dict[str, Any]:
        return json.loads(self.client.get(key))  # type: ignore[no-any-return]

    def content(self) -> Any:
        return {key: self.client.dump(key) for key in self.client.scan_iter() if not key.endswith("proxima:positions")}

    def destroy(self) -> None:
        self.server.kill()

    def mend(self) -> None:
        self.server.restart()

    def stop(self) -> None:
        self.client.close()
        self.server.stop()


class JsonLinesTarget:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def start(cls, folder: Path) -> Self:
        return cls(folder / "rankings.jsonl")

    def open(self, prefix: str = "") -> JsonLinesSink:  # noqa: ARG002
        return JsonLinesSink(self.path)

    def lines(self) -> list[dict[str, Any]]:
        """As a reader beside the sink reads them: only what ends with a newline is a line."""
        text = self.path.read_text() if self.path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def served(self, prefix: str = "") -> dict[str, int]:  # noqa: ARG002
        return {line["primary_region"]: line["sequence"] for line in self.lines()}

    def content(self) -> Any:
        return self.path.read_bytes()

    def destroy(self) -> None:
        """A file that may not grow beyond the next few bytes: as a full disk, and leaves a torn line likewise."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.path.stat().st_size + 100, hard))

    def mend(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def stop(self) -> None:
        self.mend()
