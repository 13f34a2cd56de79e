"""Where a record goes that a sink cannot read: the topic `dead-letters`, with the reason and the original bytes.

A dead letter is part of having handled a record, so it is confirmed by the brokers before the record's offset is
committed. After a crash between the two it is sent again; its source place tells that it is the same.
"""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import KafkaError, Producer

from schemas.codec import encode
from schemas.connection import client_settings, denial
from schemas.errors import DeliveryError
from schemas.records import DeadLetter
from schemas.rights import Grant
from schemas.topics import TOPICS, named
from schemas.wire import framed

CONFIRM_TIMEOUT_S: Final = 10.0


class DeadLetters:
    """A producer for `dead-letters` alone, made at the first letter: most runs have none."""

    def __init__(self, bootstrap: str, prefix: str = "") -> None:
        self._bootstrap = bootstrap
        self._topic = named(prefix, "dead-letters")
        self._producer: Any = None
        self._unconfirmed: dict[int, DeadLetter] = {}
        self._sent = 0
        self._is_forbidden = False

    def send(self, letter: DeadLetter) -> None:
        """Send it; `confirm` says whether it arrived."""
        number, self._sent = self._sent, self._sent + 1
        self._unconfirmed[number] = letter
        self._produce(number, letter)

    def confirm(self) -> None:
        """Wait until the brokers have every letter; raises DeliveryError if not, and may be asked again."""
        if not self._unconfirmed:
            return
        waiting = self._producer.flush(CONFIRM_TIMEOUT_S)
        if not self._unconfirmed:
            return
        if not waiting:  # given up by the producer, not just slow
            for number, letter in list(self._unconfirmed.items()):
                self._produce(number, letter)
        what, do = f"{len(self._unconfirmed)} dead letters are not confirmed", "look whether the topic exists"
        if self._is_forbidden:
            why, do = denial([Grant("TOPIC", self._topic, "WRITE")])
            what = f"{what}: {why}"
        raise DeliveryError(what, where=f"{self._topic} at {self._bootstrap}", do=do)

    def _produce(self, number: int, letter: DeadLetter) -> None:
        if self._producer is None:
            self._producer = Producer(_settings(self._bootstrap))

        def on_delivery(error: Any, _message: Any) -> None:
            self._is_forbidden = error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
            if error is None:
                self._unconfirmed.pop(number, None)

        while True:
            try:
                self._producer.produce(
                    self._topic, value=framed(encode(letter)), key=letter.source_topic.encode(), on_delivery=on_delivery
                )
            except BufferError:  # the queue is full: let some go
                self._producer.poll(0.1)
            else:
                return


def _settings(bootstrap: str) -> dict[str, Any]:
    return {
        **client_settings(bootstrap),
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",  # librdkafka's default is not Java's
        "message.max.bytes": TOPICS["dead-letters"].max_message_bytes,
        "linger.ms": 1,
        "reconnect.backoff.max.ms": 1_000,
        "log_level": 0,
    }
