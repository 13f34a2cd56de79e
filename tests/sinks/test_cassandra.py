"""Cassandra: what both stores promise, and what is particular about it. One file: its node takes 600 MB."""

from __future__ import annotations

import pytest

from infra.stores.servers import CassandraServer
from tests.sinks.every_store import EveryStore
from tests.sinks.store_targets import CassandraTarget


@pytest.fixture
def new_store(cassandra_server: CassandraServer) -> CassandraTarget:
    return CassandraTarget(cassandra_server)


@pytest.fixture(scope="module")
def shared(cassandra_server: CassandraServer) -> CassandraTarget:
    target = CassandraTarget(cassandra_server)
    target.reader().migrate()
    return target


@pytest.fixture
def store(shared: CassandraTarget) -> CassandraTarget:
    return shared


class TestCassandra(EveryStore):
    pass
