"""The topic table as an AsyncAPI 3.0 document: what subscribers and injectors generate their code and pages from.

Made from `schemas.topics.TOPICS` and the `.avsc` files alone, so it cannot say anything else than they do. A channel is
a topic; its messages are the records that may stand in it, each with its Avro schema. Where a topic also takes JSON the
record is there a second time, with `application/json`. With a schema registry what is written begins in Confluent's
way, and the bindings say so in AsyncAPI's words; what was written before, or by a role without one, still does not.
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
_CONFLUENT: Final = "application/vnd.confluent.avro"
_BINDING: Final = "0.5.0"
_STRATEGY: Final = "RecordNameStrategy"  # as `schemas.wire` names subjects
# Written by operators and by whom they let; everything else is written by Proxima alone.
_TAKEN_FROM_OUTSIDE: Final = ("injected-metrics", "failover-config")
_INTERNAL: Final = ("engine-snapshots", "engine-checkpoints")
_INFO: Final = """\
For every primary region: if it failed now, where should its traffic go? Subscribe to `failover-rankings`; drop a \
`sequence` that is not above the last one handled. """
_SINGLE_OBJECT: Final = """\
Values are Avro in single-object encoding: C3 01, the CRC-64-AVRO fingerprint of the writer's schema in little-endian \
order, then the record."""
_BY_REGISTRY: Final = """\
Values are Avro in Confluent's wire format: 00, the schema's id in the registry (4 bytes, big-endian), then the \
record; subjects are the records' full names. What a role without a registry wrote is in single-object encoding: C3 \
01, the CRC-64-AVRO fingerprint of the writer's schema in little-endian order, then the record."""


def document(bootstrap: str, prefix: str = "", registry: str = "") -> dict[str, Any]:
    """The document for a cluster, as plain data; deterministic. `registry`: its address; empty: there is none."""
    topics = [t for t in TOPICS.values() if t.name not in _INTERNAL]
    records = sorted({record for topic in topics for record in topic.records}, key=lambda record: record.__name__)
    json_records = sorted({r for t in topics if t.takes_json for r in t.records}, key=lambda record: record.__name__)
    messages = {record.__name__: _message(record, by_registry=bool(registry)) for record in records}
    messages |= {f"{record.__name__}Json": _json_message(record) for record in json_records}
    server: dict[str, Any] = {"host": bootstrap.split(",", maxsplit=1)[0], "protocol": "kafka"}
    if registry:
        by = {"schemaRegistryUrl": registry, "schemaRegistryVendor": "confluent", "bindingVersion": _BINDING}
        server["bindings"] = {"kafka": by}
    encoding = _BY_REGISTRY if registry else _SINGLE_OBJECT
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": "Proxima", "version": CONTRACT, "description": _INFO + encoding},
        "defaultContentType": _CONFLUENT if registry else _BYTES,
        "servers": {"kafka": server},
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
                "bindingVersion": _BINDING,
            }
        },
    }


def _message(record: type[Any], *, by_registry: bool) -> dict[str, Any]:
    schema = _avsc(record)
    kafka: dict[str, Any] = {"key": {"type": "string"}, "bindingVersion": _BINDING}
    if by_registry:
        kafka |= {
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "confluent",
            "schemaLookupStrategy": _STRATEGY,
        }
    found = {
        "name": record.__name__,
        "summary": schema.get("doc", record.__name__),
        "contentType": _CONFLUENT if by_registry else _BYTES,
        "payload": {"schemaFormat": _AVRO, "schema": schema},
        "bindings": {"kafka": kafka},
    }
    if by_registry:  # its number is the registry's to give
        return found | {"x-begins-with": "00", "x-subject": f"{schema['namespace']}.{schema['name']}"}
    return found | {"x-begins-with": (MAGIC + fingerprint_of(schema_of(record))).hex()}


def _json_message(record: type[Any]) -> dict[str, Any]:
    """The same record as a person types it: an opening brace first, fields with a default may be left out."""
    schema = _avsc(record)
    return {
        "name": f"{record.__name__}Json",
        "summary": f"{schema.get('doc', record.__name__)} As JSON.",
        "contentType": "application/json",
        "payload": {"schemaFormat": _AVRO, "schema": schema},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": _BINDING}},
    }


def _avsc(record: type[Any]) -> dict[str, Any]:
    """The schema as its file has it, with what each field means."""
    return json.loads(files("schemas").joinpath("avsc", f"{record.__name__}.avsc").read_text())  # type: ignore[no-any-return]
