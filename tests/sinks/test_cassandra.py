"""Cassandra: what both stores promise, and what is particular about it. One file: its node takes 600 MB."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.stores.servers import CassandraServer
from tests.sinks.conftest import Pipeline
from tests.sinks.every_store import EveryStore
from tests.sinks.store_kills import exactly_once_through_kills
from tests.sinks.store_targets import CassandraTarget

soak = pytest.mark.skipif("PROXIMA_SOAK" not in os.environ, reason="minutes long: set PROXIMA_SOAK=1 (make soak)")


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


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("rows", "away_s"),
    [pytest.param(3_300, 0, id="short"), pytest.param(300_000, 120, id="long", marks=[pytest.mark.slow, soak])],
)
def test_sink_killed_twice_and_store_once_everything_is_there_exactly_once(
    new_store: CassandraTarget, pipeline: Pipeline, tmp_path: Path, rows: int, away_s: float
) -> None:
    print(exactly_once_through_kills(new_store, pipeline, tmp_path, rows=rows, away_s=away_s))
