"""The doctor, on a healthy pipeline and on broken ones."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

import infra.doctor
from infra.doctor import examine
from infra.doctor_roles import ROLES, role, role_of
from infra.doctor_stores import registry as find_registry
from infra.doctor_stores import stores
from infra.findings import BROKEN, OK, WARNING, Finding
from infra.kafka.admin import admin_client
from infra.processes import free_ports, wait_until
from infra.redis import Store
from producers.gateway.tokens import new_token, write_tokens
from producers.publisher import Publisher
from schemas.actuators import ActuatorsConfig
from schemas.config import (
    ClientConfig,
    Gateway,
    GatewayConfig,
    Kafka,
    Metrics,
    ProbeConfig,
    ReadinessConfig,
    Redis,
    Registry,
    RespondConfig,
    RoutesConfig,
    SinkConfig,
    Worker,
    WorkerConfig,
    load,
)
from schemas.records import DeadLetter, ReadinessCheck, ReadinessReport, Reason
from schemas.topics import TOPICS, named
from tests.infra.commands import ROOT, proxima, running, succeeds
from tests.infra.conftest import Topics
from tests.producers.gateway.serving import certified
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


@pytest.mark.parametrize(("name", "its"), {
    "actuators": ActuatorsConfig, "cassandra": SinkConfig, "dynamodb": SinkConfig, "gateway": GatewayConfig,
    "probe": ProbeConfig, "readiness": ReadinessConfig, "respond": RespondConfig, "routes": RoutesConfig,
    "sink": SinkConfig, "webhook": SinkConfig, "worker": WorkerConfig,
}.items())  # fmt: skip
def test_a_files_role_is_known_by_its_sections(name: str, its: type) -> None:
    path = ROOT / "infra" / "examples" / f"{name}.toml"
    assert role_of(path) is its
    assert its in ROLES
    assert isinstance(load(its, path, {}), its)


def test_a_file_of_nobodys_is_any_clients(tmp_path: Path) -> None:
    (tmp_path / "kafka.toml").write_text('[kafka]\nbootstrap = "broker-1:9092"\n')
    assert role_of(tmp_path / "kafka.toml") is role_of(None) is SinkConfig


@pytest.mark.kafka
def test_any_roles_file_is_judged_whole_and_by_what_that_role_needs(topics: Topics, tmp_path: Path) -> None:
    def judged(text: str, code: int | None = None) -> dict[str, dict[str, str]]:
        (tmp_path / "role.toml").write_text(text)
        done = proxima("doctor", "--config", tmp_path / "role.toml", "--json", **topics.environment)
        assert code is None or done.returncode == code, done
        return {f["name"]: f for f in json.loads(done.stdout or "[]")}

    probe = '[probe]\nagent_id = "a"\nprimary_region = "eu"\n[[probe.targets]]\nregion = "us"\naddress = "127.0.0.1"\n'
    found = judged(probe)
    assert found["kafka"]["status"] == OK
    assert {"topics", "clock", "icmp sockets"} <= found.keys()
    assert not {"redis", "java", "tokens", "metrics"} & found.keys(), "an agent has nothing to do with them"
    assert judged(f"{probe}probes_per_tik = 2\n", 1) == {}, "a mistake in the role's own section"
    nobody, registry_at = free_ports(2)
    found = judged(f'{probe}[metrics]\nport = {nobody}\n[registry]\nurl = "http://127.0.0.1:{registry_at}"\n', 1)
    assert found["metrics"]["status"] == WARNING
    assert str(nobody) in found["metrics"]["found"]
    assert found["registry"]["status"] == BROKEN
    assert judged("[respond]\nport = 0\n", 0) == {}, "it has nothing to do with Kafka"
    tokens = tmp_path / "tokens.json"
    found = judged(f'[gateway]\ntokens_file = "{tokens}"\n', 1)
    assert found["tokens"]["status"] == BROKEN
    assert "proxima gateway token new" in found["tokens"]["do"]


def test_a_gateways_tokens_and_certificate_are_looked_at(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    certificate, key = certified(tmp_path)
    settings = Gateway(tokens_file=tokens, tls_certificate_file=certificate, tls_key_file=key)

    def found() -> dict[str, str]:
        return {f.name: f.status for f in role(GatewayConfig(gateway=settings))}

    write_tokens(tokens, [])
    assert found() == {"tokens": WARNING, "certificate": OK}
    write_tokens(tokens, [new_token("cdn-logs")[1]])
    assert found() == {"tokens": OK, "certificate": OK}
    tokens.write_text("{}")
    key.write_bytes(certificate.read_bytes())
    assert found() == {"tokens": BROKEN, "certificate": BROKEN}


def test_an_actuators_token_that_cannot_be_read_is_broken(tmp_path: Path) -> None:
    file, token = tmp_path / "actuators.toml", tmp_path / "token"
    file.write_text(
        f'[[providers]]\nname = "edge"\nurl = "http://127.0.0.1:1"\ntoken_file = "{token}"\n[[providers.tasks]]\n'
        'primary = "eu"\nremedy = "standby"\ncircuit = "C-1"\nusual_bps = 1000\nvalue_max = 10000\n'
    )
    config = load(role_of(file), file, {})
    assert [(f.name, f.status) for f in role(config)] == [("provider edge", BROKEN)]
    token.write_text("secret")
    [finding] = role(config)
    assert finding.status == OK
    assert "secret" not in finding.found


def test_metrics_that_are_served_say_whether_the_role_is_ready(tmp_path: Path) -> None:
    [first] = free_ports(1)
    every = WorkerConfig(metrics=Metrics(port=first), worker=Worker(stages=("intake", "decide")))
    assert [f.found.split(":")[1].split("/")[0] for f in role(every)] == [str(first), str(first + 1)], "a stage each"
    serving = RespondConfig(metrics=Metrics(port=first))
    variables = {
        "PROXIMA_METRICS__PORT": str(first),
        "PROXIMA_RESPOND__PORT": "0",
        "PROXIMA_RESPOND__BIND": "127.0.0.1",
    }
    with running("respond", log_path=tmp_path / "respond.log", **variables) as child:
        wait_until(lambda: [f.status for f in role(serving)] == [OK], 30, "it to be ready", children=[child])
    [finding] = role(serving)
    assert finding.status == WARNING
