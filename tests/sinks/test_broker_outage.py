"""A sink whose broker is killed: it goes on when the broker does, and nothing is lost or committed twice."""

from __future__ import annotations

import pytest

from infra.kafka.admin import create_topics
from infra.kafka.cluster import KafkaCluster
from infra.processes import wait_until
from tests.sinks.conftest import Pipeline
from tests.sinks.rankings import PRIMARIES, committed, ends, latest_of, publish, ranking
from tests.sinks.targets import RedisTarget

pytestmark = pytest.mark.kafka


def test_a_killed_broker_that_comes_back_is_a_pause(redis_target: RedisTarget) -> None:
    rankings = [ranking(p, s) for s in range(1, 101) for p in PRIMARIES]
    with KafkaCluster.start() as cluster:
        pipeline = Pipeline(cluster.bootstrap, "")
        create_topics(cluster.bootstrap)
        publish(cluster.bootstrap, "", rankings[:250])
        with pipeline.running(redis_target.open()):
            wait_until(lambda: redis_target.served() == latest_of(rankings[:250]), 30, "the first rankings")
            cluster.kill(1)
            cluster.restart(1)
            publish(cluster.bootstrap, "", rankings[250:])
            wait_until(lambda: redis_target.served() == latest_of(rankings), 60, "the rest")
        assert committed(cluster.bootstrap, "", "test") == ends(cluster.bootstrap, "")


def test_a_sink_can_be_stopped_while_its_broker_is_away(redis_target: RedisTarget) -> None:
    with KafkaCluster.start() as cluster:
        create_topics(cluster.bootstrap)
        publish(cluster.bootstrap, "", [ranking(sequence=1)])
        with Pipeline(cluster.bootstrap, "").running(redis_target.open()):  # which joins within 30 s, or fails
            wait_until(lambda: redis_target.served() == {PRIMARIES[0]: 1}, 30, "the ranking")
            cluster.kill(1)
