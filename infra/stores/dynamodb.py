"""DynamoDB, read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Self

from infra.stores import dynamodb_schema
from infra.stores.reading import PathMetric, Version, kept
from schemas.codec import decode
from schemas.records import FailoverConfiguration, FailoverRanking
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
from sinks.kept import DAY_MS, HOUR_MS, METRICS, buckets


class DynamoDbStore:
    """Tables of one pipeline; `prefix` is its topics'."""

    def __init__(self, settings: DynamoDb, *, prefix: str = "") -> None:
        self._settings = settings
        self._tables = Tables(settings, prefix)

    def migrate(self) -> list[str]:
        with self._tables.reaching():
            return dynamodb_schema.migrate(self._tables)

    def metrics(self, primary: str, from_ms: int, to_ms: int) -> Iterator[PathMetric]:
        for bucket_at_ms in buckets(*kept(from_ms, to_ms, self._settings.metrics_ttl_s), HOUR_MS):
            for item in self._between(PATH_METRICS, hour_bucket(primary, bucket_at_ms), from_ms, to_ms):
                decided_at, _, target = item["at"]["S"].partition("/")
                values = {name: float(item[name]["N"]) if name in item else None for name in METRICS}
                yield PathMetric(primary, target, int(decided_at), int(item["evidence_at_ms"]["N"]), values)

    def rankings(self, primary: str, from_ms: int, to_ms: int) -> Iterator[FailoverRanking]:
        for bucket_at_ms in buckets(*kept(from_ms, to_ms, self._settings.rankings_ttl_s), DAY_MS):
            for item in self._between(RANKINGS, day_bucket(primary, bucket_at_ms), from_ms, to_ms):
                yield decode(item["record"]["B"], FailoverRanking)

    def latest(self, primary: str) -> FailoverRanking | None:
        with self._tables.reaching():
            found = self._tables.client.get_item(
                TableName=self._tables.name(LATEST), Key={"primary_region": {"S": primary}}, ConsistentRead=True
            )
        return decode(found["Item"]["record"]["B"], FailoverRanking) if "Item" in found else None

    def configurations(self, primary: str) -> list[Version]:
        # What is in force is read first: its item was written with it, and those before it never change.
        with self._tables.reaching():
            in_force = self._tables.in_force(primary).version
        found = self._query(
            CONFIGURATIONS,
            "primary_region = :primary AND #key BETWEEN :first AND :last",
            "version",
            {":primary": {"S": primary}, ":first": {"N": str(HEAD + 1)}, ":last": {"N": str(in_force)}},
        ) if in_force else ()  # fmt: skip
        return [
            Version(decode(item["record"]["B"], FailoverConfiguration), int(item["applied_at_ms"]["N"]))
            for item in found
        ]

    def _between(self, table: str, bucket: str, from_ms: int, to_ms: int) -> Iterator[Any]:
        """What is not yet expired; DynamoDB purges it days later."""
        if from_ms >= to_ms:
            return
        # `at` goes on after the moment, so the last moment's text with nothing after it is before all of its items.
        between = {":bucket": {"S": bucket}, ":first": {"S": at(max(0, from_ms))}, ":last": {"S": at(to_ms)}}
        now_s = time.time()
        for item in self._query(table, "#bucket = :bucket AND #key BETWEEN :first AND :last", "at", between):
            if int(item["expires_at_s"]["N"]) > now_s:
                yield item

    def _query(self, table: str, condition: str, key: str, values: dict[str, Any]) -> Iterator[Any]:
        names = {"#key": key, **({"#bucket": "bucket"} if "#bucket" in condition else {})}  # a reserved word
        more: dict[str, Any] = {}
        while True:
            with self._tables.reaching():
                page = self._tables.client.query(
                    TableName=self._tables.name(table),
                    KeyConditionExpression=condition,
                    ExpressionAttributeNames=names,
                    ExpressionAttributeValues=values,
                    ConsistentRead=True,
                    **more,
                )
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def close(self) -> None:
        self._tables.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
