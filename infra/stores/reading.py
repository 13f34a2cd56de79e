"""What either store can be asked, and which of the two is meant."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from schemas.config import SinkConfig
from schemas.errors import ConfigError
from schemas.records import FailoverConfiguration, FailoverRanking
from sinks.kept import DAY_MS

STORES = ("cassandra", "dynamodb")


@dataclass(frozen=True, slots=True)
class PathMetric:
    """One path at one tick; `values` by the names of `schemas.records.PathWeight`, None where nobody knew."""

    primary_region: str
    target_region: str
    decided_at_ms: int
    evidence_at_ms: int
    values: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Version:
    """A configuration that came into force, and when it was appended to the topic."""

    configuration: FailoverConfiguration
    applied_at_ms: int


class Store(Protocol):
    """All of it raises StoreUnavailableError."""

    def migrate(self) -> list[str]:
        """Bring the schema to this program's version; returns what was done, nothing if it is there already."""

    def metrics(self, primary: str, from_ms: int, to_ms: int) -> Iterator[PathMetric]:
        """Of the primary's paths, by time and target, from `from_ms` up to before `to_ms`."""

    def rankings(self, primary: str, from_ms: int, to_ms: int) -> Iterator[FailoverRanking]:
        """By time and sequence, from `from_ms` up to before `to_ms`."""

    def latest(self, primary: str) -> FailoverRanking | None: ...

    def configurations(self, primary: str) -> list[Version]:
        """Every version up to the one in force, which is the last; all of one moment."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def store_of(settings: SinkConfig, name: str | None = None) -> Store:
    """The store of that name; without one, that which the configuration has a section for.

    Raises ConfigError: it has none, or both.
    """
    stated = [store for store in STORES if store in settings.model_fields_set]
    if name is None and len(stated) != 1:
        found = "neither [cassandra] nor [dynamodb]" if not stated else "both [cassandra] and [dynamodb]"
        raise ConfigError([f"there is {found}"], do="give one of them in --config, or say --store")
    if (name or stated[0]) == "cassandra":
        from infra.stores.cassandra import CassandraStore  # noqa: PLC0415 - each driver takes half a second to load

        return CassandraStore(settings.cassandra)
    from infra.stores.dynamodb import DynamoDbStore  # noqa: PLC0415

    return DynamoDbStore(settings.dynamodb, prefix=settings.kafka.topic_prefix)


def kept(from_ms: int, to_ms: int, ttl_s: int) -> tuple[int, int]:
    """What of a span is worth a question: what is older has expired, and nothing is decided after tomorrow."""
    now_ms = time.time_ns() // 1_000_000
    return max(from_ms, now_ms - 1000 * ttl_s), min(to_ms, now_ms + DAY_MS)
