"""Path metrics a second into Cassandra: the sink beside a bare cassandra-driver."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cassandra.concurrent import execute_concurrent
from cassandra.query import UNSET_VALUE, BatchStatement, BatchType

from infra.kafka import cluster
from infra.stores.servers import CassandraServer
from schemas.records import PathWeights
from sinks.cassandra import _METRIC, BATCH_ROWS
from sinks.cassandra_connection import Connection
from sinks.kept import HOUR_MS, METRICS
from tests.bench.storing import beside
from tests.sinks.store_targets import YEARS_S, CassandraTarget

ROWS = 11_000
TURNS = 27 if "PROXIMA_SOAK" in os.environ else 8


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (
            CassandraServer.start(data_dir=folder, log_dir=folder) as server,
            cluster.existing_or_started(log_dir=folder) as broker,
        ):
            target = CassandraTarget(server)
            target.reader().migrate()
            connection = Connection(target.settings)
            insert = connection.prepared(_METRIC)

            def bare(batch: Sequence[PathWeights]) -> None:
                results = execute_concurrent(
                    connection.session, _statements(insert, batch), concurrency=target.settings.in_flight_max
                )
                assert all(result.success for result in results)

            yield from beside(broker.bootstrap, target.open(), bare, rows=ROWS, turns=TURNS)
            connection.close()


def _statements(insert: Any, records: Sequence[PathWeights]) -> Iterator[tuple[Any, None]]:
    for r in records:
        hour_at_ms = r.decided_at_ms - r.decided_at_ms % HOUR_MS
        rows = list(zip(r.targets, *(getattr(r, name) for name in METRICS), strict=True))
        for first in range(0, len(rows), BATCH_ROWS):
            batch = BatchStatement(batch_type=BatchType.UNLOGGED)
            for target, *values in rows[first : first + BATCH_ROWS]:
                known = [UNSET_VALUE if value is None else value for value in values]
                key = (r.primary_region, hour_at_ms, r.decided_at_ms, target, r.evidence_at_ms)
                batch.add(insert, (*key, *known, YEARS_S // 2, time.time_ns() // 1000))
            yield batch, None
