"""A target's health endpoint dies while its path stays perfect: real broker, worker, prober, and a real endpoint."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from infra.kafka.cluster import Broker
from infra.observer import Observer
from infra.processes import ChildProcess, free_ports, wait_until
from schemas.codec import decode, encode
from schemas.records import (
    Candidate,
    FailoverConfiguration,
    FailoverRanking,
    HealthEndpoint,
    Policy,
    ProbeBatch,
    ReadinessReport,
    ReadinessRequest,
    Region,
    RegionCatalog,
)
from tests.bench import readiness_speed
from tests.infra.commands import running, succeeds
from tests.pipeline import Pipeline, say

PRIMARY = "eu-west-1"
RTT_MS = {"near": 20.0, "middle": 30.0, "far": 90.0}
PERIOD_S = 1.0
FAILBACK_S = 3.0


class Endpoint:
    """A region's health endpoint, a process that is killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        self._log = folder / f"endpoint-{self.port}.log"
        self.start()

    def start(self) -> None:
        self._log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.endpoints", "ok", str(self.port)]
        self.child = ChildProcess.start(command, name="endpoint", log_path=self._log)
        wait_until(lambda: self._log.exists() and b"ready" in self._log.read_bytes(), 30, "an endpoint")


class Paths:
    """An agent whose probes are answered all the time: nothing is wrong with any path."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._producer, self._over = pipeline, pipeline.producer(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        targets, probes = list(RTT_MS), 4
        index = np.repeat(np.arange(len(targets)), probes)
        while not self._over.wait(0.5):
            batch = ProbeBatch.of(
                agent_id="agent-1",
                primary_region=PRIMARY,
                started_at_ms=time.time_ns() // 1_000_000 - 500,
                targets=targets,
                methods=["icmp"],
                target_index=index,
                method_index=np.zeros(len(index)),
                sent_offset_ms=np.tile(np.arange(probes) * 100.0, len(targets)),
                rtt_ms=np.array(list(RTT_MS.values()))[index],
                outcome=np.zeros(len(index)),
                code=np.zeros(len(index)),
            )
            self._producer.produce(f"{self._pipeline.prefix}probe-samples", key="agent-1", value=encode(batch))
            self._producer.poll(0)


@pytest.mark.kafka
@pytest.mark.timed
def test_a_target_whose_endpoint_dies_is_left_in_seconds_and_taken_back_when_it_is_well(
    kafka: Broker, tmp_path: Path
) -> None:
    endpoints = {region: Endpoint(tmp_path) for region in RTT_MS}
    try:
        with Pipeline(kafka.bootstrap, tmp_path) as pipeline, Observer(kafka.bootstrap, pipeline.prefix) as seen:
            pipeline.start()
            _configure(pipeline, endpoints)
            pipeline.wait(lambda: PRIMARY in seen.rankings, 60, "the configuration to be in force")
            started = ("readiness", "--config", _config(tmp_path))
            log = tmp_path / "readiness.log"
            with Paths(pipeline), running(*started, log_path=log, **_environment(pipeline)) as prober:
                pipeline.wait(lambda: seen.target(PRIMARY) == "near", 60, "the nearest as target")
                pipeline.wait(lambda: {r.target_region for r in _reports(pipeline)} == set(RTT_MS), 30, "reports")
                assert all(r.ready for r in _reports(pipeline))

                endpoints["near"].child.kill()
                died_s = time.monotonic()
                pipeline.wait(lambda: seen.target(PRIMARY) == "middle", 20, "another target")
                left_s = time.monotonic() - died_s
                pipeline.wait(lambda: not _candidate(seen, "near").eligible, 10, "the reason")
                assert _candidate(seen, "near").ineligible_reason == "NOT_READY: http: connection refused"
                said = succeeds("explain", PRIMARY, **_environment(pipeline))
                assert "its last readiness check failed (http: connection refused)" in " ".join(said.split())
                asked = json.loads(succeeds("doctor", "--json", **_environment(pipeline)) or "[]")
                readiness = next(f for f in asked if f["name"] == "readiness")
                assert readiness["status"] == "warning"
                assert "near" in readiness["found"]

                _is_asked(pipeline, "far")
                endpoints["near"].start()
                healed_s = time.monotonic()
                pipeline.wait(lambda: seen.target(PRIMARY) == "near", 40, "the first target again")
                back_s = time.monotonic() - healed_s
                prober.send_signal(signal.SIGTERM)
                assert prober.wait(20) == 0
            say(f"left {left_s:.1f} s after the endpoint died; back {back_s:.1f} s after it was well again\n")
            assert left_s < PERIOD_S + 3
            assert FAILBACK_S <= back_s < FAILBACK_S + 12
            assert seen.dead_letters == 0
            pipeline.stop()
    finally:
        for endpoint in endpoints.values():
            endpoint.child.kill()


def _configure(pipeline: Pipeline, endpoints: dict[str, Endpoint]) -> None:
    places = {PRIMARY: 0.0, "near": 5.0, "middle": 5.0, "far": 5.0}
    regions = [
        Region(name, latitude, 0.0, health=[_health(endpoints[name])] if name in endpoints else [])
        for name, latitude in places.items()
    ]
    policy = Policy(failback_delay_ms=int(FAILBACK_S * 1000))
    configuration = FailoverConfiguration(PRIMARY, list(RTT_MS), 1, policy=policy, load_ratio=0.5)
    producer, topic = pipeline.producer(), f"{pipeline.prefix}failover-config"
    producer.produce(topic, key="regions", value=encode(RegionCatalog(1, regions)))
    producer.produce(topic, key=PRIMARY, value=encode(configuration))
    assert producer.flush(30) == 0


def _health(endpoint: Endpoint) -> HealthEndpoint:
    return HealthEndpoint(f"http://127.0.0.1:{endpoint.port}/healthz")


def _config(folder: Path) -> Path:
    path = folder / "readiness.toml"
    path.write_text(
        f'[readiness]\nagent_id = "p-1"\nprimary_region = "{PRIMARY}"\nperiod_s = {PERIOD_S}\ntimeout_ms = 800\n'
        "answer_ms_max = 500\nbreaker_open_s = 1\nbreaker_open_s_max = 2\n"
    )
    return path


def _environment(pipeline: Pipeline) -> dict[str, str]:
    return {"PROXIMA_KAFKA__BOOTSTRAP": pipeline.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": pipeline.prefix}


def _reports(pipeline: Pipeline) -> list[ReadinessReport]:
    return [decode(r.value, ReadinessReport) for r in pipeline.read("readiness-reports")]


def _candidate(seen: Observer, region: str) -> Candidate:
    ranking: FailoverRanking = seen.rankings[PRIMARY]
    return next(c for c in ranking.candidates if c.region_id == region)


def _is_asked(pipeline: Pipeline, region: str) -> None:
    """A request on the topic is answered by a report that says so."""
    expires_at_ms = time.time_ns() // 1_000_000 + 60_000
    request = ReadinessRequest(PRIMARY, region, region, 0, expires_at_ms, 0.0, 0.0, "", "the test asks")
    producer = pipeline.producer()
    producer.produce(f"{pipeline.prefix}readiness-requests", key=PRIMARY, value=encode(request))
    assert producer.flush(30) == 0
    pipeline.wait(lambda: any(r.requested and r.target_region == region for r in _reports(pipeline)), 20, "the answer")


@pytest.mark.kafka
@pytest.mark.timed
def test_five_hundred_targets_every_ten_seconds_cost_little_more_than_their_connections(
    kafka: Broker, tmp_path: Path
) -> None:
    """A short form of `python -m tests.bench readiness_speed`, which says what of a core that is: a fifth at most."""
    found = readiness_speed.measured(("http", "ok"), kafka.bootstrap, tmp_path, 1.2 * readiness_speed.PERIOD_S)
    say(json.dumps(found))
    assert found["every_target_in_time"]
    assert found["ready"] == found["reports"]
    assert found["times_a_bare_client"] <= 5
