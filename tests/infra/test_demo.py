"""The demo as people and checks run it: figures as promised, and nothing stays behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka.admin import AdminClient

from infra.kafka.cluster import Broker
from infra.processes import ChildProcess, wait_until
from infra.redis import Store

DEMO = (sys.executable, "-m", "infra.cli", "demo")
FIGURES = {
    "startup_s", "primaries", "samples_in", "rankings_out", "target_changes", "dead_letters", "latency_ms", "brownout_s"
}  # fmt: skip


def descendants(demo: ChildProcess) -> list[psutil.Process]:
    return psutil.Process(demo.pid).children(recursive=True)


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.kafka
def test_figures_on_a_cluster_of_somebody_elses_which_is_left_as_it_was(
    kafka: Broker, redis_server: Store, tmp_path: Path
) -> None:
    before = set(AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics)
    output = tmp_path / "output"
    environment = {
        "PROXIMA_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "PROXIMA_REDIS__URL": redis_server.url,
        "XDG_CACHE_HOME": str(tmp_path),
    }
    with ChildProcess.start([*DEMO, "--seconds", "15", "--json"], log_path=output, env=environment) as demo:
        parts = wait_until(lambda: descendants(demo), 60, "the demo's processes", children=[demo])
        wait_until(lambda: "a target for each" in output.read_text(), 120, "the demo to be up", children=[demo])
        parts += descendants(demo)
        assert demo.wait(90) == 0, demo.log_tail()
    assert not running(parts)
    figures = json.loads(output.read_text().splitlines()[-1])

    assert set(figures) == FIGURES
    assert figures["primaries"] == 12
    assert figures["startup_s"] > 0
    assert figures["samples_in"] > 12 * 2 * 22
    assert figures["rankings_out"] >= 12
    assert figures["target_changes"] >= 1
    assert figures["dead_letters"] == 0
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
    assert 0 < figures["brownout_s"] <= 30

    with redis.Redis.from_url(redis_server.url) as store:
        served = [json.loads(store.get(key) or b"") for key in store.scan_iter("demo-*proxima:ranking:*")]
        assert len(served) == 12
        for key in store.scan_iter("demo-*"):
            store.delete(key)

    def topics() -> set[str]:
        return set(AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics)

    wait_until(lambda: topics() - {"__consumer_offsets"} <= before, 20, "the demo's topics to be gone", poll_s=0.2)
    (run,) = (tmp_path / "proxima" / "run").iterdir()
    assert {entry.name for entry in run.iterdir()} == {"worker.log", "sink.log"}


@pytest.mark.kafka
def test_a_killed_demo_leaves_nothing_running(tmp_path: Path) -> None:
    output = tmp_path / "output"
    ours = dict.fromkeys((n for n in os.environ if n.startswith(("PROXIMA_KAFKA", "PROXIMA_REDIS"))), "")
    demo = ChildProcess.start(DEMO, log_path=output, env=ours)
    try:
        wait_until(lambda: "Ctrl-C" in output.read_text(), 150, "the demo's view", children=[demo])
        assert f"kill -USR1 {demo.pid}" in output.read_text()
        parts = descendants(demo)
        assert len(running(parts)) >= 5  # Kafka, Redis, worker, its two stages, sink; one may be starting again
        demo.send_signal(signal.SIGKILL)
        wait_until(lambda: not running(parts), 10, "its processes to be gone")
    finally:
        demo.kill()
