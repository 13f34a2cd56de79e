"""Cassandra: what both stores promise, and what is particular about it. One file: its node takes 600 MB."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.stores.cassandra import CassandraStore
from infra.stores.servers import CassandraServer
from schemas.errors import ConfigError, StoreUnavailableError
from schemas.stores import Cassandra
from tests.sinks.conftest import Pipeline
from tests.sinks.every_store import EveryStore
from tests.sinks.store_kills import exactly_once_through_kills
from tests.sinks.store_targets import AT_MS, CassandraTarget, meta, weights

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


def test_by_tls_it_is_spoken_to_only_if_its_certificate_is_trusted(store: CassandraTarget) -> None:
    trusting = store.settings.model_copy(update={"tls": True, "ca_file": store.server.ca_file})
    with CassandraStore(trusting) as reader:
        assert reader.latest("nobody") is None
        assert reader._connection is not None
        assert reader._connection._cluster.ssl_context is not None
    with (
        CassandraStore(store.settings.model_copy(update={"tls": True})) as reader,
        pytest.raises(StoreUnavailableError, match=r"(?i)certificate.verify.failed"),
    ):
        reader.latest("nobody")


def test_of_two_evaluations_in_one_millisecond_the_later_stays_whoever_writes_when(store: CassandraTarget) -> None:
    first, second = store.open(), store.open()
    twins = [weights("twins", 0, loss_ratio=[ratio] * 4) for ratio in (0.5, 0.25)]
    second.add(twins[1], meta("path-weights", 11, AT_MS))
    second.flush()
    first.add(twins[0], meta("path-weights", 10, AT_MS))  # a sink that lags
    first.flush()
    for sink in (first, second):
        sink.close()
    with store.reader() as reader:
        found = list(reader.metrics("twins", AT_MS, AT_MS + 1))
    assert [m.values["loss_ratio"] for m in found] == [0.25] * 4


def test_the_password_is_in_no_message_and_comes_from_its_file(store: CassandraTarget, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hush-hush\n")
    settings = store.settings.model_copy(update={"username": "me", "password_file": secret})
    assert settings.secret() == "hush-hush"
    stated = Cassandra(username="me", password=settings.secret(), hosts=("127.0.0.1",), port=1)
    assert "hush" not in repr(stated)
    with CassandraStore(stated) as reader, pytest.raises(StoreUnavailableError) as raised:
        reader.latest("nobody")
    assert "hush" not in str(raised.value)
    with pytest.raises(ConfigError, match="password_file"):
        settings.model_copy(update={"password_file": tmp_path / "missing"}).secret()


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("rows", "away_s"),
    [pytest.param(3_300, 0, id="short"), pytest.param(300_000, 120, id="long", marks=[pytest.mark.slow, soak])],
)
def test_sink_killed_twice_and_store_once_everything_is_there_exactly_once(
    new_store: CassandraTarget, pipeline: Pipeline, tmp_path: Path, rows: int, away_s: float
) -> None:
    print(exactly_once_through_kills(new_store, pipeline, tmp_path, rows=rows, away_s=away_s))
