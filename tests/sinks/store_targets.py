"""Cassandra and DynamoDB for one suite: tables of a test's own, on a server of the session."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from infra.processes import wait_until
from infra.stores.cassandra import CassandraStore
from infra.stores.dynamodb import DynamoDbStore
from infra.stores.reading import Store
from infra.stores.servers import SUPERUSER, CassandraServer, DynamoDbServer
from schemas.codec import decode
from schemas.errors import StoreUnavailableError
from schemas.records import FailoverConfiguration, FailoverRanking, PathWeights
from schemas.stores import Cassandra, DynamoDb
from sinks.cassandra import CassandraSink
from sinks.cassandra_connection import Connection, reaching
from sinks.dynamodb import DynamoDbSink
from sinks.dynamodb_tables import CONFIGURATIONS, LATEST, PATH_METRICS, RANKINGS, Tables
from sinks.kept import METRICS
from sinks.sink import Meta
from tests.sinks.rankings import PRIMARIES

YEARS_S = 7300 * 86_400  # the tests' records are of 2023
AT_MS = 1_700_000_000_000
TARGETS = ("eu-central-1", "us-west-2", "ap-east-1", "ca-central-1")


ROLE, PASSWORD = "proxima_tests", "only for tests"


def make_role(server: CassandraServer) -> None:
    """For the tests' clients, on a node that asks who comes; with the rights that docs/stores.md names, and no more."""
    as_superuser(server, f"CREATE ROLE {ROLE} WITH LOGIN = true AND PASSWORD = '{PASSWORD}'")
    as_superuser(server, f"GRANT CREATE ON ALL KEYSPACES TO {ROLE}")  # what it has made is its own


def as_superuser(server: CassandraServer, cql: str) -> None:
    settings = Cassandra(port=server.port, username=SUPERUSER, password=SUPERUSER)
    connection = wait_until(lambda: _connected(settings), 30, "Cassandra's first role")
    assert connection is not None
    try:
        connection.session.execute(cql)
    finally:
        connection.close()


def _connected(settings: Cassandra) -> Connection | None:
    try:
        with reaching(settings):
            return Connection(settings, version=None)
    except StoreUnavailableError:
        return None


class StoreTarget(Protocol):
    """One store with tables of its own, not yet made."""

    name: str

    def open(self) -> CassandraSink | DynamoDbSink: ...

    def reader(self, prefix: str = "") -> Store: ...

    def config(self, folder: Path, extra: str = "") -> Path:
        """A file for the command line."""

    def tables(self) -> dict[str, Any]:
        """Everything that is kept, by table, to compare."""

    def latest(self) -> dict[str, int]: ...

    def destroy(self) -> None: ...

    def mend(self) -> None: ...


class CassandraTarget:
    name = "cassandra"

    def __init__(self, server: CassandraServer, keyspace: str | None = None) -> None:
        self.server = server
        self.settings = Cassandra(
            port=server.port, keyspace=keyspace or f"test_{uuid.uuid4().hex[:12]}", replication={"datacenter1": 1},
            metrics_ttl_s=YEARS_S, rankings_ttl_s=YEARS_S, timeout_ms=10_000, username=ROLE, password=PASSWORD,
        )  # fmt: skip

    def open(self) -> CassandraSink:
        return CassandraSink(self.settings)

    def reader(self, prefix: str = "") -> Store:  # noqa: ARG002 - its keyspace is one pipeline's
        return CassandraStore(self.settings)

    def config(self, folder: Path, extra: str = "") -> Path:
        path = folder / "cassandra.toml"
        secret = folder / "cassandra-password"
        secret.write_text(f"{PASSWORD}\n")
        path.write_text(
            f'{extra}\n[cassandra]\nport = {self.server.port}\nkeyspace = "{self.settings.keyspace}"\n'
            f'username = "{ROLE}"\npassword_file = "{secret}"\n'
            f"replication = {{datacenter1 = 1}}\nmetrics_ttl_s = {YEARS_S}\nrankings_ttl_s = {YEARS_S}\n"
        )
        return path

    def tables(self) -> dict[str, Any]:
        connection = Connection(self.settings)
        try:
            return {
                table: sorted(repr(tuple(row)) for row in connection.session.execute(f"SELECT * FROM {table}"))  # noqa: S608
                for table in ("path_metrics", "rankings", "latest_rankings", "configurations")
            }
        finally:
            connection.close()

    def latest(self) -> dict[str, int]:
        connection = Connection(self.settings)
        try:
            rows = connection.session.execute("SELECT primary_region, sequence, record FROM latest_rankings")
            found = {row.primary_region: (row.sequence, decode(row.record, FailoverRanking).sequence) for row in rows}
        finally:
            connection.close()
        assert all(column == whole for column, whole in found.values())
        return {primary: sequence for primary, (sequence, _) in found.items()}

    def destroy(self) -> None:
        self.server.kill()

    def mend(self) -> None:
        self.server.restart()


