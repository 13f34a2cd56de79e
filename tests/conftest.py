"""What all tests share: one real broker and one real store of each kind a session; Kafka and Redis may be named by the
environment instead.

They keep what earlier tests wrote, so a test takes topics, groups and keys of names that no other test has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from infra import redis
from infra.kafka import cluster
from infra.stores import servers
from schemas import wire
from schemas.config import Registry
from schemas.registry import SchemaRegistry
from tests.registry import RegistryServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest are left to `make soak`; files with long ones go first, so that no process begins one at the end."""
    if "PROXIMA_SOAK" not in os.environ:
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="minutes of a CPU: set PROXIMA_SOAK=1 (make soak)"))
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Broker]:
    """One broker; `.bootstrap` is its address. A test that kills brokers starts its own."""
    with cluster.existing_or_started(log_dir=tmp_path_factory.mktemp("kafka-logs")) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Store]:
    """One server; `.url` is its address. A test that kills it starts its own."""
    folder = tmp_path_factory.mktemp("redis")
    with redis.existing_or_started(data_dir=folder, log_dir=folder) as server:
        yield server


@pytest.fixture(scope="session")
def cassandra_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.CassandraServer]:
    """One node, which takes 600 MB and up to half a minute: all its tests are in one file. It asks for a password."""
    from tests.sinks.store_targets import make_role  # noqa: PLC0415 - loads both stores' drivers

    folder = tmp_path_factory.mktemp("cassandra")
    with servers.CassandraServer.start(data_dir=folder, log_dir=folder, tls=True, password=True) as server:
        make_role(server)
        yield server


@pytest.fixture(scope="session")
def dynamodb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.DynamoDbServer]:
    """DynamoDB Local, with its data on disk."""
    folder = tmp_path_factory.mktemp("dynamodb")
    with servers.DynamoDbServer.start(data_dir=folder, log_dir=folder) as server:
        yield server


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """One schema registry; `.url` is its Confluent API."""
    with RegistryServer.start(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def registry_in_use(registry: RegistryServer) -> Iterator[RegistryServer]:
    """This process writes in the registry's format, until the test ends."""
    wire.use(SchemaRegistry(Registry(url=registry.url)))
    yield registry
    wire.use(None)
