"""A sink as the process that people start: configured from a file, killed, restarted, told to stop."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from infra.processes import ChildProcess, wait_until
from tests.infra.commands import fails, running
from tests.sinks.conftest import Pipeline
from tests.sinks.rankings import PRIMARIES, committed, ends, latest_of, publish, ranking
from tests.sinks.targets import JsonLinesTarget, RedisTarget, Target

pytestmark = pytest.mark.kafka


def start(target: Target, pipeline: Pipeline, folder: Path) -> ChildProcess:
    """`proxima sink` on the target."""
    environment = {"PROXIMA_KAFKA__BOOTSTRAP": pipeline.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": pipeline.prefix,
                   "PROXIMA_SINK__NAME": "test"}  # fmt: skip
    config = folder / "sink.toml"
    if isinstance(target, RedisTarget):
        config.write_text(f'[redis]\nurl = "{target.server.url}"\nretry_ms_max = 200\n')
        name = "redis"
    else:
        assert isinstance(target, JsonLinesTarget)
        config.write_text(f'[jsonlines]\npath = "{target.path}"\n')
        name = "jsonlines"
    return running("sink", name, "--config", config, log_path=folder / "sink.log", **environment)


def test_a_sink_killed_mid_stream_and_started_again_has_everything_once(
    target: Target, pipeline: Pipeline, tmp_path: Path
) -> None:
    rankings = [ranking(p, s) for s in range(1, 401) for p in PRIMARIES]
    publish(pipeline.bootstrap, pipeline.prefix, rankings[:1000])
    with start(target, pipeline, tmp_path) as first:
        wait_until(lambda: bool(target.served(pipeline.prefix)), 20, "the first rankings", children=[first])
        first.kill()
    publish(pipeline.bootstrap, pipeline.prefix, rankings[1000:])
    with start(target, pipeline, tmp_path) as second:
        wait_until(lambda: target.served(pipeline.prefix) == latest_of(rankings), 40, "the rest", children=[second])
        second.send_signal(signal.SIGTERM)
        assert second.wait(15) == 0
    if isinstance(target, JsonLinesTarget):
        found = sorted((line["primary_region"], line["sequence"]) for line in target.lines())
        assert found == sorted((r.primary_region, r.sequence) for r in rankings), "each exactly once"
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == ends(pipeline.bootstrap, pipeline.prefix)


def test_sigterm_flushes_commits_and_ends_well_while_the_store_is_down(
    redis_target: RedisTarget, pipeline: Pipeline, tmp_path: Path
) -> None:
    publish(pipeline.bootstrap, pipeline.prefix, [ranking(sequence=1)])
    redis_target.server.kill()
    with start(redis_target, pipeline, tmp_path) as sink:
        log = tmp_path / "sink.log"
        wait_until(lambda: log.exists() and "records wait" in log.read_text(), 20, "the outage", children=[sink])
        sink.send_signal(signal.SIGTERM)
        assert sink.wait(15) == 0
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == {}
    assert "Traceback" not in log.read_text()


def test_a_file_that_cannot_be_written_is_said_at_once(pipeline: Pipeline, tmp_path: Path) -> None:
    said = fails(1, "sink", "jsonlines", PROXIMA_KAFKA__BOOTSTRAP=pipeline.bootstrap,
                 PROXIMA_JSONLINES__PATH=str(tmp_path / "missing" / "x.jsonl"))  # fmt: skip
    assert said.startswith("proxima: No such file or directory")
