"""Records reach a real broker, whole, in the right partition; without one, only measurements go, oldest first."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from infra.kafka.admin import create_topics
from infra.kafka.cluster import Broker, KafkaCluster
from infra.processes import free_ports, wait_until
from producers.publisher import IN_FLIGHT_MAX, Publisher
from schemas.codec import decode
from schemas.errors import DeliveryError
from schemas.records import AgentHealth, FailoverConfiguration, InjectedMetric, ProbeBatch
from schemas.topics import PARTITIONS, named, partition_of


def batch(number: int) -> ProbeBatch:
    return ProbeBatch.of(
        agent_id="eu-west-1/a", primary_region="eu-west-1", started_at_ms=number, targets=["us-east-1"],
        methods=["trace"], target_index=[0], method_index=[0], sent_offset_ms=[0], rtt_ms=[70], outcome=[0], code=[0],
    )  # fmt: skip


def configuration(primary: str) -> FailoverConfiguration:
    return FailoverConfiguration(primary, ["us-east-1"], version=1)


def read_all(bootstrap: str, topic: str) -> list[Message]:
    """Every record of a topic, by partition and offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
        found: list[Message] = []
        ends: set[int | None] = set()
        deadline = time.monotonic() + 30
        while len(ends) < PARTITIONS:
            assert time.monotonic() < deadline
            for message in consumer.consume(500, 0.2):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ends.add(message.partition())
        return sorted(found, key=lambda m: (m.partition() or 0, m.offset() or 0))
    finally:
        consumer.close()


def value(message: Message) -> bytes:
    found = message.value()
    assert isinstance(found, bytes)
    return found


@pytest.fixture
def prefix(kafka: Broker) -> str:
    name = f"publisher-{uuid.uuid4().hex[:8]}-"
    create_topics(kafka.bootstrap, prefix=name)
    return name


@pytest.fixture
def nobody() -> str:
    """An address where no broker is."""
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.mark.kafka
def test_what_is_published_is_what_arrives(kafka: Broker, prefix: str) -> None:
    with Publisher(kafka.bootstrap, client_id="test", topic_prefix=prefix) as publisher:
        for number in range(1000):
            publisher.publish("probe-samples", "eu-west-1/a", batch(number))
    found = read_all(kafka.bootstrap, named(prefix, "probe-samples"))
    assert [decode(value(m), ProbeBatch) for m in found] == [batch(number) for number in range(1000)]
    assert publisher.stats.delivered == 1000
    assert publisher.stats.in_flight == publisher.stats.queued == publisher.stats.dropped == 0


@pytest.mark.kafka
def test_keys_go_where_the_table_of_topics_says(kafka: Broker, prefix: str) -> None:
    keys = [f"region-{number}" for number in range(200)]
    with Publisher(kafka.bootstrap, client_id="test", topic_prefix=prefix) as publisher:
        for key in keys:
            publisher.publish("failover-config", key, configuration("eu-west-1"))
    found = {
        bytes(m.key() or b"").decode(): m.partition() for m in read_all(kafka.bootstrap, prefix + "failover-config")
    }
    assert found == {key: partition_of(key.encode()) for key in keys}


@pytest.mark.kafka
def test_raw_bytes_go_as_they_are_to_the_partition_asked_for(kafka: Broker, prefix: str) -> None:
    with Publisher(kafka.bootstrap, client_id="test", topic_prefix=prefix) as publisher:
        publisher.publish_raw("injected-metrics", b"k", b"{rubbish", partition=7)
        publisher.publish_raw("injected-metrics", None, None, partition=3)
    found = read_all(kafka.bootstrap, prefix + "injected-metrics")
    assert [(m.partition(), m.key(), m.value()) for m in found] == [(3, None, None), (7, b"k", b"{rubbish")]


@pytest.mark.kafka
def test_threads_share_a_publisher(kafka: Broker, prefix: str) -> None:
    with Publisher(kafka.bootstrap, client_id="test", topic_prefix=prefix) as publisher:

        def publish(thread: int) -> None:
            for number in range(250):
                publisher.publish("probe-samples", f"agent-{thread}", batch(number))

        threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    by_key: dict[bytes, list[int]] = {}
    for message in read_all(kafka.bootstrap, prefix + "probe-samples"):
        by_key.setdefault(bytes(message.key() or b""), []).append(decode(value(message), ProbeBatch).started_at_ms)
    assert by_key == {f"agent-{thread}".encode(): list(range(250)) for thread in range(4)}


# More than a topic takes by default, and not to be compressed.
TOO_MUCH = random.Random(1).randbytes(2 << 20)


@pytest.mark.kafka
def test_a_record_that_the_broker_refuses_is_said_at_the_next_call(kafka: Broker, prefix: str) -> None:
    publisher = Publisher(kafka.bootstrap, client_id="test", topic_prefix=prefix)
    try:
        publisher.publish_raw("injected-metrics", b"k", TOO_MUCH)
        with pytest.raises(DeliveryError, match="injected-metrics"):
            publisher.flush(10)
        publisher.flush(10)  # said once
        assert publisher.stats.failed == 1
    finally:
        publisher.close()


