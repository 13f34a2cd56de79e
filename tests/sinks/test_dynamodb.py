"""DynamoDB: what both stores promise, and what is particular about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import doctor_stores as doctor
from infra.findings import BROKEN, OK
from infra.stores.servers import DynamoDbServer
from schemas.errors import StoreUnavailableError
from tests.sinks.conftest import Pipeline
from tests.sinks.every_store import EveryStore
from tests.sinks.rollback import rolled_back_to_any_version
from tests.sinks.store_kills import exactly_once_through_kills
from tests.sinks.store_targets import DynamoDbTarget


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """DynamoDB Local takes any."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
def new_store(dynamodb_server: DynamoDbServer) -> DynamoDbTarget:
    return DynamoDbTarget(dynamodb_server)


@pytest.fixture(scope="module")
def shared(dynamodb_server: DynamoDbServer) -> DynamoDbTarget:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        target = DynamoDbTarget(dynamodb_server)
        target.reader().migrate()
    return target


@pytest.fixture
def store(shared: DynamoDbTarget) -> DynamoDbTarget:
    return shared


class TestDynamoDb(EveryStore):
    pass


def test_without_credentials_it_says_what_to_set(
    new_store: DynamoDbTarget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreUnavailableError) as raised:
        new_store.reader().migrate()
    assert "AWS_ACCESS_KEY_ID" in raised.value.do


def test_the_doctor_tells_whether_the_tables_are_there(new_store: DynamoDbTarget, store: DynamoDbTarget) -> None:
    found = doctor.dynamodb(store.settings, "")
    assert found.status == OK, found
    found = doctor.dynamodb(new_store.settings, "")
    assert found.status == BROKEN
    assert "stores migrate" in found.do


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("rows", "away_s"),
    [pytest.param(1_100, 0, id="short"), pytest.param(20_000, 120, id="long", marks=pytest.mark.soak)],
)
def test_sink_killed_twice_and_store_once_everything_is_there_exactly_once(
    new_store: DynamoDbTarget, pipeline: Pipeline, tmp_path: Path, rows: int, away_s: float
) -> None:
    print(exactly_once_through_kills(new_store, pipeline, tmp_path, rows=rows, away_s=away_s))


@pytest.mark.kafka
@pytest.mark.soak
def test_a_configuration_is_rolled_back_to_any_version_that_was_in_force(
    new_store: DynamoDbTarget, pipeline: Pipeline, tmp_path: Path
) -> None:
    rolled_back_to_any_version(new_store, pipeline, tmp_path)
