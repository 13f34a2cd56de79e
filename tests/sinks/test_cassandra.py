"""Cassandra: what both stores promise, and what is particular about it. One file: its node takes 600 MB."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import doctor_stores as doctor
from infra.findings import BROKEN, WARNING
from infra.processes import wait_until
from infra.stores.cassandra import CassandraStore
from infra.stores.servers import SUPERUSER, CassandraServer
from schemas.errors import ConfigError, StoreUnavailableError
from schemas.stores import Cassandra
from sinks.cassandra import CassandraSink
from tests.infra.commands import fails
from tests.sinks.conftest import Pipeline
from tests.sinks.every_store import EveryStore
from tests.sinks.rankings import ranking
from tests.sinks.rollback import rolled_back_to_any_version
from tests.sinks.store_kills import exactly_once_through_kills
from tests.sinks.store_targets import (
    AT_MS,
    PASSWORD,
    ROLE,
    TARGETS,
    CassandraTarget,
    as_superuser,
    configuration,
    meta,
    weights,
)


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


def test_a_wrong_password_is_one_clear_line_and_the_right_one_is_taken_up_without_a_restart(
    store: CassandraTarget, tmp_path: Path
) -> None:
    config = store.config(tmp_path)
    secret = tmp_path / "cassandra-password"
    secret.write_text("guessed")
    said = fails(1, "history", "eu-west-1", "--config", config)
    assert (
        "Cassandra lets 'proxima_tests' not in: Provided username proxima_tests and/or password are incorrect" in said
    )
    assert "password_file" in said
    assert "guessed" not in said
    assert len(said.splitlines()) <= 2, said
    nobody = store.settings.model_copy(update={"username": ""})
    with CassandraStore(nobody) as reader, pytest.raises(StoreUnavailableError, match="lets nobody in without a name"):
        reader.latest("nobody")
    sink = CassandraSink(store.settings.model_copy(update={"password_file": secret}))
    sink.add(weights("rotated", 0), meta("path-weights", 0))
    with pytest.raises(StoreUnavailableError, match="lets 'proxima_tests' not in"):
        sink.flush()
    secret.write_text(PASSWORD)
    sink.flush()
    sink.close()
    with store.reader() as reader:
        assert len(list(reader.metrics("rotated", AT_MS, AT_MS + 1))) == len(TARGETS)


def test_the_doctor_tells_what_a_cluster_lacks(store: CassandraTarget) -> None:
    found = doctor.cassandra(store.settings)
    assert (found.status, found.do.partition(";")[0]) == (WARNING, "fine for a test")
    assert "1 replica in datacenter1" in found.found
    for changed, said, do in (
        ({"password": "guessed"}, "lets 'proxima_tests' not in", "password_file"),
        ({"keyspace": "nobody"}, "nobody", "stores migrate"),
        ({"password_file": Path("/nonexistent")}, "password_file", "a file that can be read"),
    ):
        found = doctor.cassandra(store.settings.model_copy(update=changed))
        assert found.status == BROKEN
        assert said in found.found
        assert do in found.do


def test_to_write_and_read_a_role_needs_modify_and_select_and_is_told_what_it_lacks(store: CassandraTarget) -> None:
    writer, keyspace = "a_writer", store.settings.keyspace
    as_superuser(store.server, f"CREATE ROLE {writer} WITH LOGIN = true AND PASSWORD = '{PASSWORD}'")
    as_superuser(store.server, f"GRANT SELECT ON KEYSPACE {keyspace} TO {writer}")
    settings = store.settings.model_copy(update={"username": writer})
    sink = CassandraSink(settings)
    sink.add(weights("granted", 0), meta("path-weights", 0))
    sink.add(ranking("granted", 1), meta("failover-rankings", 0))
    sink.add(configuration(1, primary_region="granted"), meta("failover-config", 0, key="granted"))
    with pytest.raises(StoreUnavailableError, match=f"{writer} has no MODIFY permission") as raised:
        sink.flush()
    assert "docs/stores.md" in raised.value.do
    as_superuser(store.server, f"GRANT MODIFY ON KEYSPACE {keyspace} TO {writer}")

    def is_written() -> bool:
        try:
            sink.flush()
        except StoreUnavailableError:
            return False
        return True

    wait_until(is_written, 30, "the node's cache of permissions to expire")  # two seconds
    sink.close()
    with CassandraStore(settings) as reader:
        assert len(list(reader.metrics("granted", AT_MS, AT_MS + 1))) == len(TARGETS)
        assert reader.latest("granted") == ranking("granted", 1)
        assert [v.configuration.version for v in reader.configurations("granted")] == [1]


def test_who_migrates_waits_for_a_grant_that_the_node_has_not_seen_yet(new_store: CassandraTarget) -> None:
    superuser = {"username": SUPERUSER, "password": SUPERUSER}
    assert len(CassandraStore(new_store.settings.model_copy(update=superuser)).migrate()) == 1
    with pytest.raises(StoreUnavailableError, match=f"{ROLE} has no SELECT permission"):
        new_store.reader().latest("nobody")  # and that, the node remembers
    as_superuser(new_store.server, f"GRANT ALL ON KEYSPACE {new_store.settings.keyspace} TO {ROLE}")
    assert new_store.reader().migrate() == []


@pytest.mark.kafka
def test_a_configuration_is_rolled_back_to_any_version_that_was_in_force(
    new_store: CassandraTarget, pipeline: Pipeline, tmp_path: Path
) -> None:
    rolled_back_to_any_version(new_store, pipeline, tmp_path)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("rows", "away_s"),
    [
        pytest.param(3_300, 0, id="short"),
        pytest.param(300_000, 120, id="long", marks=pytest.mark.soak),
    ],
)
def test_sink_killed_twice_and_store_once_everything_is_there_exactly_once(
    new_store: CassandraTarget, pipeline: Pipeline, tmp_path: Path, rows: int, away_s: float
) -> None:
    print(exactly_once_through_kills(new_store, pipeline, tmp_path, rows=rows, away_s=away_s))
