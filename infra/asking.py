"""Records onto `failover-config`, and the journal's answers to them.

Whether a configuration is accepted, or a directive followed, is decided in the journal, by the fold of its primary, and
said by the next ranking. What could not even be forwarded is a dead letter, which names our record's place. So: look
where the answers will come, send, and wait for them up to a deadline.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, Producer

from infra.configuration import after, in_force
from infra.kafka.reader import BEGINNING, NOW, RawRecord, TopicReader
from schemas import connection
from schemas.codec import decode, encode, read
from schemas.connection import client_settings, forbidden
from schemas.errors import CodecError, DeliveryError, ProximaError
from schemas.records import (
    DeadLetter,
    FailoverConfiguration,
    FailoverRanking,
    Observation,
    OperatorDirective,
    RegionCatalog,
)
from schemas.rights import Grant
from schemas.topics import named
from schemas.validate import is_keyed, mistakes
from schemas.wire import framed

Place = tuple[int, int]
"""Partition and offset on `failover-config`."""
DELIVERY_TIMEOUT_S: Final = 10.0
TOPIC: Final = "failover-config"
SENT_BY: Final = "sent-by"  # the header that says which user's program sent a record
_POLL_S: Final = 0.1
Asked = FailoverConfiguration | RegionCatalog | OperatorDirective


@dataclass(frozen=True, slots=True)
class Known:
    """What `failover-config` says now: the latest catalogue, what is in force for each primary, directives by id.

    A directive is here as it was said last, expired or not.
    """

    catalogue: RegionCatalog | None
    configurations: dict[str, FailoverConfiguration]
    directives: dict[str, OperatorDirective]


@dataclass(slots=True)
class Answer:
    """What became of one record: `outcome` is accepted, rejected or unanswered; of a catalogue, sent or unchanged.

    `said` is what stands for it if nobody says more before the deadline: nobody can be sure yet that it is meant.
    """

    what: str
    version: int = 0
    outcome: str = "unanswered"
    reason: str = ""
    said: str = ""

    @property
    def is_good(self) -> bool:
        return self.outcome in ("accepted", "unchanged", "sent")


@dataclass(frozen=True, slots=True)
class Question:
    """A record to send under a key; `hear` takes a ranking in and fills the answer if the ranking is one."""

    key: str
    record: Asked
    answer: Answer
    hear: Callable[[FailoverRanking], None]


def known(bootstrap: str, prefix: str = "", *, deadline_s: float = 30.0) -> Known:
    """Read the whole topic, and judge by compare-and-set as the fold does."""
    by_primary: dict[str, list[FailoverConfiguration]] = {}
    catalogue: RegionCatalog | None = None
    directives: dict[str, OperatorDirective] = {}
    # A key's records share a partition; written with another partitioner (by hand) they need not.
    for raw in everything(bootstrap, prefix, deadline_s=deadline_s):
        try:
            record = read(raw.value or b"", FailoverConfiguration, RegionCatalog, OperatorDirective)
        except CodecError:
            continue  # intake makes a dead letter of it
        if isinstance(record, FailoverConfiguration):
            if is_keyed(record, raw.key):
                by_primary.setdefault(record.primary_region, []).append(record)
        elif mistakes(record):
            continue
        elif isinstance(record, OperatorDirective):
            directives[record.directive_id] = record
        elif catalogue is None or record.version > catalogue.version:
            catalogue = record
    judged = {primary: in_force(records) for primary, records in by_primary.items()}
    return Known(catalogue, {primary: c for primary, c in judged.items() if c is not None}, directives)


def standing(
    bootstrap: str, places: Iterable[Place], prefix: str = "", *, deadline_s: float = 30.0
) -> dict[Place, FailoverConfiguration | None]:
    """What was in force of a primary right after its configuration at each of these places: that one, if it won.

    Compare-and-set has one outcome for one order of records, so the topic alone says who was first, whoever asks.
    """
    now: dict[str, FailoverConfiguration | None] = {}
    found: dict[Place, FailoverConfiguration | None] = dict.fromkeys(places)
    for raw in everything(bootstrap, prefix, deadline_s=deadline_s):
        try:
            record = read(raw.value or b"", FailoverConfiguration, RegionCatalog, OperatorDirective)
        except CodecError:
            continue
        if isinstance(record, FailoverConfiguration) and is_keyed(record, raw.key):
            now[record.primary_region] = after(now.get(record.primary_region), record)
            if (raw.partition, raw.offset) in found:
                found[raw.partition, raw.offset] = now[record.primary_region]
    return found


def ask(
    bootstrap: str,
    questions: Sequence[Question],
    *,
    prefix: str = "",
    timeout_s: float = 30.0,
    sent: Callable[[Sequence[Place]], None] = lambda _: None,
) -> None:
    """Send all of them in order, and wait until each is answered, or the deadline; the answers are in the questions.

    `sent` is told where they stand, in their order, before an answer is listened to.
    Raises KafkaUnavailableError or DeliveryError: nothing, or not everything, was sent.
    """
    # Looked before it leaves: an answer may come faster than a consumer starts.
    with TopicReader(
        bootstrap, {named(prefix, "failover-rankings"): NOW, named(prefix, "dead-letters"): NOW}
    ) as reader:
        places = _send(bootstrap, named(prefix, TOPIC), [(q.key, q.record) for q in questions])
        sent(places)
        waiting = dict(zip(places, questions, strict=True))
        deadline = time.monotonic() + timeout_s
        while any(q.answer.outcome == "unanswered" for q in questions) and time.monotonic() < deadline:
            raw = reader.poll(_POLL_S)
            if raw is not None and raw.value is not None:
                _hear(raw.value, waiting)
    for answer in (q.answer for q in questions if q.answer.outcome == "unanswered"):
        if answer.said:
            answer.outcome, answer.reason = "rejected", answer.said
        else:
            answer.reason = f"no answer within {timeout_s:g} s: is a worker running? It will be judged when one is"


def _hear(value: bytes, waiting: dict[Place, Question]) -> None:
    """Take what answers one of ours from a ranking or a dead letter."""
    try:
        record = decode(value, FailoverRanking, DeadLetter)
    except CodecError:
        return
    if isinstance(record, DeadLetter):
        question = waiting.get(_source_place(record))
        if question is not None:
            question.answer.outcome, question.answer.reason = "rejected", record.detail
        return
    for question in waiting.values():
        if question.answer.outcome == "unanswered":
            question.hear(record)


def _source_place(letter: DeadLetter) -> Place:
    """Where on failover-config the record was: intake's letter says it, decide's is about the journal's copy."""
    if letter.source_topic.endswith("failover-config"):
        return letter.source_partition, letter.source_offset
    try:
        source = decode(letter.original, Observation).source
    except CodecError:
        return -1, -1
    return (source.partition, source.first_offset) if source.topic.endswith("failover-config") else (-1, -1)


