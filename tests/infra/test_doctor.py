"""The doctor, on a healthy pipeline and on broken ones."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

import infra.doctor
from infra.doctor import examine
from infra.doctor_stores import registry as find_registry
from infra.doctor_stores import stores
from infra.findings import BROKEN, OK, WARNING, Finding
from infra.kafka.admin import admin_client
from infra.processes import free_ports
from infra.redis import Store
from producers.publisher import Publisher
from schemas.config import ClientConfig, Kafka, Redis, Registry, SinkConfig
from schemas.records import DeadLetter, ReadinessCheck, ReadinessReport, Reason
from schemas.topics import TOPICS, named
from tests.infra.commands import proxima, succeeds
from tests.infra.conftest import Topics
from tests.registry import RegistryServer


def findings(bootstrap: str, prefix: str = "", redis_url: str | None = None) -> dict[str, Finding]:
    kafka = Kafka(bootstrap=bootstrap, topic_prefix=prefix)
    config = ClientConfig(kafka=kafka) if redis_url is None else ClientConfig(kafka=kafka, redis=Redis(url=redis_url))
    return {f.name: f for f in examine(config)}


@pytest.mark.kafka
def test_on_a_healthy_pipeline_nothing_is_broken(topics: Topics, redis_server: Store) -> None:
    found = findings(topics.bootstrap, topics.prefix, redis_server.url)
    assert list(found) == [
        "identity", "kafka", "rights", "topics", "append time", "readiness", "sinks", "dead letters", "clock",
        "actuators", "remedies", "icmp sockets", "redis", "java",
    ]  # fmt: skip
    assert all(f.status != BROKEN for f in found.values()), found
    for name in ("kafka", "append time", "redis"):
        assert found[name].status == OK
    assert found["clock"].status == OK, "broker and test share a clock"
    assert all(f.do for f in found.values() if f.status != OK), "what is not fine has a remedy"


@pytest.mark.kafka
def test_the_doctor_leaves_nothing_behind(topics: Topics) -> None:
    findings(topics.bootstrap, topics.prefix)
    there = admin_client(topics.bootstrap).list_topics(timeout=10).topics
    assert not [t for t in there if t.startswith(f"{topics.prefix}proxima-doctor")]


@pytest.mark.kafka
def test_missing_and_different_topics_are_broken_and_told_apart(topics: Topics) -> None:
    missing = findings(topics.bootstrap, f"{topics.prefix}nobody-")
    assert missing["topics"].status == BROKEN
    assert "proxima topics create" in missing["topics"].do
    assert "append time" not in missing
    prefix = f"{topics.prefix}x-"
    wrong = [NewTopic(named(prefix, t), 12, 1, config={"max.message.bytes": "10000000"}) for t in TOPICS]
    admin = admin_client(topics.bootstrap)
    for future in admin.create_topics(wrong).values():
        future.result()
    try:
        found = findings(topics.bootstrap, prefix)
        assert found["append time"].status == BROKEN
        assert f"{prefix}observations" in found["append time"].found
        assert "LogAppendTime" in found["append time"].do
        assert found["topics"].status == BROKEN
        assert "cleanup.policy=delete, not compact" in found["topics"].found
    finally:
        for future in admin.delete_topics([named(prefix, t) for t in TOPICS]).values():
            future.result()


@pytest.mark.kafka
def test_a_clock_that_is_off_is_measured(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our clock is put forward: the brokers' is then behind."""
    real = time.time_ns
    for ahead_ms, status in ((1_000, WARNING), (60_000, BROKEN)):
        monkeypatch.setattr(time, "time_ns", lambda ahead_ms=ahead_ms: real() + ahead_ms * 1_000_000)
        clock = infra.doctor._clock(topics.bootstrap, topics.prefix)
        assert clock.status == status
        measured_ms = int(clock.found.split("clock is ")[1].split(" ms behind ours")[0])
        assert abs(measured_ms - ahead_ms) < 100
        assert "NTP" in clock.do


def test_without_a_broker_the_rest_is_looked_at_all_the_same() -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    found = findings(nobody, redis_url=f"redis://:secret@{nobody}/0")
    assert found["kafka"].status == BROKEN
    assert nobody in found["kafka"].found
    assert found["redis"].status == BROKEN, "it was asked for"
    assert "secret" not in found["redis"].found + found["redis"].do
    assert "java" in found
    assert "topics" not in found


