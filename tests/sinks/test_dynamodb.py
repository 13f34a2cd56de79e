"""DynamoDB: what both stores promise, and what is particular about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from infra.processes import wait_until
from infra.stores.servers import DynamoDbServer
from schemas.records import FailoverConfiguration
from tests.infra.commands import fails, lines, running, succeeds
from tests.sinks.conftest import Pipeline
from tests.sinks.every_store import EveryStore
from tests.sinks.store_kills import exactly_once_through_kills
from tests.sinks.store_targets import DynamoDbTarget

EXAMPLES = Path(__file__).parents[2] / "infra" / "examples"
soak = pytest.mark.skipif("PROXIMA_SOAK" not in os.environ, reason="minutes long: set PROXIMA_SOAK=1 (make soak)")


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


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("rows", "away_s"),
    [pytest.param(1_100, 0, id="short"), pytest.param(20_000, 120, id="long", marks=[pytest.mark.slow, soak])],
)
def test_sink_killed_twice_and_store_once_everything_is_there_exactly_once(
    new_store: DynamoDbTarget, pipeline: Pipeline, tmp_path: Path, rows: int, away_s: float
) -> None:
    print(exactly_once_through_kills(new_store, pipeline, tmp_path, rows=rows, away_s=away_s))


@pytest.mark.kafka
def test_a_configuration_is_rolled_back_to_any_version_that_was_in_force(
    new_store: DynamoDbTarget, pipeline: Pipeline, tmp_path: Path
) -> None:
    env = {"PROXIMA_KAFKA__BOOTSTRAP": pipeline.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": pipeline.prefix}
    config = ("--config", new_store.config(tmp_path))
    succeeds("stores", "migrate", *config, **env)
    reader = new_store.reader(pipeline.prefix)

    def versions(count: int) -> list[FailoverConfiguration]:
        wait_until(lambda: len(reader.configurations("us-east-1")) == count, 30, f"{count} versions")
        return [v.configuration for v in reader.configurations("us-east-1")]

    with (
        running("worker", log_path=tmp_path / "worker.log", **env),
        running("sink", "dynamodb", *config, log_path=tmp_path / "sink.log", **env),
    ):
        for file in ("regions.toml", "config.toml"):
            succeeds("config", "apply", EXAMPLES / file, **env)
        mine = tmp_path / "mine.toml"
        text = succeeds("config", "get", "us-east-1", **env).replace("\ndwell_ms = 5000", "\ndwell_ms = 6000")
        mine.write_text(text.replace("version = 1\n", "version = 2\n").replace("based_on = 0\n", "based_on = 1\n"))
        succeeds("config", "apply", mine, **env)
        first, second = versions(2)
        assert (first.policy.dwell_ms, second.policy.dwell_ms) == (5000, 6000)
        assert "there is 1, 2" in fails(1, "config", "rollback", "us-east-1", "--to", "9", *config, **env)
        answer = json.loads(
            succeeds("config", "rollback", "us-east-1", "--to", "1", "--author", "me", "--json", *config, **env)
        )
        assert [(a["version"], a["outcome"]) for a in answer] == [(3, "accepted")]
        third = versions(3)[-1]
        assert (third.based_on, third.author, third.policy) == (2, "me", first.policy)
        assert third.potential_failover_regions == first.potential_failover_regions
        shown = lines("config", "history", "us-east-1", "--json", *config, **env)
        assert [v["configuration"]["version"] for v in shown] == [1, 2, 3]
        assert "version 3  by me" in succeeds("config", "history", "us-east-1", *config, **env).splitlines()[-1]
    reader.close()
