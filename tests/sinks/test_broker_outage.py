"""A sink whose broker is killed: it goes on when the broker does, and can be stopped when it does not."""

from __future__ import annotations

import pytest

from infra.kafka.admin import create_topics
from infra.kafka.cluster import KafkaCluster
from infra.processes import wait_until
from tests.sinks.conftest import Pipeline
from tests.sinks.rankings import PRIMARIES, committed, ends, latest_of, publish, ranking
from tests.sinks.targets import RedisTarget

pytestmark = pytest.mark.kafka


def test_a_killed_broker_is_a_pause_and_no_reason_to_hang(redis_target: RedisTarget) -> None:
    rankings = [ranking(p, s) for s in range(1, 101) for p in PRIMARIES]
    with KafkaCluster.start() as cluster:
        bootstrap = cluster.bootstrap
        create_topics(bootstrap)
        publish(bootstrap, "", rankings[:250])
        with Pipeline(bootstrap, "").running(redis_target.open()):  # it has to end within 30 s
            wait_until(lambda: redis_target.served() == latest_of(rankings[:250]), 30, "the first rankings")
            cluster.kill(1)
            cluster.restart(1)
            publish(bootstrap, "", rankings[250:])
            wait_until(lambda: redis_target.served() == latest_of(rankings), 60, "the rest")
            wait_until(lambda: committed(bootstrap, "", "test") == ends(bootstrap, ""), 30, "the commit")
            cluster.kill(1)
