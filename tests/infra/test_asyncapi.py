"""The AsyncAPI document says what the table and the schemas say, and a stranger can read a record with it alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import httpx
import pytest

from infra.asyncapi import document
from schemas.codec import encode, fingerprint_of, schema_of
from schemas.records import InjectedMetric
from schemas.topics import TOPICS
from schemas.wire import framed
from tests.infra.commands import succeeds
from tests.registry import RegistryServer

AVSC = Path(__file__).parents[2] / "schemas" / "avsc"
INTERNAL = {"engine-snapshots", "engine-checkpoints"}


@pytest.fixture
def made() -> dict[str, Any]:
    return document("broker:9092", "second-")


def test_every_topic_for_others_is_a_channel_with_the_records_that_may_stand_in_it(made: dict[str, Any]) -> None:
    assert made["channels"].keys() == TOPICS.keys() - INTERNAL
    for name, channel in made["channels"].items():
        topic, kafka = TOPICS[name], channel["bindings"]["kafka"]
        assert channel["address"] == kafka["topic"] == f"second-{name}"
        assert kafka["partitions"] == topic.partitions
        settings = topic.settings()
        assert ",".join(kafka["topicConfiguration"]["cleanup.policy"]) == settings["cleanup.policy"]
        assert str(kafka["topicConfiguration"]["retention.ms"]) == settings["retention.ms"]
        plain = {record.__name__ for record in topic.records}
        assert channel["messages"].keys() == plain | ({f"{r}Json" for r in plain} if topic.takes_json else set())


def test_every_reference_leads_somewhere_and_every_schema_is_the_file(made: dict[str, Any]) -> None:
    for channel in made["channels"].values():
        for reference in channel["messages"].values():
            message = made["components"]["messages"][reference["$ref"].rsplit("/", 1)[1]]
            name = message["name"].removesuffix("Json")
            assert message["payload"]["schema"] == json.loads((AVSC / f"{name}.avsc").read_text())
    for operation in made["operations"].values():
        assert operation["channel"]["$ref"].rsplit("/", 1)[1] in made["channels"]
    sent = {o["channel"]["$ref"].rsplit("/", 1)[1] for o in made["operations"].values() if o["action"] == "send"}
    assert sent == {name for name, topic in TOPICS.items() if topic.takes_json}


def test_a_stranger_reads_a_record_with_the_document_alone(made: dict[str, Any]) -> None:
    value = encode(InjectedMetric("eu", "us", "latency_ms", 12.5, "cdn-logs", 1))
    (message,) = [m for m in made["components"]["messages"].values() if m.get("x-begins-with") == value[:10].hex()]
    found = fastavro.schemaless_reader(io.BytesIO(value[10:]), message["payload"]["schema"], None)
    assert isinstance(found, dict)
    assert (found["primary_region"], found["value"], found["source"]) == ("eu", 12.5, "cdn-logs")


def test_with_a_registry_a_stranger_reads_a_record_with_the_document_and_the_registry(
    registry_in_use: RegistryServer,
) -> None:
    made = document("broker:9092", "", registry_in_use.url)
    message = made["components"]["messages"]["InjectedMetric"]
    binding, server = message["bindings"]["kafka"], made["servers"]["kafka"]["bindings"]["kafka"]
    assert (binding["schemaIdLocation"], binding["schemaIdPayloadEncoding"]) == ("payload", "confluent")
    assert (made["defaultContentType"], message["contentType"]) == 2 * ("application/vnd.confluent.avro",)
    value = framed(encode(InjectedMetric("eu", "us", "latency_ms", 12.5, "cdn-logs", 1)))
    assert value[:1].hex() == message["x-begins-with"]
    number = int.from_bytes(value[1:5], "big")
    asked = httpx.get(f"{server['schemaRegistryUrl']}/schemas/ids/{number}", trust_env=False).json()["schema"]
    assert fingerprint_of(fastavro.parse_schema(json.loads(asked), {})) == fingerprint_of(schema_of(InjectedMetric))
    found = fastavro.schemaless_reader(io.BytesIO(value[5:]), json.loads(asked), message["payload"]["schema"])
    assert isinstance(found, dict)
    assert (found["primary_region"], found["value"], found["source"]) == ("eu", 12.5, "cdn-logs")
    subjects = httpx.get(f"{server['schemaRegistryUrl']}/subjects", trust_env=False).json()
    assert message["x-subject"] in subjects
    assert {m["contentType"] for m in made["components"]["messages"].values()} == {
        "application/vnd.confluent.avro", "application/json",
    }  # fmt: skip


def test_the_command_prints_it() -> None:
    printed = json.loads(succeeds("topics", "asyncapi", "--bootstrap", "broker:9092", "--prefix", "second-"))
    assert printed == document("broker:9092", "second-")
