"""Real brokers: started, killed with -9 and restarted with their data; and plain words where none can be started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from infra.kafka import cluster as cluster_module
from infra.kafka.cluster import BOOTSTRAP_VARIABLE, Broker, KafkaCluster, existing_or_started
from infra.processes import free_ports, wait_until
from schemas.errors import KafkaUnavailableError

TIMEOUT_S = 30.0


def new_topic(bootstrap: str, replicas: int = 1) -> str:
    name = f"test-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, replicas)])[name].result(TIMEOUT_S)
    return name


def produce(bootstrap: str, topic: str, *values: bytes) -> None:
    """Returns when the broker has confirmed all of them."""
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(TIMEOUT_S) == 0
    assert errors == [None] * len(values)


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 2000,
            "heartbeat.interval.ms": 500,
            "log_level": 0,
        }
    )
    seen: list[bytes] = []

    def enough() -> bool:
        seen.extend(message.value() for message in consumer.consume(count, timeout=0.5) if message.error() is None)
        return len(seen) >= count

    try:
        consumer.subscribe([topic])
        wait_until(enough, TIMEOUT_S, f"{count} records of {topic}")
    finally:
        consumer.close()
    return seen


def run_python(program: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.kafka
def test_session_broker_takes_and_gives_records(kafka: Broker) -> None:
    topic = new_topic(kafka.bootstrap)
    produce(kafka.bootstrap, topic, b"one", b"two")
    assert consume(kafka.bootstrap, topic, 2) == [b"one", b"two"]


@pytest.mark.kafka
def test_topic_is_never_made_by_a_typing_error() -> None:
    with KafkaCluster.start() as cluster:
        producer = Producer(
            {"bootstrap.servers": cluster.bootstrap, "topic.metadata.propagation.max.ms": 100, "log_level": 0}
        )
        refused: list[bool] = []
        producer.produce("obsrevations", b"x", on_delivery=lambda error, _: refused.append(error is not None))
        producer.flush(TIMEOUT_S)
        assert refused == [True]
        assert "obsrevations" not in producer.list_topics(timeout=TIMEOUT_S).topics


@pytest.mark.kafka
@pytest.mark.slow
def test_killed_broker_comes_back_with_its_data_on_its_port() -> None:
    with KafkaCluster.start() as cluster:
        bootstrap, pid = cluster.bootstrap, cluster.pids[1]
        topic = new_topic(bootstrap)
        produce(bootstrap, topic, b"before")
        cluster.kill(1)
        assert cluster.pids == {}
        assert not psutil.pid_exists(pid)
        cluster.restart(1)
        assert cluster.bootstrap == bootstrap
        produce(bootstrap, topic, b"after")
        assert consume(bootstrap, topic, 2) == [b"before", b"after"]


@pytest.mark.kafka
@pytest.mark.slow
def test_stopped_cluster_goes_on_from_its_folder(tmp_path: Path) -> None:
    with KafkaCluster.start(data_dir=tmp_path) as first:
        topic = new_topic(first.bootstrap)
        produce(first.bootstrap, topic, b"before")
    with KafkaCluster.start(data_dir=tmp_path) as second:
        assert consume(second.bootstrap, topic, 1) == [b"before"]


@pytest.mark.kafka
@pytest.mark.slow
def test_three_brokers_in_three_racks_outlive_one() -> None:
    with KafkaCluster.start(3) as cluster:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        nodes = admin.describe_cluster().result(TIMEOUT_S).nodes
        assert {node.id: node.rack for node in nodes} == {1: "a", 2: "b", 3: "c"}

        topic = new_topic(cluster.bootstrap, replicas=3)
        produce(cluster.bootstrap, topic, b"by three")
        cluster.kill(1)
        assert set(cluster.pids) == {2, 3}
        produce(cluster.bootstrap, topic, b"by two")
        cluster.restart(1)
        cluster.wait_in_sync()
        # Each node in its turn: what was confirmed by two is on whichever two are left.
        cluster.kill(2)
        produce(cluster.bootstrap, topic, b"by two others")
        assert consume(cluster.bootstrap, topic, 3) == [b"by three", b"by two", b"by two others"]


@pytest.mark.kafka
@pytest.mark.slow
def test_temporary_data_goes_and_given_overrides_win() -> None:
    with KafkaCluster.start(overrides={"num.partitions": "7"}) as cluster:
        command = psutil.Process(cluster.pids[1]).cmdline()
        config = Path(command[-1])
        assert "num.partitions=7\n" in config.read_text()
    assert not config.parent.exists()


@pytest.mark.kafka
@pytest.mark.slow
def test_broker_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(KafkaUnavailableError, match=r"kafka-1 ended with code 1(?s:.)*broker\.heartbeat\.interval\.ms"):
        KafkaCluster.start(data_dir=tmp_path, overrides={"broker.heartbeat.interval.ms": "soon"})


@pytest.mark.kafka
@pytest.mark.slow
def test_brokers_go_when_their_starter_is_killed(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from infra.kafka.cluster import KafkaCluster
folder = Path(sys.argv[1])
cluster = KafkaCluster.start(data_dir=folder)
(folder / "new").write_text(str(cluster.pids[1]))
(folder / "new").rename(folder / "pid")
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as starter:
        try:
            pid_file = tmp_path / "pid"
            wait_until(lambda: pid_file.exists() or starter.poll() is not None, TIMEOUT_S, "the broker")
            broker = psutil.Process(int(pid_file.read_text()))
        finally:
            starter.kill()
    wait_until(
        lambda: not broker.is_running() or broker.status() == psutil.STATUS_ZOMBIE, TIMEOUT_S, "the broker to be gone"
    )


@pytest.mark.kafka
def test_existing_cluster_is_used_and_left_running(kafka: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BOOTSTRAP_VARIABLE, kafka.bootstrap)
    with existing_or_started() as existing:
        assert existing.bootstrap == kafka.bootstrap
    new_topic(kafka.bootstrap)


def test_existing_cluster_that_does_not_answer_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BOOTSTRAP_VARIABLE, f"127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setattr(cluster_module, "EXISTING_TIMEOUT_S", 0.2)
    with pytest.raises(KafkaUnavailableError, match=BOOTSTRAP_VARIABLE), existing_or_started():
        pass


ASK_FOR_HOME = """
import logging
from infra.kafka.jars import kafka_home
from schemas.errors import KafkaUnavailableError
logging.basicConfig(level=logging.INFO)
try:
    print(kafka_home().folder)