def test_stores_and_a_registry_that_are_configured_and_away_are_told_within_seconds(tmp_path: Path) -> None:
    kafka, web, cql, dynamo = (f"127.0.0.1:{port}" for port in free_ports(4))
    config = tmp_path / "sink.toml"
    config.write_text(
        f'[registry]\nurl = "http://{web}"\n[sink]\nname = "history"\n[cassandra]\nport = {cql.rpartition(":")[2]}\n'
        f'[dynamodb]\nendpoint_url = "http://{dynamo}"\n'
    )
    began_s = time.monotonic()
    secrets = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "hush", "PROXIMA_CASSANDRA__PASSWORD": "hush"}
    done = proxima("doctor", "--bootstrap", kafka, "--config", config, "--json", **secrets)
    took_s = time.monotonic() - began_s
    found = {f["name"]: f for f in json.loads(done.stdout)}
    assert done.returncode == 1
    for name, at in (("registry", web), ("cassandra", cql), ("dynamodb", dynamo)):
        assert found[name]["status"] == BROKEN, found[name]
        assert at in found[name]["found"]
        assert found[name]["do"]
    assert "hush" not in done.stdout
    assert took_s < 40, "ten of them are Kafka's"


def test_stores_that_nobody_configured_are_not_looked_at() -> None:
    assert not {"registry", "cassandra", "dynamodb"} & {f.name for f in stores(SinkConfig())}


def test_a_registry_is_fine_if_it_has_the_schemas_or_may_be_given_them(registry: RegistryServer) -> None:
    with_right, without = (Registry(url=registry.url, register_schemas=may) for may in (True, False))
    lacking = find_registry(without)
    if lacking.status == BROKEN:  # another test may have registered all
        assert "topics register" in lacking.do
        assert "what starts registers them" in find_registry(with_right).found
    succeeds("topics", "register", PROXIMA_REGISTRY__URL=registry.url)
    assert find_registry(without).status == OK
    wrong = find_registry(Registry(url=registry.url.rpartition("/apis")[0]))
    assert wrong.status == BROKEN
    assert wrong.do


def test_a_redis_that_nobody_asked_for_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
    assert infra.doctor._redis(Redis(url=nobody), wanted=False).status == WARNING
    assert infra.doctor._redis(Redis(url=nobody), wanted=True).status == BROKEN


def test_java_that_is_missing_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert infra.doctor._java().status == WARNING
    assert "proxima demo" in infra.doctor._java().do


@pytest.mark.kafka
def test_the_command_tells_by_its_exit_code(topics: Topics) -> None:
    done = proxima("doctor", "--json", **topics.environment)
    found = json.loads(done.stdout)
    assert {f["name"] for f in found} >= {"kafka", "topics", "clock"}
    assert done.returncode == (1 if any(f["status"] == BROKEN for f in found) else 0)
    broken = proxima("doctor", "--prefix", "nobody-", **topics.environment)
    assert broken.returncode == 1
    assert "→ run `proxima topics create`" in broken.stdout


@pytest.mark.kafka
def test_probers_and_what_they_find_not_ready_are_told_with_open_breakers(topics: Topics) -> None:
    assert findings(topics.bootstrap, topics.prefix)["readiness"].found.startswith("no prober reports")
    now_ms = time.time_ns() // 1_000_000
    well = ReadinessCheck("http", True, "answered 200", breaker="CLOSED")
    ill = ReadinessCheck("http", False, "no whole answer within 2 s", breaker="OPEN")

    def report(target: str, check: ReadinessCheck) -> ReadinessReport:
        return ReadinessReport("eu-west-1", target, "p-1", now_ms, [check])

    topics.publish("readiness-reports", b"nonsense", report("t-1", ill), report("t-1", well), report("t-2", well))
    fine = findings(topics.bootstrap, topics.prefix)["readiness"]
    assert (fine.status, fine.found.partition(",")[0]) == (OK, "p-1: 2 of 2 targets ready")
    topics.publish("readiness-reports", report("t-2", ill))
    found = findings(topics.bootstrap, topics.prefix)["readiness"]
    assert found.status == WARNING
    assert "p-1: 1 of 2 targets ready" in found.found
    assert "eu-west-1 to t-2 is not ready by p-1 (http: no whole answer within 2 s, breaker OPEN)" in found.found
    assert found.do


@pytest.mark.kafka
def test_agents_that_spoke_for_a_region_not_theirs_are_named(topics: Topics) -> None:
    letters = [
        DeadLetter(reason, detail, "observations", 0, n, 1, "decide", b"x")
        for n, (reason, detail) in enumerate([
            *3 * [(str(Reason.FOREIGN_AGENT), "elsewhere/1: not among the agents that the catalogue names for alpha")],
            (str(Reason.MALFORMED), "no Avro"),
        ])
    ]  # fmt: skip
    with Publisher(topics.bootstrap, client_id="test", topic_prefix=topics.prefix) as publisher:
        for letter in letters:
            publisher.publish("dead-letters", "observations", letter)
    found = findings(topics.bootstrap, topics.prefix)["dead letters"]
    assert found.status == WARNING
    assert "3 FOREIGN_AGENT (the last by decide of observations: elsewhere/1: not among" in found.found
    assert "1 MALFORMED" in found.found
    assert "`agents`" in found.do
