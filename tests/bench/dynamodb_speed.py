"""Path metrics a second into DynamoDB Local, on disk: the sink beside a bare boto3."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from infra.kafka import cluster
from infra.stores.servers import DynamoDbServer
from schemas.records import PathWeights
from sinks.dynamodb import BATCH_ITEMS
from sinks.dynamodb_tables import PATH_METRICS, Tables, at, hour_bucket
from sinks.kept import METRICS
from tests.bench.storing import beside
from tests.sinks.store_targets import YEARS_S, DynamoDbTarget

ROWS = 1_100
TURNS = 18 if "PROXIMA_SOAK" in os.environ else 8


def run() -> Iterator[dict[str, Any]]:
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "bench")  # DynamoDB Local takes any
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "bench")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (
            DynamoDbServer.start(data_dir=folder, log_dir=folder) as server,
            cluster.existing_or_started(log_dir=folder) as broker,
            ThreadPoolExecutor(8) as pool,
        ):
            target = DynamoDbTarget(server)
            target.reader().migrate()
            assert target.settings.in_flight_max == 8
            tables = Tables(target.settings)
            table = tables.name(PATH_METRICS)

            def put(items: Sequence[Any]) -> None:
                requests = [{"PutRequest": {"Item": item}} for item in items]
                assert not tables.client.batch_write_item(RequestItems={table: requests}).get("UnprocessedItems")

            def bare(batch: Sequence[PathWeights]) -> None:
                items = [item for record in batch for item in _items(record)]
                pieces = [items[first : first + BATCH_ITEMS] for first in range(0, len(items), BATCH_ITEMS)]
                list(pool.map(put, pieces))

            yield from beside(broker.bootstrap, target.open(), bare, rows=ROWS, turns=TURNS)


def _items(r: PathWeights) -> Iterator[dict[str, Any]]:
    for target, *values in zip(r.targets, *(getattr(r, name) for name in METRICS), strict=True):
        yield {
            "bucket": {"S": hour_bucket(r.primary_region, r.decided_at_ms)},
            "at": {"S": f"{at(r.decided_at_ms)}/{target}"},
            "evidence_at_ms": {"N": str(r.evidence_at_ms)},
            "expires_at_s": {"N": str(r.decided_at_ms // 1000 + YEARS_S)},
            **{name: {"N": repr(v)} for name, v in zip(METRICS, values, strict=True) if v is not None},
        }