except KafkaUnavailableError as error:
    raise SystemExit(str(error))
"""


@pytest.mark.parametrize("missing", ["java", "mvn"])
def test_missing_tool_is_named_with_both_ways_out(missing: str, tmp_path: Path) -> None:
    java = shutil.which("java")
    if missing == "mvn" and java is not None:
        (tmp_path / "java").symlink_to(java)
    # No apt-get on this PATH either, so nothing is installed here.
    done = run_python(ASK_FOR_HOME, PATH=str(tmp_path), JAVA_HOME="", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert f"{missing} is missing" in done.stderr
    assert "JDK 17+ and Maven" in done.stderr
    assert BOOTSTRAP_VARIABLE in done.stderr
    assert "Traceback" not in done.stderr


def test_java_that_is_too_old_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run_python(ASK_FOR_HOME, PATH=path, JAVA_HOME="", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert "Java 17 or newer is needed" in done.stderr


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.soak
def test_two_that_ask_at_once_fetch_once(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    argv = [sys.executable, "-c", ASK_FOR_HOME]
    both = [
        subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    folder = tmp_path / "proxima" / "kafka-4.3.1"
    assert [Path(out.strip()) for out, _ in said] == [folder, folder]
    assert sum("fetching Kafka" in err for _, err in said) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["bootstrap.checkpoint", "classes.jsa", "libs", "pom.xml"]
    assert sorted(p.name for p in folder.parent.iterdir()) == ["kafka-4.3.1", "kafka-4.3.1.lock"]
