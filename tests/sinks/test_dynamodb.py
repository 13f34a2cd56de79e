"""DynamoDB: what both stores promise, and what is particular about it."""

from __future__ import annotations

import pytest

from infra.stores.servers import DynamoDbServer
from tests.sinks.every_store import EveryStore
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
