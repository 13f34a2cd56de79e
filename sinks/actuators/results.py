"""The producer of `action-results`, and what time it is by the brokers' clock.

An action expires by the clock that planned it: the brokers'. The only way to know that clock now is to have a record
appended, so every action begins with one (STARTED), and its append time decides whether it is late.
"""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Producer

from schemas.codec import encode
from schemas.connection import client_settings
from schemas.errors import DeliveryError
from schemas.records import ActionResult
from schemas.topics import named
from schemas.wire import framed

_CONFIRM_S: Final = 5.0


class Results:
    """One record at a time, confirmed by all replicas."""

    def __init__(self, bootstrap: str, prefix: str = "") -> None:
        self._topic = named(prefix, "action-results")
        self._bootstrap = bootstrap
        self._producer: Any = Producer(_settings(bootstrap))

    def publish(self, result: ActionResult) -> int:
        """Have it appended; returns when, by the brokers' clock (Unix, ms). Raises DeliveryError: it may be, later."""
        found: list[tuple[Any, Any]] = []
        self._producer.produce(
            self._topic,
            value=framed(encode(result)),
            key=result.primary_region.encode(),
            on_delivery=lambda error, message: found.append((error, message)),
        )
        self._producer.flush(_CONFIRM_S)
        if not found:
            self._producer.purge()  # nobody waits for it any more: it is sent again with what is true then
            self._producer.flush(_CONFIRM_S)
            raise self._failed("not confirmed in time")
        error, message = found[0]
        if error is not None:
            raise self._failed(error.str())
        kind, appended_at_ms = message.timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            raise self._failed("the topic has no append time")
        return int(appended_at_ms)

    def _failed(self, what: str) -> DeliveryError:
        return DeliveryError(
            f"a result cannot be told: {what}",
            where=f"{self._topic} at {self._bootstrap}",
            do="nothing is done that cannot be told; `proxima doctor` looks at the topic",
        )


def _settings(bootstrap: str) -> dict[str, Any]:
    return {
        **client_settings(bootstrap),
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",  # librdkafka's default is not Java's
        "linger.ms": 0,
        "delivery.timeout.ms": int(_CONFIRM_S * 1000),
        "request.timeout.ms": int(_CONFIRM_S * 1000),
        "reconnect.backoff.max.ms": 1_000,
        "log_level": 0,
    }
