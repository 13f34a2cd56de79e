"""A pipeline in a schema registry's format decides what a fold without any registry decides, byte by byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.kafka.cluster import Broker
from tests.pipeline import Feed, Pipeline, judge, seed_from_environment
from tests.registry import RegistryServer
from tests.sinks.rankings import records_on

pytestmark = pytest.mark.kafka


def test_the_registrys_numbers_decide_nothing(kafka: Broker, registry_in_use: RegistryServer, tmp_path: Path) -> None:
    with Pipeline(kafka.bootstrap, tmp_path, REGISTRY__URL=registry_in_use.url) as pipeline:
        pipeline.start()
        pipeline.configure()
        with Feed(pipeline, seed_from_environment("a feed in our own format")) as feed:
            begin = len(pipeline.read("path-weights"))
            pipeline.wait(lambda: len(pipeline.read("path-weights")) > begin + 12, 60, "decisions")
            pipeline.kill("decide")
            pipeline.start("decide")
            feed.stop()
        pipeline.settle()
        pipeline.stop()
        verdict = judge(pipeline, feed)
    assert not pipeline.deaths, "\n".join(pipeline.deaths)
    assert not verdict.dead_letters
    for topic in ("observations", "path-weights", "failover-rankings", "engine-snapshots"):
        values = [value for _, _, value in records_on(kafka.bootstrap, pipeline.prefix + topic)]
        assert values
        assert {value[0] for value in values} == {0}, topic
