"""What a sink's client hears of the brokers: whether they answer, and let it in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError

from schemas.connection import client_settings, forbidden, is_refusal
from schemas.errors import KafkaUnavailableError
from schemas.rights import Grant

log = logging.getLogger(__name__)


class Brokers:
    """Of one client, a member of this group that reads these topics."""

    def __init__(self, bootstrap: str, group: str, topics: Sequence[str]) -> None:
        self._bootstrap, self._group, self._topics = bootstrap, group, topics
        self.refused = ""  # why they do not let us in
        self.is_away = False
        self._in_trouble = False

    def answered(self) -> None:
        """A record came."""
        self._in_trouble = self.is_away = False

    def fault(self, error: Any, topic: str | None) -> None:
        """Of a poll, about a topic or none; raises KafkaUnavailableError for one that does not pass by itself."""
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            raise forbidden([Grant("GROUP", self._group, "READ")], self._bootstrap)
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise forbidden(
                [Grant("TOPIC", name, "READ") for name in ([topic] if topic else self._topics)], self._bootstrap
            )
        if error.fatal():
            raise KafkaUnavailableError(error.str(), where=self._bootstrap, do="start again")
        self.on_trouble(error)

    def on_trouble(self, error: Any) -> None:
        """What librdkafka meets and goes on from by itself: said once, until a record comes again."""
        if is_refusal(error):
            self.refused = error.str()
        if not self._in_trouble:
            log.warning("Kafka at %s: %s", self._bootstrap, error.str())
        self._in_trouble = self.is_away = True


def consumer_settings(bootstrap: str, group: str) -> dict[str, Any]:
    """How a sink's consumer is set."""
    return {
        **client_settings(bootstrap),
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "range",
        # After a kill -9 another instance goes on so soon.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_500,
        # By default it would look for a returned broker every ten seconds only.
        "reconnect.backoff.max.ms": 1_000,
        # librdkafka waits a second by default before it fetches on when its queue was full.
        "fetch.queue.backoff.ms": 5,
        # It would say twenty times a second that nobody answers; `Brokers` says it once.
        "log_level": 0,
    }
