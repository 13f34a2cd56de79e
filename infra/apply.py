"""Configurations onto `failover-config`, and the answers to them.

Whether a configuration is accepted is decided in the journal, by the fold of its primary, and said by the next ranking
(CONFIG_ACCEPTED or CONFIG_REJECTED). What could not even be forwarded is a dead letter, which names our record's place.
So: look where the answers will come, send, and wait for them up to a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from confluent_kafka import Producer

from infra.configuration import Draft, in_force, numbered
from infra.kafka.reader import BEGINNING, NOW, RawRecord, TopicReader
from schemas.codec import decode, encode, read
from schemas.errors import CodecError, ConfigError, DeliveryError, ProximaError
from schemas.records import (
    DeadLetter,
    Event,
    FailoverConfiguration,
    FailoverRanking,
    Observation,
    RegionCatalog,
)
from schemas.topics import named
from schemas.validate import mistakes

DELIVERY_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Known:
    """What `failover-config` says now: the latest catalogue, and what is in force for each primary."""

    catalogue: RegionCatalog | None
    configurations: dict[str, FailoverConfiguration]


@dataclass(slots=True)
class Answer:
    """What became of one record: `outcome` is accepted, rejected or unanswered; of a catalogue, sent or unchanged."""

    what: str
    version: int
    outcome: str = "unanswered"
    reason: str = ""

    @property
    def is_good(self) -> bool:
        return self.outcome in ("accepted", "unchanged", "sent")


def known(bootstrap: str, prefix: str = "", *, deadline_s: float = 30.0) -> Known:
    """Read the whole topic, and judge by compare-and-set as the fold does."""
    by_primary: dict[str, list[FailoverConfiguration]] = {}
    catalogue: RegionCatalog | None = None
    # A primary's records share a partition; written with another partitioner (by hand) they need not.
    for raw in sorted(_all(bootstrap, named(prefix, "failover-config"), deadline_s), key=_by_time):
        try:
            record = read(raw.value or b"", FailoverConfiguration, RegionCatalog)
        except CodecError:
            continue  # intake makes a dead letter of it
        if isinstance(record, FailoverConfiguration):
            by_primary.setdefault(record.primary_region, []).append(record)
        elif not mistakes(record) and (catalogue is None or record.version > catalogue.version):
            catalogue = record
    judged = {primary: in_force(records) for primary, records in by_primary.items()}
    return Known(catalogue, {primary: c for primary, c in judged.items() if c is not None})


def apply_draft(bootstrap: str, draft: Draft, *, prefix: str = "", timeout_s: float = 30.0) -> list[Answer]:
    """Send all of it, and wait for the answers; only a catalogue that is there already is not sent again.

    A configuration that is in force already is sent too: the topic shows what was asked for, a worker's answer shows
    what it goes by, and to the same question it gives the same answer.

    Raises ConfigError: the catalogue's version is not above the applied one, so it would be ignored. Raises
    KafkaUnavailableError or DeliveryError: nothing, or not everything, was sent.
    """
    now = known(bootstrap, prefix)
    answers: list[Answer] = []
    records: list[tuple[str, FailoverConfiguration | RegionCatalog, Answer]] = []
    if draft.catalogue is not None:
        catalogue = _numbered_catalogue(draft.catalogue, now.catalogue)
        answers.append(Answer("regions", catalogue.version, "unchanged" if catalogue == now.catalogue else "sent"))
        records.append(("regions", catalogue, answers[-1]))
    for stated in draft.configurations:
        record = numbered(stated, now.configurations.get(stated.primary_region))
        answers.append(Answer(record.primary_region, record.version))
        records.append((record.primary_region, record, answers[-1]))
    to_send = [(key, record, answer) for key, record, answer in records if answer.outcome != "unchanged"]
    # Looked before it leaves: an answer may come faster than a consumer starts.
    with TopicReader(
        bootstrap, {named(prefix, "failover-rankings"): NOW, named(prefix, "dead-letters"): NOW}
    ) as reader:
        places = _send(bootstrap, named(prefix, "failover-config"), [(key, record) for key, record, _ in to_send])
        waiting = dict(zip(places, (answer for _, _, answer in to_send), strict=True))
        deadline = time.monotonic() + timeout_s
        while any(a.outcome == "unanswered" for a in waiting.values()) and time.monotonic() < deadline:
            raw = reader.poll(_POLL_S)
            if raw is not None and raw.value is not None:
                _hear(raw.value, waiting)
    for answer in waiting.values():
        if answer.outcome == "unanswered":
            answer.reason = f"no answer within {timeout_s:g} s: is a worker running? It will be judged when one is"
    return answers


def _numbered_catalogue(stated: RegionCatalog, current: RegionCatalog | None) -> RegionCatalog:
    applied = current.version if current is not None else 0
    if current is not None and stated.regions == current.regions and stated.version in (0, applied):
        return current
    if stated.version == 0:
        return replace(stated, version=applied + 1)
    if stated.version <= applied:
        raise ConfigError(
            [f"the catalogue's version {stated.version} is not above {applied}, which is applied"],
            where="failover-config",
            do="raise it, or leave it out",
        )
    return stated


def _hear(value: bytes, waiting: dict[tuple[int, int], Answer]) -> None:
    """Take what answers one of ours from a ranking or a dead letter."""
    try:
        record = decode(value, FailoverRanking, DeadLetter)
    except CodecError:
        return
    if isinstance(record, DeadLetter):
        answer = waiting.get(_source_place(record))
        if answer is not None:
            answer.outcome, answer.reason = "rejected", record.detail
        return
    for answer in waiting.values():
        if answer.what != record.primary_region or answer.outcome != "unanswered":
            continue
        if Event.CONFIG_ACCEPTED in record.events and record.config_version == answer.version:
            answer.outcome, answer.reason = "accepted", record.reason
        elif Event.CONFIG_REJECTED in record.events:
            answer.outcome = "rejected"
            answer.reason = f"version {record.config_version} is in force; look at it with `config get`, and base on it"


def _source_place(letter: DeadLetter) -> tuple[int, int]:
    """Where on failover-config the record was: intake's letter says it, decide's is about the journal's copy."""
    if letter.source_topic.endswith("failover-config"):
        return letter.source_partition, letter.source_offset
    try:
        source = decode(letter.original, Observation).source
    except CodecError:
        return -1, -1
    return (source.partition, source.first_offset) if source.topic.endswith("failover-config") else (-1, -1)


def _send(
    bootstrap: str, topic: str, records: Sequence[tuple[str, FailoverConfiguration | RegionCatalog]]
) -> list[tuple[int, int]]:
    """Send in order, and return partition and offset of each once the broker has it."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",  # librdkafka's default is not Java's
            "enable.idempotence": True,
            "log_level": 0,
        }
    )
    places: dict[int, tuple[int, int]] = {}
    refused: list[str] = []

    def on_delivery(number: int, error: Any, message: Any) -> None:
        if error is not None:
            refused.append(error.str())
        else:
            places[number] = message.partition(), message.offset()

    for number, (key, record) in enumerate(records):
        producer.produce(
            topic, key=key, value=encode(record), on_delivery=lambda e, m, number=number: on_delivery(number, e, m)
        )
    producer.flush(DELIVERY_TIMEOUT_S)
    if len(places) < len(records):
        raise DeliveryError(
            refused[0] if refused else f"{len(records) - len(places)} records are not confirmed",
            where=f"{topic} at {bootstrap}",
            do="look with `proxima config get` what was applied",
        )
    return [places[number] for number in range(len(records))]


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
