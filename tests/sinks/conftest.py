"""Every sink's target, and a pipeline's topics of a test's own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.kafka.admin import admin_client, create_topics
from infra.kafka.cluster import Broker
from schemas.topics import TOPICS, named
from sinks.runner import SinkRunner
from sinks.sink import Sink
from tests.sinks.targets import JsonLinesTarget, RedisTarget, Target

pytest.register_assert_rewrite("tests.sinks.every_store")
TARGETS: tuple[type[Any], ...] = (RedisTarget, JsonLinesTarget)


@pytest.fixture(params=TARGETS, ids=lambda cls: cls.__name__.removesuffix("Target").lower())
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """Each target in turn: what a test says of it holds for every sink."""
    started: Target = request.param.start(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def redis_target(tmp_path: Path) -> Iterator[RedisTarget]:
    started = RedisTarget.start(tmp_path)
    yield started
    started.stop()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Topics of one test."""

    bootstrap: str
    prefix: str

    @contextmanager
    def running(self, sink: Sink, **settings: Any) -> Iterator[SinkRunner]:
        """The sink on these topics, in a thread, until the context ends; then stopped as by SIGTERM."""
        runner = SinkRunner(
            sink, bootstrap=self.bootstrap, prefix=self.prefix, name="test", retry_ms_max=200, **settings
        )
        died: list[BaseException] = []

        def run() -> None:
            try:
                runner.run()
            except BaseException as error:
                died.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield runner
        finally:
            runner.stop()
            thread.join(30)
            assert not thread.is_alive(), "the sink does not stop"
        assert not died, died


@pytest.fixture
def pipeline(kafka: Broker) -> Iterator[Pipeline]:
    prefix = f"sinks-{uuid.uuid4().hex[:8]}-"
    create_topics(kafka.bootstrap, prefix=prefix)
    yield Pipeline(kafka.bootstrap, prefix)
    admin = admin_client(kafka.bootstrap)
    for future in admin.delete_topics([named(prefix, topic) for topic in TOPICS]).values():
        future.result()


Until = Callable[[Callable[[], bool], str], None]
