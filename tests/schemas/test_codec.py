"""Bytes and back, beside Apache Avro as the reference; and hostile bytes, which only ever raise CodecError."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from typing import Any

import avro.io
import avro.schema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import MAGIC, decode, decode_json, encode, encode_identified, from_plain, read, to_plain
from schemas.errors import CodecError
from schemas.records import (
    RECORDS,
    DeadLetter,
    FailoverConfiguration,
    FailoverRanking,
    InjectedMetric,
    PathPanes,
    Policy,
    ProbeBatch,
    Reason,
    Region,
    RegionCatalog,
    Tick,
)
from tests.schemas.strategies import any_record, record_of, smallest, source_of

each_record = pytest.mark.parametrize("name", RECORDS)
many = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
JSON_RECORDS = (InjectedMetric, FailoverConfiguration, RegionCatalog)


def apache(name: str) -> Any:
    return avro.schema.parse(json.dumps(source_of(name)))


@each_record
def test_what_is_written_is_read(name: str) -> None:
    @many
    @given(record_of(name))
    def holds(record: Any) -> None:
        value = encode(record)
        assert value[:2] == MAGIC
        assert decode(value, RECORDS[name]) == record
        assert decode(value, *RECORDS.values()) == record
        assert read(value, RECORDS[name]) == record

    holds()


@each_record
def test_apache_avro_reads_what_we_write_and_we_what_it_writes(name: str) -> None:
    schema = apache(name)

    @many
    @given(record_of(name))
    def holds(record: Any) -> None:
        value = encode(record)
        body = io.BytesIO(value[10:])
        assert avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(body)) == to_plain(record)
        assert body.read() == b""
        out = io.BytesIO()
        avro.io.DatumWriter(schema).write(to_plain(record), avro.io.BinaryEncoder(out))
        assert decode(value[:10] + out.getvalue(), RECORDS[name]) == record

    holds()


@each_record
def test_the_header_is_the_fingerprint_that_apache_avro_computes(name: str) -> None:
    fingerprint = apache(name).fingerprint("CRC-64-AVRO")
    assert encode(smallest(name))[:10] == MAGIC + fingerprint


def test_the_same_content_gives_the_same_bytes_in_whatever_order_it_was_put_together() -> None:
    there = FailoverConfiguration("a", ["b", "c"], 1, weights={"b": 0.5, "c": 0.25})
    back = FailoverConfiguration("a", ["b", "c"], 1, weights={"c": 0.25, "b": 0.5})
    assert encode(there) == encode(back)


@many
@given(record_of("FailoverRanking"))
def test_an_identified_record_is_the_one_with_the_digest_of_its_bytes_without(ranking: FailoverRanking) -> None:
    nameless = replace(ranking, decision_id="")
    digest = hashlib.blake2b(encode(nameless), digest_size=16).hexdigest()
    assert encode_identified(nameless) == encode(replace(nameless, decision_id=digest))


def test_a_record_that_has_its_id_already_is_not_given_another() -> None:
    with pytest.raises(ValueError, match="has its id already"):
        encode_identified(Tick("worker-1"))


@each_record
def test_every_truncation_is_a_codec_error(name: str) -> None:
    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(record_of(name))
    def holds(record: Any) -> None:
        value = encode(record)
        for length in range(len(value)):
            with pytest.raises(CodecError) as raised:
                decode(value[:length], RECORDS[name])
            assert raised.value.reason in (Reason.MALFORMED, Reason.UNKNOWN_SCHEMA)
        with pytest.raises(CodecError):
            decode(value + b"\0", RECORDS[name])

    holds()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_a_codec_error(value: bytes) -> None:
    with pytest.raises(CodecError):
        decode(value, *RECORDS.values())
    with pytest.raises(CodecError):
        read(value, *RECORDS.values())


@each_record
def test_random_bytes_behind_a_good_header_are_a_record_or_a_codec_error(name: str) -> None:
    header = encode(smallest(name))[:10]

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=300))
    def holds(body: bytes) -> None:
        try:
            record = decode(header + body, RECORDS[name])
        except CodecError:
            return
        assert isinstance(record, RECORDS[name])

    holds()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_record(), st.data())
def test_a_flipped_bit_is_another_record_or_a_codec_error(record: Any, data: st.DataObject) -> None:
    value = bytearray(encode(record))
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decode(bytes(value), *RECORDS.values())
    except CodecError:
        return


@pytest.mark.parametrize("length", [1 << 40, 1 << 62, (1 << 63) - 1, -1, -(1 << 63)])
def test_a_length_that_lies_allocates_nothing(length: int) -> None:
    zigzag = (length << 1) ^ (length >> 63)
    varint = bytearray()
    zigzag &= (1 << 64) - 1
    while zigzag > 0x7F:
        varint.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    varint.append(zigzag)
    header = encode(Tick("x"))[:10]
    with pytest.raises(CodecError):
        decode(header + bytes(varint) + b"abc", Tick)


def test_a_record_of_another_kind_is_said_to_be_one() -> None:
    with pytest.raises(CodecError, match="is a Tick; InjectedMetric or ProbeBatch belongs here") as raised:
        decode(encode(Tick("x")), InjectedMetric, ProbeBatch)
    assert raised.value.reason == Reason.WRONG_RECORD


def test_a_registrys_wire_format_is_known_and_not_read() -> None:
    with pytest.raises(CodecError) as raised:
        decode(b"\x00\x00\x00\x00\x07rest", Tick)
    assert raised.value.reason == Reason.REGISTRY_NOT_CONFIGURED


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(*(record_of(r.__name__) for r in JSON_RECORDS)))
def test_what_people_type_in_json_is_the_same_record(record: Any) -> None:
    typed = json.dumps(to_plain(record)).encode()
    assert read(typed, *JSON_RECORDS) == record
    assert from_plain(type(record), to_plain(record)) == record


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60).map(lambda rest: b"{" + rest))
def test_anything_that_starts_with_a_brace_is_a_record_or_a_codec_error(value: bytes) -> None:
    with pytest.raises(CodecError):
        decode_json(value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = ("primary_region", "target_region", "metric", "value", "source", "observed_at_ms", "ttl_ms", "regions",
           "version", "potential_failover_regions", "weights", "policy", "based_on", "author")  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(_FIELDS) | st.text(max_size=5), _JSON, max_size=8))
def test_json_with_our_names_and_anything_in_them_is_a_record_or_a_codec_error(plain: dict[str, Any]) -> None:
    try:
        record = decode_json(json.dumps(plain).encode())
    except CodecError:
        return
    encode(record)


_INJECTED = {"primary_region": "a", "target_region": None, "metric": "latency_ms", "value": 1.0, "source": "s",
             "observed_at_ms": 1}  # fmt: skip
_CONFIGURED = {"primary_region": "a", "potential_failover_regions": ["b"], "version": 1}
_HALF = "\ud800"  # half of a pair: JSON can spell it, UTF-8 cannot


@pytest.mark.parametrize(
    "typed",
    [
        _INJECTED | {"value": 10**400},
        _INJECTED | {"observed_at_ms": 1 << 63},
        _INJECTED | {"source": _HALF},
        _INJECTED | {_HALF: 1},
        _INJECTED | {"metric": [_HALF]},
        _CONFIGURED | {"version": 1 << 63},
        _CONFIGURED | {"based_on": -(1 << 63) - 1},
        _CONFIGURED | {"author": _HALF},
        _CONFIGURED | {"weights": {_HALF: 0.5}},
        _CONFIGURED | {"weights": {"b": 10**400}},
        _CONFIGURED | {"policy": {"dwell_ms": 1 << 64}},
        {"version": 1, "regions": [{"region_id": "a", "latitude": 0, "longitude": 0, "name": _HALF}]},
    ],
)
def test_json_that_avro_cannot_hold_is_a_codec_error_that_can_be_written(typed: dict[str, Any]) -> None:
    with pytest.raises(CodecError) as raised:
        decode_json(json.dumps(typed).encode())
    encode(DeadLetter(raised.value.reason, raised.value.what, "t", 0, 0, 0, "x", b""))


def test_deeply_nested_json_is_a_codec_error() -> None:
    for value in (b"{" * 100_000, b'{"a":' + b"[" * 100_000, b'{"weights":' + b'{"a":' * 50_000):
        with pytest.raises(CodecError):
            decode_json(value)


def test_every_mistake_in_json_is_named_with_its_place() -> None:
    typed = {"primary_region": 1, "potential_failover_regions": ["b", None], "version": True, "colour": "red",
             "weights": {"b": "x"}, "policy": {"dwell_ms": 1.5, "latency": 3}}  # fmt: skip
    with pytest.raises(CodecError) as raised:
        decode_json(json.dumps(typed).encode())
    assert raised.value.reason == Reason.OUT_OF_RANGE
    for place in (
        "colour is unknown",
        "primary_region is 1",
        "potential_failover_regions[1] is null",
        "version is true",
        'weights.b is "x"',
        "policy.latency is unknown",
        "policy.dwell_ms is 1.5",
    ):
        assert place in raised.value.what


def test_json_fills_in_defaults() -> None:
    typed = b'{"primary_region": "a", "potential_failover_regions": ["b"], "version": 1, "policy": {"dwell_ms": 5}}'
    assert decode_json(typed) == FailoverConfiguration("a", ["b"], 1, policy=Policy(dwell_ms=5))
    assert decode_json(
        b'{"version": 2, "regions": [{"region_id": "a", "latitude": 1, "longitude": 2}]}'
    ) == RegionCatalog(2, [Region("a", 1.0, 2.0)])


def test_columns_come_back_as_they_were_packed() -> None:
    batch = ProbeBatch.of(
        agent_id="a", primary_region="p", started_at_ms=1, targets=["t"], methods=["icmp"],
        target_index=[0, 0, 0], method_index=[0, 0, 0], sent_offset_ms=[0.0, 500.0, 600_000.0],
        rtt_ms=[1.5, float("nan"), 65_535.0], outcome=[0, 1, 0], code=[0, 0, 255],
    )  # fmt: skip
    columns = decode(encode(batch), ProbeBatch).columns()
    assert columns["rtt_ms"][0] == 1.5
    assert columns["rtt_ms"][1] != columns["rtt_ms"][1]
    assert columns["code"].tolist() == [0, 0, 255]
    assert {n: c.dtype.str.lstrip("|") for n, c in columns.items()} == ProbeBatch.COLUMNS
    assert all(not c.flags.writeable for c in columns.values())


def test_panes_have_six_outcomes_a_row() -> None:
    columns = {name: bytes(8) for name in (*PathPanes.ROWS, *PathPanes.ENTRIES)}
    panes = PathPanes(1000, ["a"], ["t"], ["m"], **(columns | {"outcomes": bytes(24)}))
    assert panes.columns()["outcomes"].shape == (1, 6)
