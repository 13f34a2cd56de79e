"""DynamoDB's tables as numbered steps, and how they are taken: once each, whoever and however many try.

As with Cassandra (cassandra_schema.py): what was done is in the table `schema`, one holds a lock that expires by
itself, and a step may be taken again.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Final

from botocore.exceptions import ClientError

from infra.processes import wait_until
from sinks.dynamodb_tables import (
    CONFIGURATIONS,
    LATEST,
    MIGRATIONS_KEY,
    PATH_METRICS,
    RANKINGS,
    SCHEMA,
    SCHEMA_VERSION,
    Tables,
)

LOCK_TTL_MS: Final = 120_000
_ACTIVE_TIMEOUT_S: Final = 120.0
_LOCK: Final = "-1"
"""In `schema`, the version of the item that is the lock; steps are numbered from 1."""


@dataclass(frozen=True, slots=True)
class Table:
    """Key attributes by name and type (S or N), the first the partition's; the attribute that items expire by."""

    name: str
    keys: tuple[tuple[str, str], ...]
    expires_by: str | None = None


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    description: str
    tables: tuple[Table, ...]


_SCHEMA: Final = Table(SCHEMA, (("name", "S"), ("version", "N")))
# Append only: what an account has gone through is never changed, it is gone on from.
MIGRATIONS: Final = (
    Migration(
        1,
        "path metrics and rankings by time, the latest ranking, configurations by version",
        (
            Table(PATH_METRICS, (("bucket", "S"), ("at", "S")), "expires_at_s"),
            Table(RANKINGS, (("bucket", "S"), ("at", "S")), "expires_at_s"),
            Table(LATEST, (("primary_region", "S"),)),
            Table(CONFIGURATIONS, (("primary_region", "S"), ("version", "N"))),
        ),
    ),
)


def migrate(tables: Tables) -> list[str]:
    """Take the steps that are missing; raises boto's errors, and ProximaError when another holds the lock on."""
    _make(tables, _SCHEMA)
    if tables.schema_version() >= SCHEMA_VERSION:
        return []
    holder = uuid.uuid4().hex
    wait_until(
        lambda: _locked(tables, holder),
        LOCK_TTL_MS / 1000 + 30.0,
        "the lock of the schema, which another `stores migrate` holds",
        poll_s=0.2,
    )
    told = []
    try:
        for m in MIGRATIONS[tables.schema_version() :]:
            for table in m.tables:
                _make(tables, table)
            tables.client.put_item(
                TableName=tables.name(SCHEMA),
                Item={
                    "name": {"S": MIGRATIONS_KEY},
                    "version": {"N": str(m.version)},
                    "description": {"S": m.description},
                    "taken_at_ms": {"N": str(time.time_ns() // 1_000_000)},
                },
            )
            told.append(f"version {m.version}: {m.description}")
    finally:
        tables.conditionally(
            lambda client: client.delete_item(
                TableName=tables.name(SCHEMA),
                Key={"name": {"S": MIGRATIONS_KEY}, "version": {"N": _LOCK}},
                ConditionExpression="holder = :holder",
                ExpressionAttributeValues={":holder": {"S": holder}},
            )
        )
    return told


def _locked(tables: Tables, holder: str) -> bool:
    now_ms = time.time_ns() // 1_000_000
    return tables.conditionally(
        lambda client: client.put_item(
            TableName=tables.name(SCHEMA),
            Item={
                "name": {"S": MIGRATIONS_KEY},
                "version": {"N": _LOCK},
                "holder": {"S": holder},
                "until_ms": {"N": str(now_ms + LOCK_TTL_MS)},
            },
            ConditionExpression="attribute_not_exists(holder) OR until_ms < :now",
            ExpressionAttributeValues={":now": {"N": str(now_ms)}},
        )
    )


def _make(tables: Tables, table: Table) -> None:
    """The table, if it is not there yet, ready to be used."""
    name, client = tables.name(table.name), tables.client
    try:
        client.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in table.keys],
            KeySchema=[{"AttributeName": key, "KeyType": kind}
                       for (key, _), kind in zip(table.keys, ("HASH", "RANGE"), strict=False)],
            BillingMode="PAY_PER_REQUEST",
        )  # fmt: skip
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceInUseException":  # it is there, or another makes it
            raise
    wait_until(
        lambda: client.describe_table(TableName=name)["Table"]["TableStatus"] == "ACTIVE",
        _ACTIVE_TIMEOUT_S,
        f"table {name}",
        poll_s=0.2,
    )
    if table.expires_by is not None:
        found = client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]["TimeToLiveStatus"]
        if found not in ("ENABLED", "ENABLING"):
            client.update_time_to_live(
                TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": table.expires_by}
            )
