"""DynamoDB: path metrics, rankings and configurations, where they survive a zone and nobody runs the servers.

    path-metrics      bucket = PRIMARY/hour, at = time/TARGET      expires
    rankings          bucket = PRIMARY/day, at = time/sequence     expires
    latest-rankings   primary_region                               the highest sequence, by conditional put
    configurations    primary_region, version                      every version that came into force; 0 says which is

infra/stores/dynamodb_schema.py makes the tables; their names begin with `table_prefix`, after a `topic_prefix`. Every
write is an upsert of a whole item under the key of what it says, so one that comes twice changes nothing. What has a
key of its own for each content goes in batches of 25, which take no conditions; what is replaced, the latest ranking
and the version in force, goes by conditional write. What DynamoDB's time to live has not yet purged, readers leave out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from schemas.codec import encode
from schemas.errors import CodecError
from schemas.records import FailoverConfiguration, FailoverRanking, PathWeights, Reason
from schemas.stores import DynamoDb
from sinks.dynamodb_tables import (
    CONFIGURATIONS,
    HEAD,
    LATEST,
    PATH_METRICS,
    RANKINGS,
    Tables,
    at,
    day_bucket,
    hour_bucket,
)
from sinks.kept import METRICS, TOPICS, InForce, Metrics, check_ranking, is_sound, metrics_of, place_of
from sinks.sink import Meta, Place, Sink

log = logging.getLogger(__name__)

BATCH_ITEMS: Final = 25  # DynamoDB's own limit
_RECORD_BYTES_MAX: Final = 390_000  # an item has 400 KB, names included
_UNPROCESSED_TRIES: Final = 6
_UNPROCESSED_PAUSE_S: Final = 0.05  # doubled with each try
Item = dict[str, dict[str, Any]]


class DynamoDbSink(Sink):
    """`prefix` is the topics' (a whole second pipeline). Nothing is asked of AWS before there is something to write."""

    topics = TOPICS
    group = "proxima-store-"

    def __init__(self, settings: DynamoDb, *, prefix: str = "") -> None:
        self._settings = settings
        self._tables = Tables(settings, prefix)
        self._pool = ThreadPoolExecutor(settings.in_flight_max, thread_name_prefix="dynamodb")
        self._checked = False
        self._metrics: dict[tuple[str, int], Metrics] = {}  # by primary and tick: the later stays
        self._rankings: dict[tuple[str, int], tuple[FailoverRanking, bytes]] = {}
        self._configurations: list[tuple[FailoverConfiguration, str, int]] = []

    def add(self, record: Any, meta: Meta) -> None:
        if isinstance(record, PathWeights):
            metrics = metrics_of(record)
            self._metrics[metrics.primary_region, metrics.decided_at_ms] = metrics
        elif isinstance(record, FailoverRanking):
            check_ranking(record)
            self._rankings.setdefault((record.primary_region, record.sequence), (record, _bytes_of(record)))
        elif isinstance(record, FailoverConfiguration) and is_sound(record, meta.key):  # else intake buries it
            _bytes_of(record)
            self._configurations.append((record, place_of(meta), meta.appended_at_ms))

    def flush(self) -> Collection[Place]:
        if not self._metrics and not self._rankings and not self._configurations:
            return ()
        with self._tables.reaching():
            if not self._checked:
                self._tables.check()
                self._checked = True
            items = [*self._metric_items(), *self._ranking_items()]
            # All are waited for, so that no write of a failed flush is still under way in the next.
            pieces = [items[first : first + BATCH_ITEMS] for first in range(0, len(items), BATCH_ITEMS)]
            futures = [self._pool.submit(self._put, piece) for piece in pieces]
            errors = [error for future in futures if (error := future.exception()) is not None]
            if errors:
                raise errors[0]
            latest: dict[str, tuple[FailoverRanking, bytes]] = {}
            for key in sorted(self._rankings):  # a primary's highest sequence comes last
                latest[key[0]] = self._rankings[key]
            for ranking, encoded in latest.values():
                self._serve(ranking, encoded)
            for record, place, applied_at_ms in self._configurations:
                self._judge(record, place, applied_at_ms)
        self._metrics, self._rankings, self._configurations = {}, {}, []
        return ()

    def close(self) -> None:
        self._pool.shutdown()
        self._tables.client.close()

    def _metric_items(self) -> Iterator[tuple[str, Item]]:
        table, now_s = self._tables.name(PATH_METRICS), time.time()
        for m in self._metrics.values():
            expires_at_s = m.decided_at_ms // 1000 + self._settings.metrics_ttl_s
            if expires_at_s <= now_s:
                continue
            bucket, evidence = {"S": hour_bucket(m.primary_region, m.decided_at_ms)}, {"N": str(m.evidence_at_ms)}
            for target, values in m.rows:
                item = {name: {"N": repr(v)} for name, v in zip(METRICS, values, strict=True) if v is not None}
                yield (
                    table,
                    {
                        "bucket": bucket,
                        "at": {"S": f"{at(m.decided_at_ms)}/{target}"},
                        "evidence_at_ms": evidence,
                        "expires_at_s": {"N": str(expires_at_s)},
                        **item,
                    },
                )

    def _ranking_items(self) -> Iterator[tuple[str, Item]]:
        table, now_s = self._tables.name(RANKINGS), time.time()
        for r, encoded in self._rankings.values():
            expires_at_s = r.decided_at_ms // 1000 + self._settings.rankings_ttl_s
            if expires_at_s > now_s:
                yield (
                    table,
                    {
                        "bucket": {"S": day_bucket(r.primary_region, r.decided_at_ms)},
                        "at": {"S": f"{at(r.decided_at_ms)}/{r.sequence:019d}"},
                        "mode": {"S": r.mode},
                        "advice": {"S": r.advice},
                        "config_version": {"N": str(r.config_version)},
                        "reason": {"S": r.reason},
                        "expires_at_s": {"N": str(expires_at_s)},
                        "record": {"B": encoded},
                        **({"target_region": {"S": r.target_region}} if r.target_region is not None else {}),
                    },
                )

    def _put(self, items: Sequence[tuple[str, Item]]) -> None:
        """A batch; what DynamoDB has no room for at the moment (throttling) is sent again, in growing pauses."""
        left: dict[str, list[Any]] = {}
        for table, item in items:
            left.setdefault(table, []).append({"PutRequest": {"Item": item}})
        for attempt in range(_UNPROCESSED_TRIES):
            if attempt:
                time.sleep(_UNPROCESSED_PAUSE_S * 2**attempt)
            left = self._tables.client.batch_write_item(RequestItems=left).get("UnprocessedItems") or {}
            if not left:
                return
        waiting = sum(map(len, left.values()))
        raise self._tables.unavailable(f"{waiting} of {len(items)} items of a batch are not taken: throttled")

    def _serve(self, r: FailoverRanking, encoded: bytes) -> None:
        """Put it where the latest is, unless that is of the same sequence or a higher one."""
        self._tables.conditionally(
            lambda client: client.put_item(
                TableName=self._tables.name(LATEST),
                Item={
                    "primary_region": {"S": r.primary_region},
                    "sequence": {"N": str(r.sequence)},
                    "decided_at_ms": {"N": str(r.decided_at_ms)},
                    "record": {"B": encoded},
                    **({"target_region": {"S": r.target_region}} if r.target_region is not None else {}),
                },
                ConditionExpression="attribute_not_exists(primary_region) OR #sequence < :sequence",
                ExpressionAttributeNames={"#sequence": "sequence"},
                ExpressionAttributeValues={":sequence": {"N": str(r.sequence)}},
            )
        )

    def _judge(self, record: FailoverConfiguration, place: str, applied_at_ms: int) -> None:
        """Put the version into force if it is based on the one that is; both are seen at once, or neither is."""
        while True:
            now = self._tables.in_force(record.primary_region)
            if not now.follows(record, place):
                log.info("%s: version %d is not the next after %d, or is there",
                         record.primary_region, record.version, now.version)  # fmt: skip
                return
            if self._tables.conditionally(self._into_force(now, record, place, applied_at_ms)):
                return  # else another sink was faster: look again

    def _into_force(
        self, now: InForce, record: FailoverConfiguration, place: str, applied_at_ms: int
    ) -> Callable[[Any], Any]:
        table, primary = self._tables.name(CONFIGURATIONS), {"S": record.primary_region}
        condition: dict[str, Any] = (
            {
                "ConditionExpression": "in_force = :version AND place = :place",
                "ExpressionAttributeValues": {":version": {"N": str(now.version)}, ":place": {"S": now.place}},
            }
            if now.version
            else {"ConditionExpression": "attribute_not_exists(primary_region)"}
        )
        head = {"primary_region": primary, "version": {"N": str(HEAD)}, "in_force": {"N": str(record.version)},
                "place": {"S": place}}  # fmt: skip
        version = {
            "primary_region": primary,
            "version": {"N": str(record.version)},
            "based_on": {"N": str(record.based_on)},
            "author": {"S": record.author},
            "applied_at_ms": {"N": str(applied_at_ms)},
            "record": {"B": encode(record)},
        }
        return lambda client: client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": table, "Item": head, **condition}},
                {"Put": {"TableName": table, "Item": version}},
            ]
        )


def _bytes_of(record: FailoverRanking | FailoverConfiguration) -> bytes:
    encoded = encode(record)
    if len(encoded) > _RECORD_BYTES_MAX:
        raise CodecError(Reason.OUT_OF_RANGE, f"{len(encoded)} bytes are more than an item of DynamoDB takes")
    return encoded
