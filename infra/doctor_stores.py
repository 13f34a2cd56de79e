"""The stores and the schema registry as the doctor finds them: reached, made, and safe from a loss, or not.

Only what the configuration names is looked at, each for a few seconds at most; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from infra.findings import BROKEN, OK, WARNING, Finding
from schemas.config import Registry, SinkConfig
from schemas.errors import ConfigError, RegistryError, StoreUnavailableError
from schemas.stores import Cassandra, DynamoDb

TIMEOUT_MS: Final = 2000
"""For one request."""
_COPIES_MIN: Final = 3


def stores(config: SinkConfig) -> Iterator[Finding]:
    """What the file or the environment has a section for."""
    if "cassandra" in config.model_fields_set:
        yield cassandra(config.cassandra)
    if "dynamodb" in config.model_fields_set:
        yield dynamodb(config.dynamodb, config.kafka.topic_prefix)


def registry(settings: Registry) -> Finding:
    """Whether it answers, and has our schemas."""
    from schemas.registry import SchemaRegistry  # noqa: PLC0415 - who has none needs no HTTP client
    from schemas.wire import subjects  # noqa: PLC0415

    name = "registry"
    try:
        opened = SchemaRegistry(settings.model_copy(update={"timeout_ms": min(settings.timeout_ms, TIMEOUT_MS)}))
        there = [opened.has(subject, text) for subject, text in subjects()]
    except RegistryError as error:
        return Finding(name, BROKEN, f"{error.what} ({error.where})", error.do or "look at its log, and at [registry]")
    missing = there.count(False)
    if not missing:
        return Finding(name, OK, f"all {len(there)} schemas are at {settings.url}")
    found = f"{missing} of {len(there)} schemas are not at {settings.url}"
    if settings.register_schemas:
        return Finding(name, OK, f"{found}; what starts registers them")
    return Finding(name, BROKEN, found, "`proxima topics register` registers all")


def cassandra(settings: Cassandra) -> Finding:
    """Whether it lets us in, has our tables, and may lose a node."""
    from sinks.cassandra_connection import Connection, reaching  # noqa: PLC0415 - the driver takes half a second

    name = "cassandra"
    quick = settings.model_copy(update={"timeout_ms": min(settings.timeout_ms, TIMEOUT_MS)})
    try:
        with reaching(quick):
            connection = Connection(quick)
            try:
                asked = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s"
                replication = dict(connection.session.execute(asked, (settings.keyspace,)).one().replication)
            finally:
                connection.close()
    except ConfigError as error:
        return Finding(name, BROKEN, "; ".join(error.mistakes), "name a file that can be read")
    except StoreUnavailableError as error:
        return Finding(name, BROKEN, f"{error.what} ({error.where})", error.do)
    where = f"keyspace {settings.keyspace} at {', '.join(settings.hosts)}"
    copies = int(replication.get(settings.datacenter, 0))
    if not copies:
        held = ", ".join(sorted(dc for dc in replication if dc != "class")) or "none"
        do = "set [cassandra] datacenter to one of them, or alter the keyspace's replication"
        return Finding(name, BROKEN, f"{where} has no replica in {settings.datacenter}, but in {held}", do)
    if copies < _COPIES_MIN:
        found = f"{where} has {copies} replica{'s' * (copies > 1)} in {settings.datacenter}"
        do = f"fine for a test; with {_COPIES_MIN} a node may be away: ALTER KEYSPACE, then repair it"
        return Finding(name, WARNING, found, do)
    return Finding(name, OK, f"{where}, {copies} replicas in {settings.datacenter}")


def dynamodb(settings: DynamoDb, prefix: str) -> Finding:
    """Whether it lets us in, and has our tables."""
    from sinks.dynamodb_tables import CONFIGURATIONS, LATEST, PATH_METRICS, RANKINGS, Tables  # noqa: PLC0415

    tables = Tables(settings.model_copy(update={"timeout_ms": min(settings.timeout_ms, TIMEOUT_MS)}), prefix)
    try:
        with tables.reaching():
            tables.check()
            states = {
                name: tables.client.describe_table(TableName=tables.name(name))["Table"]["TableStatus"]
                for name in (PATH_METRICS, RANKINGS, LATEST, CONFIGURATIONS)
            }
    except StoreUnavailableError as error:
        return Finding("dynamodb", BROKEN, f"{error.what} ({error.where})", error.do)
    finally:
        tables.client.close()
    where = f"tables {tables.name('*')} at {settings.endpoint_url or settings.region}"
    waiting = [f"{name} is {state}" for name, state in states.items() if state not in ("ACTIVE", "UPDATING")]
    if waiting:
        return Finding("dynamodb", WARNING, f"{where}: {', '.join(waiting)}", "wait until they are ACTIVE")
    return Finding("dynamodb", OK, f"{where} are there")
