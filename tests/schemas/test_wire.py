"""Confluent's wire format with a real schema registry: every record there and back, and what others registered."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings

from infra.processes import free_ports
from schemas import wire
from schemas.codec import MAGIC, decode, encode, fingerprint_of, schema_of
from schemas.config import Registry
from schemas.errors import CodecError, RegistryError
from schemas.records import RECORDS, InjectedMetric, Reason, Record, Tick
from schemas.registry import SchemaRegistry
from tests.infra.commands import fails, lines
from tests.registry import RegistryServer
from tests.schemas.strategies import any_record

METRIC = InjectedMetric("eu-west-1", "us-east-1", "latency_ms", 12.5, "cdn-logs", 1_700_000_000_000, 5000)


@pytest.fixture
def client(registry: RegistryServer) -> SchemaRegistry:
    return SchemaRegistry(Registry(url=registry.url))


@pytest.fixture
def in_use(client: SchemaRegistry) -> Iterator[SchemaRegistry]:
    wire.use(client)
    yield client
    wire.use(None)


def reason(value: bytes) -> str:
    with pytest.raises(CodecError) as raised:
        decode(value, InjectedMetric)
    return raised.value.reason


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(record=any_record())
def test_every_record_goes_there_and_back(in_use: SchemaRegistry, record: Record) -> None:
    value = encode(record)
    there = wire.framed(value)
    assert there[:1] == b"\0"
    assert there[5:] == value[10:]
    assert wire.unframed(there) == value
    assert encode(decode(there, type(record))) == value


def test_every_kind_of_record_has_an_id(in_use: SchemaRegistry) -> None:
    headers = {name: MAGIC + fingerprint_of(schema_of(cls)) for name, cls in RECORDS.items()}
    assert [name for name, header in headers.items() if wire.framed(header + b"x")[:1] != b"\0"] == []


def test_any_client_reads_a_value_by_what_the_registry_says(in_use: SchemaRegistry) -> None:
    value = wire.framed(encode(METRIC))
    text = in_use.text_of(int.from_bytes(value[1:5], "big"))
    assert text is not None
    plain = fastavro.schemaless_reader(io.BytesIO(value[5:]), json.loads(text))
    assert (plain["metric"], plain["value"]) == ("latency_ms", 12.5)


def test_a_schema_that_others_registered_is_read_and_said_again_in_ours(in_use: SchemaRegistry) -> None:
    theirs = json.loads(json.dumps({k: v for k, v in schema_of(InjectedMetric).items() if not k.startswith("__")}))
    theirs["fields"] = [*reversed(theirs["fields"]), {"name": "their_own", "type": "string"}]
    number = in_use.id_of("injected-metrics-value", json.dumps(theirs))
    out = io.BytesIO()
    plain = {name: getattr(METRIC, name) for name in METRIC.__slots__} | {"their_own": "x"}
    fastavro.schemaless_writer(out, fastavro.parse_schema(theirs, {}), plain)
    value = b"\0" + number.to_bytes(4, "big") + out.getvalue()
    assert decode(value, InjectedMetric) == METRIC
    assert wire.unframed(value) == encode(METRIC)


def test_a_schema_that_is_no_record_of_ours_is_unknown(in_use: SchemaRegistry) -> None:
    text = '{"type": "record", "name": "Rumour", "fields": [{"name": "x", "type": "int"}]}'
    for schema in (text, '"string"'):
        number = in_use.id_of("rumours", schema) if schema == text else in_use.id_of("strings", schema)
        value = b"\0" + number.to_bytes(4, "big") + b"\2abc"
        assert reason(value) == Reason.UNKNOWN_SCHEMA
        assert wire.unframed(value) == value


@pytest.mark.parametrize(
    "value", [b"", b"\0", b"\0\0\0\0\1", b"\0\xff\xff\xff\xff\1", b"{}", b"\xc3\x01", b"\xff" * 40]
)
def test_what_cannot_be_read_stays_as_it_is_and_is_somebodys_dead_letter(in_use: SchemaRegistry, value: bytes) -> None:
    assert wire.framed(value) == wire.unframed(value) == value
    assert reason(value) in {Reason.MALFORMED, Reason.UNKNOWN_SCHEMA}


def test_a_registry_that_goes_away_costs_no_value_of_known_schemas(client: SchemaRegistry) -> None:
    class Leaving:
        asked = 0

        def id_of(self, subject: str, text: str) -> int:
            return client.id_of(subject, text)

        def text_of(self, number: int) -> str | None:
            self.asked += 1
            (port,) = free_ports(1)
            return SchemaRegistry(Registry(url=f"http://127.0.0.1:{port}")).text_of(number)

    leaving = Leaving()
    wire.use(leaving)
    try:
        for number in range(20):
            assert reason(b"\0\x7f\0\0" + bytes([number]) + b"abc") == Reason.UNKNOWN_SCHEMA
        assert decode(wire.framed(encode(METRIC)), InjectedMetric) == METRIC
        assert leaving.asked == 2, "it is left alone after two failures"
    finally:
        wire.use(None)


def test_an_id_that_nobody_has_is_asked_for_once(client: SchemaRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    text_of = SchemaRegistry.text_of

    def noted(self: SchemaRegistry, number: int) -> str | None:
        asked.append(number)
        return text_of(self, number)

    monkeypatch.setattr(SchemaRegistry, "text_of", noted)
    wire.use(client)
    try:
        for _ in range(3):
            assert reason(b"\0\x7f\xff\xff\xffabc") == Reason.UNKNOWN_SCHEMA
    finally:
        wire.use(None)
    assert asked == [0x7FFFFFFF]


def test_without_a_registry_nothing_changes() -> None:
    value = encode(Tick("w"))
    assert wire.framed(value) is value
    assert wire.unframed(b"\0\0\0\0\1x") == b"\0\0\0\0\1x"
    assert reason(b"\0\0\0\0\1x") == Reason.REGISTRY_NOT_CONFIGURED


def test_the_command_registers_everything_once_and_the_registry_refuses_what_would_not_fit(
    registry: RegistryServer, client: SchemaRegistry
) -> None:
    first, again = (lines("topics", "register", "--json", PROXIMA_REGISTRY__URL=registry.url) for _ in range(2))
    assert first == again
    assert {line["subject"] for line in first} == {f"proxima.{name}" for name in RECORDS}
    wrong = {"type": "record", "name": "Tick", "namespace": "proxima", "fields": [{"name": "other", "type": "int"}]}
    with pytest.raises(RegistryError, match="not compatible"):
        client.id_of("proxima.Tick", json.dumps(wrong))
    reader = SchemaRegistry(Registry(url=registry.url, register_schemas=False))
    assert reader.id_of(*next(wire.subjects())) == first[0]["id"]
    with pytest.raises(RegistryError, match="`proxima topics register`"):
        reader.id_of("proxima.Tick", json.dumps(wrong))


def test_a_registry_that_is_not_there_is_one_clear_line() -> None:
    (port,) = free_ports(1)
    said = fails(1, "tail", "failover-rankings", PROXIMA_REGISTRY__URL=f"http://127.0.0.1:{port}")
    assert said.startswith("proxima: no schema registry answers: Connection refused (http://127.0.0.1:")
    said = fails(1, "tail", "failover-rankings", PROXIMA_REGISTRY__URL="http://user:hunter2@127.0.0.1")
    assert said.startswith("proxima: registry.url: ")
    assert "hunter2" not in said
