"""Topics of a test's own, for commands."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from infra.kafka.admin import admin_client, create_topics
from infra.kafka.cluster import Broker
from schemas.codec import encode
from schemas.records import Record
from schemas.topics import TOPICS, named
from tests.infra.commands import running


@dataclass(frozen=True, slots=True)
class Topics:
    """A whole pipeline's topics under a prefix; `environment` leads a command there."""

    bootstrap: str
    prefix: str

    @property
    def environment(self) -> dict[str, str]:
        return {"PROXIMA_KAFKA__BOOTSTRAP": self.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": self.prefix}

    def publish(self, topic: str, *values: Record | bytes | None, key: str | bytes = "eu-west-1") -> None:
        """Put values on a topic under one key, in order, confirmed."""
        settings: dict[str, Any] = {"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random",
                                    "enable.idempotence": True, "linger.ms": 0, "log_level": 0}  # fmt: skip
        producer = Producer(settings)
        for value in values:
            data = value if value is None or isinstance(value, bytes) else encode(value)
            producer.produce(named(self.prefix, topic), key=key, value=data)
        assert producer.flush(30) == 0


@pytest.fixture
def topics(kafka: Broker) -> Iterator[Topics]:
    prefix = f"cli-{uuid.uuid4().hex[:8]}-"
    create_topics(kafka.bootstrap, prefix=prefix)
    yield Topics(kafka.bootstrap, prefix)
    admin = admin_client(kafka.bootstrap)
    for future in admin.delete_topics([named(prefix, topic) for topic in TOPICS]).values():
        future.exception()


@pytest.fixture
def worker(topics: Topics, tmp_path: Path) -> Iterator[Topics]:
    """Topics that real stages work on."""
    with running("worker", log_path=tmp_path / "worker.log", **topics.environment) as process:
        yield topics
        assert process.alive, process.log_tail()
