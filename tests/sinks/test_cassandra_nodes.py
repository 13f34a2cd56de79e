"""Three nodes and one that is killed: a quorum is left, and nothing waits or is lost."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from infra.doctor_stores import cassandra as look
from infra.findings import OK
from infra.processes import wait_until
from infra.stores.servers import CassandraServer
from sinks.cassandra import CassandraSink
from tests.sinks.conftest import Pipeline
from tests.sinks.rankings import PRIMARIES, ranking
from tests.sinks.store_kills import TARGETS, check, ends, publish
from tests.sinks.store_targets import CassandraTarget, configuration, weights

pytestmark = [pytest.mark.kafka, pytest.mark.soak]  # three nodes, 2 GB
RECORDS = 1500


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[CassandraServer]]:
    folder = tmp_path_factory.mktemp("cassandra-nodes")
    started = CassandraServer.start_three(data_dir=folder, log_dir=folder)
    yield started
    for node in started:
        node.kill()


def test_with_three_replicas_the_sink_goes_on_through_kill_9_of_any_one_node(
    nodes: list[CassandraServer], pipeline: Pipeline
) -> None:
    store = CassandraTarget(nodes[0])
    store.settings = store.settings.model_copy(
        update={"hosts": tuple(node.address for node in nodes), "replication": {"datacenter1": 3}}
    )
    with store.reader() as reader:
        assert reader.migrate()
    assert look(store.settings).status == OK, look(store.settings)
    records = [weights(PRIMARIES[n % 5], n // 5, TARGETS) for n in range(RECORDS)]
    versions = [configuration(n) for n in range(1, 4)]
    with pipeline.running(CassandraSink(store.settings), batch_max=50) as runner:

        def written() -> int:
            return sum(runner._offsets.flushed.values())

        def written_beyond(before: int) -> bool:
            return written() > before

        for number, node in enumerate(nodes):
            publish(pipeline, "path-weights", records[number::3])
            sequences = range(number * 14 + 1, min(40, number * 14 + 14) + 1)
            publish(pipeline, "failover-rankings", [ranking(p, s) for s in sequences for p in PRIMARIES])
            publish(pipeline, "failover-config", versions[number : number + 1])
            wait_until(partial(written_beyond, written()), 60, "the sink to be in the middle of it")
            node.kill()
            wait_until(lambda: written() == ends(pipeline), 120, f"all of it, without node {number + 1}", poll_s=0.1)
            assert node._process is not None
            assert not node._process.alive
            if node is nodes[-1]:
                check(store, pipeline, records, versions)
            node.restart()
        print({"flushes": runner.counts.flushes, "outages": runner.counts.outages, "rows": RECORDS * len(TARGETS)})
