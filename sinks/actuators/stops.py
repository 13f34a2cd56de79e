"""Operators' `stop-actions`, as `failover-config` says: all of them at the start, and every change after that.

Overview plans nothing while one counts. That an actuator looks too is for what was planned just before, and for the
day on which overview is what is wrong.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from schemas.codec import read
from schemas.connection import Refusal, client_settings, forbidden, refused
from schemas.errors import CodecError, KafkaUnavailableError
from schemas.records import Directive, OperatorDirective
from schemas.rights import Grant
from schemas.topics import TOPICS, named
from schemas.validate import mistakes

_TIMEOUT_S: Final = 30.0
_STEP_S: Final = 0.5


class Stops:
    """Those that were given, the latest of each id."""

    def __init__(self) -> None:
        self._given: dict[str, tuple[tuple[int, int], OperatorDirective]] = {}

    def take(self, directive: OperatorDirective, partition: int, offset: int) -> None:
        """One as it stood on the topic; what is read again changes nothing."""
        if directive.kind != Directive.STOP_ACTIONS or mistakes(directive):
            return
        known = self._given.get(directive.directive_id)
        if known is None or (partition, offset) >= known[0]:  # an id is a key: it has one partition
            self._given[directive.directive_id] = (partition, offset), directive

    def why(self, primary: str, now_ms: int) -> str | None:
        """Who has stopped actions of a primary, and why; None: nobody."""
        for _, directive in self._given.values():
            if directive.expires_at_ms > now_ms and directive.primary_region in (None, primary):
                return f"stopped by {directive.author}: {directive.reason}"
        return None

    def read(self, bootstrap: str, prefix: str) -> None:
        """All that there is until now. Raises KafkaUnavailableError."""
        topic = named(prefix, "failover-config")
        refusal = Refusal()
        consumer = Consumer(_settings(bootstrap) | {"error_cb": refusal})
        try:
            _reach(consumer, refusal, topic, bootstrap)
            left = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=_TIMEOUT_S)[1]
                    for p in range(TOPICS["failover-config"].partitions)}  # fmt: skip
            left = {partition: end for partition, end in left.items() if end > 0}
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
            deadline_s = time.monotonic() + _TIMEOUT_S
            while left:
                if time.monotonic() > deadline_s:
                    raise KafkaUnavailableError(f"{topic} was not read within {_TIMEOUT_S:g} s", where=bootstrap)
                self._one(consumer.poll(0.2), left)
        except KafkaException as error:
            raise KafkaUnavailableError(f"{topic}: {error.args[0].str()}", where=bootstrap) from error
        finally:
            consumer.close()

    def _one(self, message: Any, left: dict[int, int]) -> None:
        if message is None:
            return
        if message.error() is not None:
            if message.error().code() == KafkaError._PARTITION_EOF:
                left.pop(message.partition(), None)
            return
        try:
            if message.value() is not None:
                record = read(message.value(), *TOPICS["failover-config"].records)
                if isinstance(record, OperatorDirective):
                    self.take(record, message.partition(), message.offset())
        except CodecError:
            pass  # intake makes a dead letter of it
        if message.offset() + 1 >= left.get(message.partition(), 0):
            left.pop(message.partition(), None)


def _reach(consumer: Any, refusal: Refusal, topic: str, bootstrap: str) -> None:
    """Wait for a broker, in short steps: one that refuses us says so at once, and only between them."""
    deadline_s = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            found = consumer.list_topics(topic, timeout=_STEP_S).topics[topic]
        except KafkaException:
            consumer.poll(0)  # where callbacks come
            if refusal.what:
                raise refused(refusal.what, bootstrap) from None
            if time.monotonic() > deadline_s:
                raise
        else:
            if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise forbidden([Grant("TOPIC", topic, "READ")], bootstrap)
            return


def _settings(bootstrap: str) -> dict[str, Any]:
    return {
        **client_settings(bootstrap),
        "group.id": f"proxima-stops-{uuid.uuid4().hex}",  # never joined, and never committed
        "enable.auto.commit": False,
        "enable.partition.eof": True,  # a transaction's end or a deleted record is no record to wait for
        "auto.offset.reset": "earliest",
        "log_level": 0,
    }