class DynamoDbTarget:
    name = "dynamodb"

    def __init__(self, server: DynamoDbServer) -> None:
        self.server = server
        self.settings = DynamoDb(
            endpoint_url=server.endpoint_url, table_prefix=f"test-{uuid.uuid4().hex[:8]}-",
            metrics_ttl_s=YEARS_S, rankings_ttl_s=YEARS_S,
        )  # fmt: skip

    def open(self) -> DynamoDbSink:
        return DynamoDbSink(self.settings)

    def reader(self, prefix: str = "") -> Store:
        return DynamoDbStore(self.settings, prefix=prefix)

    def config(self, folder: Path, extra: str = "") -> Path:
        path = folder / "dynamodb.toml"
        path.write_text(
            f'{extra}\n[dynamodb]\nendpoint_url = "{self.server.endpoint_url}"\n'
            f'table_prefix = "{self.settings.table_prefix}"\n'
            f"metrics_ttl_s = {YEARS_S}\nrankings_ttl_s = {YEARS_S}\n"
        )
        return path

    def tables(self) -> dict[str, Any]:
        return {name: sorted(map(repr, self.items(name))) for name in (PATH_METRICS, RANKINGS, LATEST, CONFIGURATIONS)}

    def items(self, table: str) -> list[Any]:
        tables = Tables(self.settings)
        pages = tables.client.get_paginator("scan").paginate(TableName=tables.name(table), ConsistentRead=True)
        return [dict(sorted(item.items())) for page in pages for item in page["Items"]]

    def latest(self) -> dict[str, int]:
        return {item["primary_region"]["S"]: int(item["sequence"]["N"]) for item in self.items(LATEST)}

    def destroy(self) -> None:
        self.server.kill()

    def mend(self) -> None:
        self.server.restart()


def weights(
    primary: str = PRIMARIES[0], tick: int = 0, targets: Iterable[str] = TARGETS, **changed: Any
) -> PathWeights:
    """Every value is another for every path and tick, so that none can be mistaken for another."""
    names = list(targets)
    columns: dict[str, Any] = {
        name: [round(1 + tick + i / 100 + n / 10_000, 6) for i in range(len(names))] for n, name in enumerate(METRICS)
    }
    columns["bandwidth_bps"] = [None] * len(names)
    at_ms = AT_MS + 1000 * tick
    fields: dict[str, Any] = {
        "primary_region": primary,
        "decided_at_ms": at_ms,
        "evidence_at_ms": at_ms - 1,
        "targets": names,
    }
    return PathWeights(**(fields | columns | changed))


def configuration(version: int, based_on: int | None = None, **changed: Any) -> FailoverConfiguration:
    fields: dict[str, Any] = {
        "primary_region": PRIMARIES[0],
        "potential_failover_regions": ["eu-central-1", "us-east-1"],
        "version": version,
        "based_on": version - 1 if based_on is None else based_on,
        "weights": {"us-east-1": version / 100},
    }
    return FailoverConfiguration(**(fields | changed))


def meta(topic: str, offset: int, appended_at_ms: int | None = None, key: str = PRIMARIES[0]) -> Meta:
    return Meta(topic, 0, offset, AT_MS + offset if appended_at_ms is None else appended_at_ms, key.encode())