def _send(bootstrap: str, topic: str, records: Sequence[tuple[str, Asked]]) -> list[Place]:
    """Send in order, and return partition and offset of each once the broker has it."""
    producer = Producer(
        {
            **client_settings(bootstrap),
            "partitioner": "murmur2_random",  # librdkafka's default is not Java's
            "enable.idempotence": True,
            "log_level": 0,
        }
    )
    places: dict[int, Place] = {}
    refused: list[KafkaError] = []

    def on_delivery(number: int, error: Any, message: Any) -> None:
        if error is not None:
            refused.append(error)
        else:
            places[number] = message.partition(), message.offset()

    for number, (key, record) in enumerate(records):
        producer.produce(
            topic,
            key=key,
            value=framed(encode(record)),
            headers=[(SENT_BY, sender().encode())],
            on_delivery=lambda e, m, number=number: on_delivery(number, e, m),
        )
    producer.flush(DELIVERY_TIMEOUT_S)
    if len(places) < len(records):
        if refused and refused[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise forbidden([Grant("TOPIC", topic, "WRITE")], bootstrap)
        raise DeliveryError(
            refused[0].str() if refused else f"{len(records) - len(places)} records are not confirmed",
            where=f"{topic} at {bootstrap}",
            do="look with `proxima config get` what was applied",
        )
    return [places[number] for number in range(len(records))]


def everything(bootstrap: str, prefix: str = "", *, deadline_s: float = 30.0) -> list[RawRecord]:
    """The whole topic, in the order of its append times; raises as a reader does, or when it takes too long."""
    return sorted(_all(bootstrap, named(prefix, TOPIC), deadline_s), key=_by_time)


def sender() -> str:
    """Who this program's user is, as far as it can tell: the name on Kafka, on this machine, and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{connection.in_use().username or 'nobody'}, {user} on {socket.gethostname()}"


def _all(bootstrap: str, topic: str, deadline_s: float) -> Iterator[RawRecord]:
    deadline = time.monotonic() + deadline_s
    with TopicReader(bootstrap, {topic: BEGINNING}) as reader:
        while not reader.at_end:
            if (raw := reader.poll(_POLL_S)) is not None:
                yield raw
            elif time.monotonic() > deadline:
                raise ProximaError(f"{topic} cannot be read to its end in {deadline_s:g} s", where=bootstrap)


def _by_time(raw: RawRecord) -> tuple[int, int, int]:
    return raw.appended_at_ms, raw.partition, raw.offset
