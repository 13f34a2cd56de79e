"""The table of topics on a real broker: made once, found again, and differences said instead of mended."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import ConfigResource, NewTopic

from infra.kafka.admin import admin_client, create_topics, describe_topics, topic_ids
from infra.kafka.cluster import Broker, KafkaCluster
from infra.processes import free_ports, wait_until
from schemas.errors import KafkaUnavailableError
from schemas.topics import TOPICS, named

pytestmark = pytest.mark.kafka


@pytest.fixture
def prefix(kafka: Broker) -> Iterator[str]:
    prefix = f"admin-{uuid.uuid4().hex[:8]}-"
    yield prefix
    admin = admin_client(kafka.bootstrap)
    there = set(admin.list_topics(timeout=10).topics) & {named(prefix, topic) for topic in TOPICS}
    if there:
        for future in admin.delete_topics(sorted(there)).values():
            future.result()


def test_the_whole_table_is_created_as_it_says_and_a_second_time_nothing(kafka: Broker, prefix: str) -> None:
    assert create_topics(kafka.bootstrap, prefix=prefix) == [named(prefix, topic) for topic in TOPICS]
    states = describe_topics(kafka.bootstrap, prefix=prefix)
    assert [s.topic.name for s in states] == list(TOPICS)
    for state in states:
        assert state.exists, state
        assert state.mistakes == (), state
        assert state.partitions == state.topic.partitions
        assert state.settings is not None
        assert state.settings["message.timestamp.type"] == "LogAppendTime"
        assert state.settings["max.message.bytes"] == str(state.topic.max_message_bytes)
        assert state.settings["retention.ms"] == str(state.topic.retention_ms)
        assert set(state.settings["cleanup.policy"].split(",")) == set(state.topic.cleanup.split(","))
    assert create_topics(kafka.bootstrap, prefix=prefix) == []


def test_what_differs_is_said_all_at_once_and_left_alone(kafka: Broker, prefix: str) -> None:
    admin = admin_client(kafka.bootstrap)
    wrong = {
        "observations": NewTopic(
            named(prefix, "observations"), 3, 1, config={"message.timestamp.type": "LogAppendTime"}
        ),
        "path-weights": NewTopic(named(prefix, "path-weights"), 12, 1, config={"cleanup.policy": "compact"}),
    }
    for future in admin.create_topics(list(wrong.values())).values():
        future.result()
    with pytest.raises(KafkaUnavailableError) as raised:
        create_topics(kafka.bootstrap, prefix=prefix)
    said = str(raised.value)
    assert f"{prefix}observations has 3 partitions, not 12" in said
    assert (
        f"{prefix}observations has max.message.bytes=1048588, below {TOPICS['observations'].max_message_bytes}" in said
    )
    assert f"{prefix}path-weights has cleanup.policy=compact, not delete" in said
    assert f"{prefix}path-weights has message.timestamp.type=CreateTime, not LogAppendTime" in said
    assert raised.value.do
    states = {s.topic.name: s for s in describe_topics(kafka.bootstrap, prefix=prefix)}
    assert states["observations"].partitions == 3
    assert all(s.exists for s in states.values()), "the rest was created"


def test_retention_is_the_operators_business(kafka: Broker, prefix: str) -> None:
    topic = TOPICS["path-weights"]
    settings = {**topic.settings(), "retention.ms": "60000"}
    admin = admin_client(kafka.bootstrap)
    for future in admin.create_topics([NewTopic(named(prefix, topic.name), 12, 1, config=settings)]).values():
        future.result()
    assert named(prefix, topic.name) not in create_topics(kafka.bootstrap, prefix=prefix)


def test_an_id_is_written_as_kafka_writes_it_and_a_topic_made_anew_has_another(kafka: Broker, prefix: str) -> None:
    name = named(prefix, "observations")
    create_topics(kafka.bootstrap, prefix=prefix)
    first = topic_ids(kafka.bootstrap, [name])[name]
    assert len(base64.urlsafe_b64decode(first + "==")) == 16
    assert not set(first) & set("+/=")
    admin = admin_client(kafka.bootstrap)
    admin.delete_topics([name])[name].result()
    wait_until(lambda: name not in admin.list_topics(timeout=5).topics, 20, "the topic to be gone")
    create_topics(kafka.bootstrap, prefix=prefix)
    assert topic_ids(kafka.bootstrap, [name])[name] != first


def test_a_topic_that_is_missing_is_named_with_what_to_do(kafka: Broker) -> None:
    with pytest.raises(KafkaUnavailableError, match=r"no topic nowhere.*proxima topics create"):
        topic_ids(kafka.bootstrap, ["nowhere"])


def test_more_replicas_than_brokers_are_refused_with_the_brokers_reason(kafka: Broker, prefix: str) -> None:
    with pytest.raises(KafkaUnavailableError, match=r"(?i)replication factor"):
        create_topics(kafka.bootstrap, prefix=prefix, replication=100)


def test_where_nobody_listens_it_is_said_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.kafka.admin.REACH_TIMEOUT_S", 1.0)
    started_s = time.monotonic()
    with pytest.raises(KafkaUnavailableError, match="no broker answers"):
        create_topics(f"127.0.0.1:{free_ports(1)[0]}")
    assert time.monotonic() - started_s < 5


@pytest.mark.soak
def test_three_brokers_keep_three_copies_and_confirm_with_two() -> None:
    with KafkaCluster.start(3) as cluster:
        create_topics(cluster.bootstrap)
        assert {state.replication for state in describe_topics(cluster.bootstrap)} == {3}
        admin = admin_client(cluster.bootstrap)
        resource = ConfigResource(ConfigResource.Type.TOPIC, "observations")
        settings = admin.describe_configs([resource])[resource].result()
        assert settings["min.insync.replicas"].value == "2"
        cluster.kill(2)
        assert create_topics(cluster.bootstrap) == [], "two of three are enough to look"
