"""Cassandra, read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self

from infra.stores import cassandra_schema
from infra.stores.reading import PathMetric, Version, kept
from schemas.codec import decode
from schemas.records import FailoverConfiguration, FailoverRanking
from schemas.stores import Cassandra
from sinks.cassandra_connection import Connection, reaching
from sinks.kept import DAY_MS, HOUR_MS, METRICS, buckets

_METRICS: Final = (
    f"SELECT decided_at_ms, target_region, evidence_at_ms, {', '.join(METRICS)} FROM path_metrics"  # noqa: S608 - the columns are ours
    " WHERE primary_region = ? AND hour_at_ms = ? AND decided_at_ms >= ? AND decided_at_ms < ?"
)
_RANKINGS: Final = (
    "SELECT record FROM rankings"
    " WHERE primary_region = ? AND day_at_ms = ? AND decided_at_ms >= ? AND decided_at_ms < ?"
)
_LATEST: Final = "SELECT record FROM latest_rankings WHERE primary_region = ?"
_CONFIGURATIONS: Final = "SELECT version, in_force, applied_at_ms, record FROM configurations WHERE primary_region = ?"


class CassandraStore:
    """It connects when it is first asked."""

    def __init__(self, settings: Cassandra) -> None:
        self._settings = settings
        self._connection: Connection | None = None

    def migrate(self) -> list[str]:
        with reaching(self._settings):
            return cassandra_schema.migrate(self._settings)

    def metrics(self, primary: str, from_ms: int, to_ms: int) -> Iterator[PathMetric]:
        for bucket in buckets(*kept(from_ms, to_ms, self._settings.metrics_ttl_s), HOUR_MS):
            for row in self._rows(_METRICS, (primary, bucket, from_ms, to_ms)):
                decided_at_ms, target, evidence_at_ms, *values = row
                named = dict(zip(METRICS, values, strict=True))
                yield PathMetric(primary, target, decided_at_ms, evidence_at_ms, named)

    def rankings(self, primary: str, from_ms: int, to_ms: int) -> Iterator[FailoverRanking]:
        for bucket in buckets(*kept(from_ms, to_ms, self._settings.rankings_ttl_s), DAY_MS):
            for row in self._rows(_RANKINGS, (primary, bucket, from_ms, to_ms)):
                yield decode(row.record, FailoverRanking)

    def latest(self, primary: str) -> FailoverRanking | None:
        for row in self._rows(_LATEST, (primary,), serial=True):
            return decode(row.record, FailoverRanking)
        return None

    def configurations(self, primary: str) -> list[Version]:
        # One partition, and so read at one moment: what is in force is among the rows, and the last of them.
        rows = self._rows(_CONFIGURATIONS, (primary,), serial=True)
        return [Version(decode(row.record, FailoverConfiguration), row.applied_at_ms) for row in rows
                if row.record is not None and row.version <= row.in_force]  # fmt: skip

    def _rows(self, cql: str, parameters: tuple[Any, ...], *, serial: bool = False) -> Iterator[Any]:
        with reaching(self._settings):
            if self._connection is None:
                self._connection = Connection(self._settings)
            statement = self._connection.reading(cql) if serial else self._connection.prepared(cql)
            rows = iter(self._connection.session.execute(statement, parameters))
        while True:
            with reaching(self._settings):  # the next page may be asked for
                row = next(rows, None)
            if row is None:
                return
            yield row

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