@pytest.mark.kafka
def test_a_measurement_that_the_broker_refuses_is_counted_and_stops_nobody(kafka: Broker, prefix: str) -> None:
    with Publisher(kafka.bootstrap, client_id="test", topic_prefix=prefix) as publisher:
        publisher.publish("probe-samples", "a", replace(batch(1), rtt_ms=TOO_MUCH))
        publisher.publish("probe-samples", "a", batch(2))
    assert (publisher.stats.failed, publisher.stats.delivered) == (1, 1)


def test_without_a_broker_a_probe_loop_goes_on_and_the_oldest_are_dropped_and_counted(nobody: str) -> None:
    publisher = Publisher(nobody, client_id="test", queue_batches_max=100)
    try:
        began = time.monotonic()
        for number in range(1000):
            publisher.publish("probe-samples", "eu-west-1/a", batch(number))
        assert time.monotonic() - began < 2
        assert publisher.stats.dropped == 1000 - 100 - IN_FLIGHT_MAX
        assert publisher.stats.queued == 100
    finally:
        publisher.close()


def test_that_nobody_answers_is_said_once(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(nobody, client_id="test")
    try:
        wait_until(lambda: caplog.records, 20, "the first attempt to fail")
        for number in range(100):
            publisher.publish("probe-samples", "eu-west-1/a", batch(number))
        with pytest.raises(DeliveryError):
            publisher.flush(2)  # meanwhile it tries several times more
        assert len(caplog.records) == 1
        assert nobody in caplog.messages[0]
    finally:
        publisher.close()


def test_the_queue_is_bounded_in_bytes_too(nobody: str) -> None:
    publisher = Publisher(nobody, client_id="test", queue_bytes_max=1000)
    try:
        for number in range(IN_FLIGHT_MAX + 100):
            publisher.publish("probe-samples", "eu-west-1/a", batch(number))
        stats = publisher.stats
        assert 0 < stats.queued < 1000 / 50
        assert stats.dropped == 100 - stats.queued
    finally:
        publisher.close()


def test_without_a_broker_other_records_are_kept_until_there_is_no_room(nobody: str) -> None:
    publisher = Publisher(nobody, client_id="test", publish_timeout_s=0.3)
    metric = InjectedMetric("eu-west-1", "us-east-1", "latency_ms", 70.0, "test", 1)
    try:
        for _ in range(8 * IN_FLIGHT_MAX):
            publisher.publish("injected-metrics", "eu-west-1", metric)
        with pytest.raises(DeliveryError, match="no room"):
            publisher.publish("injected-metrics", "eu-west-1", metric)
        assert publisher.stats.dropped == publisher.stats.failed == 0
        assert publisher.stats.in_flight == 8 * IN_FLIGHT_MAX
        with pytest.raises(DeliveryError, match=f"{8 * IN_FLIGHT_MAX} other records unconfirmed"):
            publisher.flush(0.1)
    finally:
        publisher.close()


def test_leaving_the_context_without_a_broker_says_what_was_left(nobody: str) -> None:
    def run() -> None:
        with Publisher(nobody, client_id="test", flush_timeout_s=0.1) as publisher:
            publisher.publish("probe-samples", "eu-west-1/a", batch(1))
            publisher.publish("failover-config", "eu-west-1", configuration("eu-west-1"))

    with pytest.raises(DeliveryError, match="1 measurements and 1 other"):
        run()


def test_an_error_of_the_context_is_not_hidden_by_what_was_left(nobody: str) -> None:
    def run() -> None:
        with Publisher(nobody, client_id="test", flush_timeout_s=0.1) as publisher:
            publisher.publish("probe-samples", "eu-west-1/a", batch(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with KafkaCluster.start(data_dir=tmp_path_factory.mktemp("own-broker")) as cluster:
        create_topics(cluster.bootstrap)
        yield cluster


@pytest.mark.kafka
def test_after_an_outage_everything_but_the_oldest_of_the_queue_arrives_once_and_in_order(
    own_broker: KafkaCluster,
) -> None:
    with Publisher(own_broker.bootstrap, client_id="test", queue_batches_max=50, flush_timeout_s=60) as publisher:
        publisher.publish("probe-samples", "eu-west-1/a", batch(0))
        publisher.flush(10)
        own_broker.kill(1)
        for number in range(1, 1000):
            publisher.publish("probe-samples", "eu-west-1/a", batch(number))
        for number in range(100):
            publisher.publish("failover-config", f"region-{number}", configuration(f"region-{number}"))
        publisher.publish("probe-samples", "eu-west-1/a", AgentHealth("eu-west-1/a", "eu-west-1", 1, 0.0, 0, 0))
        own_broker.restart(1)
        wait_until(lambda: publisher.stats.queued + publisher.stats.in_flight == 0, 60, "the backlog to arrive")
    dropped = publisher.stats.dropped
    assert dropped == 1000 - IN_FLIGHT_MAX - 50
    *batches, health = read_all(own_broker.bootstrap, "probe-samples")
    assert decode(value(health), AgentHealth).agent_id == "eu-west-1/a"
    numbers = [decode(value(m), ProbeBatch).started_at_ms for m in batches]
    assert numbers == [*range(IN_FLIGHT_MAX + 1), *range(1000 - 49, 1000)]
    primaries = {
        decode(value(m), FailoverConfiguration).primary_region
        for m in read_all(own_broker.bootstrap, "failover-config")
    }
    assert primaries == {f"region-{number}" for number in range(100)}
