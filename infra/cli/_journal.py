"""A journal as commands name it: `observations`, or a file of `proxima tail observations --raw`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.config import ClientConfig
    from streams.journal import JournalRecord

TOPIC: Final = "observations"


def open_journal(source: str, client: ClientConfig) -> tuple[str, Iterator[JournalRecord]]:
    """Kafka's id of the journal's topic, and its records; raises JournalError when a file is no journal."""
    from schemas.errors import JournalError  # noqa: PLC0415
    from streams.journal import read, read_header  # noqa: PLC0415

    if source == TOPIC:
        return _from_topic(client)
    path = Path(source)
    header = read_header(path)
    if not header.topic.endswith(TOPIC):
        raise JournalError(f"is a journal of {header.topic}, and only {TOPIC} can be folded", where=source)
    return header.topic_id, read(path)


def _from_topic(client: ClientConfig) -> tuple[str, Iterator[JournalRecord]]:
    from infra.kafka.admin import topic_ids  # noqa: PLC0415
    from infra.kafka.reader import BEGINNING, TopicReader  # noqa: PLC0415
    from schemas.topics import named  # noqa: PLC0415
    from streams.journal import JournalRecord  # noqa: PLC0415

    name = named(client.kafka.topic_prefix, TOPIC)

    def records() -> Iterator[JournalRecord]:
        with TopicReader(client.kafka.bootstrap, {name: BEGINNING}) as reader:
            while not reader.at_end:
                r = reader.poll(0.2)
                if r is not None and r.value is not None:
                    yield JournalRecord(r.partition, r.offset, r.appended_at_ms, r.key, r.value)

    return topic_ids(client.kafka.bootstrap, [name])[name], records()
