"""A configuration changed and taken back, by the commands that people use, on a real worker and a store's sink."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

from infra.processes import wait_until
from schemas.records import FailoverConfiguration
from tests.infra.commands import fails, lines, running, succeeds
from tests.sinks.conftest import Pipeline
from tests.sinks.store_targets import StoreTarget

EXAMPLES = Path(__file__).parents[2] / "infra" / "examples"


def rolled_back_to_any_version(store: StoreTarget, pipeline: Pipeline, tmp_path: Path) -> None:
    """Two versions, back to the first, which is a third; and back to the second, which is a fourth."""
    env = {"PROXIMA_KAFKA__BOOTSTRAP": pipeline.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": pipeline.prefix}
    config = ("--config", store.config(tmp_path))
    succeeds("stores", "migrate", *config, **env)
    reader = store.reader(pipeline.prefix)

    def versions(count: int) -> list[FailoverConfiguration]:
        wait_until(lambda: len(reader.configurations("us-east-1")) == count, 30, f"{count} versions")
        return [v.configuration for v in reader.configurations("us-east-1")]

    with (
        running("worker", log_path=tmp_path / "worker.log", **env),
        running("sink", store.name, *config, log_path=tmp_path / "sink.log", **env),
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
        succeeds("config", "rollback", "us-east-1", "--to", "2", *config, **env)
        fourth = versions(4)[-1]
        assert (fourth.based_on, fourth.author, fourth.policy) == (3, getpass.getuser(), second.policy)
        shown = lines("config", "history", "us-east-1", "--json", *config, **env)
        assert [v["configuration"]["version"] for v in shown] == [1, 2, 3, 4]
        assert "version 3  by me" in succeeds("config", "history", "us-east-1", *config, **env).splitlines()[-2]
    reader.close()
