"""The topic table as an AsyncAPI 3.0 document: what subscribers and injectors generate their code and pages from.

Made from `schemas.topics.TOPICS` and the `.avsc` files alone, so it cannot say anything else than they do. A channel is
a topic; its messages are the records that may stand in it, each with its Avro schema. Where a topic also takes JSON the
record is there a second time, with `application/json`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

from schemas.codec import MAGIC, fingerprint_of, schema_of
from schemas.topics import TOPICS, Topic, named

ASYNCAPI: Final = "3.0.0"
# Of the topics and their records: the first number changes when a subscriber has to.
CONTRACT: Final = "1.0.0"
_AVRO: Final = "application/vnd.apache.avro;version=1.9.0"
_BYTES: Final = "application/vnd.proxima.avro-single-object"
# Written by operators and by whom they let; everything else is written by Proxima alone.
_TAKEN_FROM_OUTSIDE: Final = ("injected-metrics", "failover-config")
_INTERNAL: Final = ("engine-snapshots", "engine-checkpoints")
_INFO: Final = """\
For every primary region: if it failed now, where should its traffic go? Subscribe to `failover-rankings`; drop a \
`sequence` that is not above the last one handled. Values are Avro in single-object encoding: C3 01, the CRC-64-AVRO \
fingerprint of the writer's schema in little-endian order, then the record."""


def document(bootstrap: str, prefix: str = "") -> dict[str, Any]:
    """The document for a cluster, as plain data; deterministic."""
    topics = [t for t in TOPICS.values() if t.name not in _INTERNAL]
    records = sorted({record for topic in topics for record in topic.records}, key=lambda record: record.__name__)
    json_records = sorted({r for t in topics if t.takes_json for r in t.records}, key=lambda record: record.__name__)
    messages = {record.__name__: _message(record) for record in records}
    messages |= {f"{record.__name__}Json": _json_message(record) for record in json_records}
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": "Proxima", "version": CONTRACT, "description": _INFO},
        "defaultContentType": _BYTES,
        "servers": {"kafka": {"host": bootstrap.split(",", maxsplit=1)[0], "protocol": "kafka"}},
        "channels": {topic.name: _channel(topic, prefix) for topic in topics},
        "operations": {
            f"{verb}-{topic.name}": {"action": verb, "channel": {"$ref": f"#/channels/{topic.name}"}}
            for topic in topics
            for verb in (("send", "receive") if topic.name in _TAKEN_FROM_OUTSIDE else ("receive",))
        },
        "components": {"messages": messages},
    }


def _channel(topic: Topic, prefix: str) -> dict[str, Any]:
    names = [record.__name__ for record in topic.records]
    names += [f"{name}Json" for name in names if topic.takes_json]
    settings = topic.settings()
    configuration: dict[str, Any] = {
        "cleanup.policy": settings["cleanup.policy"].split(","),
        "retention.ms": topic.retention_ms,
        "max.message.bytes": topic.max_message_bytes,
    }
    return {
        "address": named(prefix, topic.name),
        "description": f"Key: {topic.key}. Written by {topic.written_by}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": named(prefix, topic.name),
                "partitions": topic.partitions,
                "topicConfiguration": configuration,
                "bindingVersion": "0.5.0",
            }
        },
    }


def _message(record: type[Any]) -> dict[str, Any]:
    schema = _avsc(record)
    return {
        "name": record.__name__,
        "summary": schema.get("doc", record.__name__),
        "contentType": _BYTES,
        "payload": {"schemaFormat": _AVRO, "schema": schema},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": "0.5.0"}},
        "x-begins-with": (MAGIC + fingerprint_of(schema_of(record))).hex(),
    }


def _json_message(record: type[Any]) -> dict[str, Any]:
    """The same record as a person types it: an opening brace first, fields with a default may be left out."""
    schema = _avsc(record)
    return {
        "name": f"{record.__name__}Json",
        "summary": f"{schema.get('doc', record.__name__)} As JSON.",
        "contentType": "application/json",
        "payload": {"schemaFormat": _AVRO, "schema": schema},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": "0.5.0"}},
    }


def _avsc(record: type[Any]) -> dict[str, Any]:
    """The schema as its file has it, with what each field means."""
    return json.loads(files("schemas").joinpath("avsc", f"{record.__name__}.avsc").read_text())  # type: ignore[no-any-return]
