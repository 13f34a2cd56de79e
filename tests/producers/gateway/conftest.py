"""One gateway for a module of tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from infra.kafka.cluster import Broker
from tests.producers.gateway.serving import Serving, serving

TOKEN_STREAMS_MAX = 4


@pytest.fixture(scope="module")
def gateway(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    limits: dict[str, Any] = {
        "BODY_BYTES_MAX": 65_536,
        "BATCH_MAX": 200,
        "STREAM_LAG_MAX": 20,
        "STREAM_SEND_S": 1,
        "HEARTBEAT_S": 0.3,
        "TOKEN_STREAMS_MAX": TOKEN_STREAMS_MAX,
    }
    with serving(kafka.bootstrap, tmp_path_factory.mktemp("gateway"), **limits) as found:
        yield found
