"""DynamoDB as the sink, the readers and the migrations see it: names of tables and keys, conditions, failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from schemas.errors import StoreUnavailableError
from schemas.stores import DynamoDb
from sinks.kept import InForce

SCHEMA_VERSION: Final = 1
"""What `proxima stores migrate` has to have brought the tables to."""
PATH_METRICS: Final = "path-metrics"
RANKINGS: Final = "rankings"
LATEST: Final = "latest-rankings"
CONFIGURATIONS: Final = "configurations"
SCHEMA: Final = "schema"
MIGRATIONS_KEY: Final = "proxima"
HEAD: Final = 0
"""In `configurations`, the version of the item that says which version is in force, and where its record stood."""


class Tables:
    """The client, the tables' names, and how failures are told; readers and migrations use it too."""

    def __init__(self, settings: DynamoDb, prefix: str = "") -> None:
        self._settings, self._prefix = settings, prefix
        timeout_s = settings.timeout_ms / 1000
        # A session of our own: boto3's default one belongs to whoever made it first, and is not for threads.
        self.client: Any = boto3.session.Session().client(
            "dynamodb",
            region_name=settings.region,
            endpoint_url=settings.endpoint_url,
            config=Config(
                connect_timeout=timeout_s,
                read_timeout=timeout_s,
                retries={"total_max_attempts": 1},  # the runner tries again, with its own pauses
                max_pool_connections=settings.in_flight_max + 2,
            ),
        )

    def name(self, table: str) -> str:
        return f"{self._prefix}{self._settings.table_prefix}{table}"

    def check(self) -> None:
        """Raises StoreUnavailableError: the tables are not there, or not those of this version."""
        if (found := self.schema_version()) < SCHEMA_VERSION:
            raise self._not_migrated(f"the schema is of version {found}, and {SCHEMA_VERSION} is needed")

    def schema_version(self) -> int:
        found = self.client.query(
            TableName=self.name(SCHEMA),
            KeyConditionExpression="#name = :name AND #version > :none",
            ExpressionAttributeNames={"#name": "name", "#version": "version"},
            ExpressionAttributeValues={":name": {"S": MIGRATIONS_KEY}, ":none": {"N": "0"}},
            ConsistentRead=True,
            ScanIndexForward=False,
            Limit=1,
        )["Items"]
        return int(found[0]["version"]["N"]) if found else 0

    def in_force(self, primary: str) -> InForce:
        key = {"primary_region": {"S": primary}, "version": {"N": str(HEAD)}}
        item = self.client.get_item(TableName=self.name(CONFIGURATIONS), Key=key, ConsistentRead=True).get("Item")
        return InForce(int(item["in_force"]["N"]), item["place"]["S"]) if item else InForce()

    def conditionally(self, write: Callable[[Any], Any]) -> bool:
        """Whether the condition held and it was written."""
        try:
            write(self.client)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                return False
            reasons = [reason.get("Code") for reason in error.response.get("CancellationReasons", ())]
            if code == "TransactionCanceledException" and {"ConditionalCheckFailed", "TransactionConflict"} & {
                *reasons
            }:
                return False
            raise
        return True

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """boto's errors become StoreUnavailableError, which says where and what to do."""
        try:
            yield
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                raise self._not_migrated("a table is missing") from error
            raise self.unavailable(f"{type(error).__name__}: {str(error)[:500]}") from error
        except NoCredentialsError as error:
            do = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role or a profile gives them"
            raise StoreUnavailableError(f"DynamoDB: {error}", where=self._where(), do=do) from error
        except BotoCoreError as error:
            raise self.unavailable(f"{type(error).__name__}: {str(error)[:500]}") from error

    def unavailable(self, what: str) -> StoreUnavailableError:
        do = "look whether it is up, at the credentials, and at the tables' limits"
        return StoreUnavailableError(f"DynamoDB: {what}", where=self._where(), do=do)

    def _not_migrated(self, what: str) -> StoreUnavailableError:
        do = "run `proxima stores migrate` with this configuration; the sink goes on then"
        return StoreUnavailableError(f"DynamoDB: {what}", where=self._where(), do=do)

    def _where(self) -> str:
        return f"tables {self.name('*')} at {self._settings.endpoint_url or self._settings.region}"


def at(at_ms: int) -> str:
    """A moment as text that sorts."""
    return f"{at_ms:015d}"


def hour_bucket(primary: str, at_ms: int) -> str:
    return f"{primary}/{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H}"


def day_bucket(primary: str, at_ms: int) -> str:
    return f"{primary}/{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d}"
