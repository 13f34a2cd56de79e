"""Cassandra: path metrics, rankings and configurations, where they survive a zone.

    path_metrics      ((primary_region, hour_at_ms), decided_at_ms, target_region)   expires
    rankings          ((primary_region, day_at_ms), decided_at_ms, sequence)         expires
    latest_rankings   (primary_region)                the highest sequence, by conditional write
    configurations    ((primary_region), version)     every version that came into force, and which one is: static

infra/stores/cassandra_schema.py makes the tables. Every write is an upsert under the key of what it says, so one that
comes twice changes nothing. A row of metrics carries the broker's append time as its write time (`USING TIMESTAMP`, the
offset's last digits as microseconds): where two evaluations fall into one millisecond the later stays, whoever writes
when. Rows expire at a fixed age, not so long after they were written: what a sink that catches up would write expired
is left out. A value that nobody knows is not written at all, so it leaves no tombstone.

A tick's rows are one partition's and go as unlogged batches, each one mutation to Cassandra. Confirmed means by a
quorum of the datacenter: with three replicas any one may be lost. A lone node must have `commitlog_sync: batch` (or
group), or `kill -9` takes what it had confirmed in the last moments.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from typing import Any, Final

from cassandra.query import UNSET_VALUE, BatchStatement, BatchType

from schemas.codec import encode
from schemas.records import FailoverConfiguration, FailoverRanking, PathWeights
from schemas.stores import Cassandra
from sinks.cassandra_connection import Connection, reaching
from sinks.kept import DAY_MS, METRICS, TOPICS, InForce, Metrics, check_ranking, is_sound, metrics_of, place_of
from sinks.sink import Meta, Place, Sink

log = logging.getLogger(__name__)

# Rows in one batch: some 3 KB, below the 5 KiB from which Cassandra warns.
BATCH_ROWS: Final = 20

_METRIC: Final = (  # the columns are ours
    "INSERT INTO path_metrics (primary_region, hour_at_ms, decided_at_ms, target_region, evidence_at_ms,"  # noqa: S608
    f" {', '.join(METRICS)}) VALUES (?, ?, ?, ?, ?, {', '.join('?' * len(METRICS))}) USING TTL ? AND TIMESTAMP ?"
)
_RANKING: Final = (
    "INSERT INTO rankings (primary_region, day_at_ms, decided_at_ms, sequence, mode, advice, target_region,"
    " config_version, events, reason, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?"
)
_FIRST: Final = (
    "INSERT INTO latest_rankings (primary_region, sequence, decided_at_ms, target_region, record)"
    " VALUES (?, ?, ?, ?, ?) IF NOT EXISTS"
)
_NEWER: Final = (
    "UPDATE latest_rankings SET sequence = ?, decided_at_ms = ?, target_region = ?, record = ?"
    " WHERE primary_region = ? IF sequence < ?"
)
_IN_FORCE: Final = "SELECT in_force, place FROM configurations WHERE primary_region = ? LIMIT 1"
_INTO_FORCE: Final = (
    "UPDATE configurations SET in_force = ?, place = ? WHERE primary_region = ? IF in_force = ? AND place = ?"
)
_VERSION: Final = (
    "INSERT INTO configurations (primary_region, version, based_on, author, applied_at_ms, record)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)


class CassandraSink(Sink):
    """It connects when there is something to write, so that a cluster that is away is one more thing to wait for."""

    topics = TOPICS
    group = "proxima-store-"

    def __init__(self, settings: Cassandra) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._metrics: dict[tuple[str, int], tuple[Metrics, int]] = {}  # by primary and tick: the later stays
        self._rankings: list[tuple[FailoverRanking, bytes]] = []
        self._configurations: list[tuple[FailoverConfiguration, str, int]] = []

    def add(self, record: Any, meta: Meta) -> None:
        if isinstance(record, PathWeights):
            metrics = metrics_of(record)
            written_at_us = meta.appended_at_ms * 1000 + meta.offset % 1000
            self._metrics[metrics.primary_region, metrics.decided_at_ms] = metrics, written_at_us
        elif isinstance(record, FailoverRanking):
            check_ranking(record)
            self._rankings.append((record, encode(record)))
        elif isinstance(record, FailoverConfiguration) and is_sound(record, meta.key):  # else intake buries it
            self._configurations.append((record, place_of(meta), meta.appended_at_ms))

    def flush(self) -> Collection[Place]:
        if not self._metrics and not self._rankings and not self._configurations:
            return ()
        with reaching(self._settings):
            if self._connection is None:
                self._connection = Connection(self._settings)
            connection = self._connection
            connection.run([*self._metric_batches(connection), *self._ranking_rows(connection)])
            for ranking, encoded in _highest(self._rankings):
                self._serve(connection, ranking, encoded)
            for record, place, applied_at_ms in self._configurations:
                self._judge(connection, record, place, applied_at_ms)
        self._metrics, self._rankings, self._configurations = {}, [], []
        return ()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _metric_batches(self, connection: Connection) -> Iterator[tuple[Any, None]]:
        insert, now_ms = connection.prepared(_METRIC), time.time_ns() // 1_000_000
        for metrics, written_at_us in self._metrics.values():
            ttl_s = self._settings.metrics_ttl_s - (now_ms - metrics.decided_at_ms) // 1000
            if ttl_s <= 0:
                continue
            key = metrics.primary_region, metrics.hour_at_ms, metrics.decided_at_ms
            for first in range(0, len(metrics.rows), BATCH_ROWS):
                batch = BatchStatement(batch_type=BatchType.UNLOGGED)
                for target, values in metrics.rows[first : first + BATCH_ROWS]:
                    known = [UNSET_VALUE if value is None else value for value in values]
                    batch.add(insert, (*key, target, metrics.evidence_at_ms, *known, ttl_s, written_at_us))
                yield batch, None

    def _ranking_rows(self, connection: Connection) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        insert, now_ms = connection.prepared(_RANKING), time.time_ns() // 1_000_000
        for r, encoded in self._rankings:
            ttl_s = self._settings.rankings_ttl_s - (now_ms - r.decided_at_ms) // 1000
            if ttl_s > 0:
                day_at_ms = r.decided_at_ms - r.decided_at_ms % DAY_MS
                yield insert, (
                    r.primary_region, day_at_ms, r.decided_at_ms, r.sequence, r.mode, r.advice, r.target_region,
                    r.config_version, r.events, r.reason, encoded, ttl_s,
                )  # fmt: skip

    @staticmethod
    def _serve(connection: Connection, r: FailoverRanking, encoded: bytes) -> None:
        """Put it where the latest is, unless that is of the same sequence or a higher one."""
        values = r.sequence, r.decided_at_ms, r.target_region, encoded
        newer, first = connection.prepared(_NEWER), connection.prepared(_FIRST)
        # Two tries to update: another sink may have been first between them.
        for statement, parameters in (
            (newer, (*values, r.primary_region, r.sequence)),
            (first, (r.primary_region, *values)),
            (newer, (*values, r.primary_region, r.sequence)),
        ):
            answer = connection.session.execute(statement, parameters).one()
            held = getattr(answer, "sequence", None)  # there is none if it was applied, or if there is no row
            if answer.applied or (held is not None and held >= r.sequence):
                return

    @staticmethod
    def _judge(connection: Connection, record: FailoverConfiguration, place: str, applied_at_ms: int) -> None:
        """Put the version into force if it is based on the one that is; both are seen at once, or neither is."""
        primary = record.primary_region
        while True:
            row = connection.session.execute(connection.reading(_IN_FORCE), (primary,)).one()
            now = InForce(row.in_force or 0, row.place or "") if row is not None else InForce()
            if not now.follows(record, place):
                log.info("%s: version %d is not the next after %d, or is there", primary, record.version, now.version)
                return
            batch = BatchStatement()
            held = (row.in_force, row.place) if row is not None else (None, None)
            batch.add(connection.prepared(_INTO_FORCE), (record.version, place, primary, *held))
            batch.add(connection.prepared(_VERSION), (primary, record.version, record.based_on, record.author,
                                                      applied_at_ms, encode(record)))  # fmt: skip
            if connection.session.execute(batch).was_applied:
                return  # else another sink was faster: look again


def _highest(rankings: list[tuple[FailoverRanking, bytes]]) -> Collection[tuple[FailoverRanking, bytes]]:
    """Of each primary, the one that a reader should find."""
    found: dict[str, tuple[FailoverRanking, bytes]] = {}
    for ranking, encoded in rankings:
        held = found.get(ranking.primary_region)
        if held is None or ranking.sequence > held[0].sequence:
            found[ranking.primary_region] = ranking, encoded
    return found.values()
