"""Any bytes of any topic, shown: every record, every way to be unreadable, and a journal file of a topic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.cli._plain import shown, text_of
from infra.kafka.admin import topic_ids
from schemas.codec import encode, to_plain
from schemas.records import (
    RECORDS,
    Column,
    DeadLetter,
    InjectedMetric,
    Observation,
    PathPanes,
    ProbeBatch,
    Snapshot,
    Source,
    Tick,
)
from schemas.topics import TOPICS, named
from streams.journal import JournalHeader, read, read_header
from tests.infra.commands import fails, lines, proxima, succeeds
from tests.infra.conftest import Topics
from tests.schemas.strategies import any_record, record_of, smallest

slow_to_make = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SOURCE = Source("probe-samples", "id", 0, 0, 1)
BATCH = ProbeBatch.of(
    agent_id="a/1", primary_region="eu-west-1", started_at_ms=1, targets=["t"], methods=["icmp"],
    target_index=[0, 0], method_index=[0, 0], sent_offset_ms=[0.0, 500.5], rtt_ms=[12.3, float("nan")],
    outcome=[0, 1], code=[0, 0],
)  # fmt: skip


def strict(value: Any) -> Any:
    """What a JSON parser that knows no NaN makes of it."""
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_is_shown_with_all_its_fields(name: str) -> None:
    @slow_to_make
    @given(record_of(name))
    def holds(record: Any) -> None:
        found = strict(shown(encode(record)))
        assert found["type"] == name
        assert list(found["record"]) == list(to_plain(record))

    holds()


def test_packed_columns_are_arrays_and_a_lost_probe_is_null() -> None:
    found = strict(shown(encode(BATCH)))["record"]
    assert found["rtt_ms"] == [12.3, None]
    assert found["sent_offset_ms"] == [0.0, 500.5]
    assert found["outcome"] == [0, 1]
    assert found["targets"] == ["t"]


def test_panes_are_arrays_with_six_outcomes_a_row() -> None:
    columns = {
        "pane_at_ms": (1).to_bytes(8, "little"),
        "agent_index": bytes(2),
        "target_index": bytes(2),
        "method_index": bytes(1),
        "outcomes": b"".join(n.to_bytes(4, "little") for n in range(6)),
        "rtt_sum_us": bytes(8),
        "rtt_min_us": bytes(4),
        "buckets": (1).to_bytes(2, "little"),
        "bucket": (5).to_bytes(2, "little"),
        "bucket_count": (2).to_bytes(4, "little"),
    }
    found = strict(shown(encode(PathPanes(1000, ["a"], ["t"], ["icmp"], **columns))))["record"]
    assert found["outcomes"] == [[0, 1, 2, 3, 4, 5]]
    assert found["bucket_count"] == [2]


def test_columns_that_are_no_whole_numbers_are_shown_in_hexadecimal_beside_the_others() -> None:
    torn = ProbeBatch(**(to_plain(BATCH) | {"rtt_ms": b"\1\2\3"}))
    found = strict(shown(encode(torn)))["record"]
    assert found["rtt_ms"]["undecodable"]["hex"] == "010203"
    assert found["outcome"] == [0, 1]


def test_an_observation_shows_what_is_in_it() -> None:
    found = strict(shown(encode(Observation("eu-west-1", SOURCE, encode(BATCH)))))["record"]
    assert found["body"]["type"] == "ProbeBatch"
    assert found["body"]["record"]["rtt_ms"] == [12.3, None]
    assert found["source"]["topic"] == "probe-samples"


def test_a_dead_letter_shows_the_original_if_anybody_can_read_it() -> None:
    def letter(original: bytes) -> DeadLetter:
        return DeadLetter("OUT_OF_RANGE", "why", "t", 0, 1, 2, "intake", original, b"\xffkey")

    typed = b'{"primary_region":"a","target_region":"b","metric":"mood","value":1,"source":"s","observed_at_ms":1}'
    assert strict(shown(encode(letter(encode(Tick("x"))))))["record"]["original"]["type"] == "Tick"
    assert strict(shown(encode(letter(typed))))["record"]["original"]["record"]["metric"] == "mood"
    garbage = strict(shown(encode(letter(b"\xff\xfe"))))["record"]
    assert garbage["original"]["undecodable"]["hex"] == "fffe"
    assert garbage["original_key"] == "hex:ff6b6579"


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "expected"),
    [
        ("<f8", [2], b"\0" * 8 + b"\0\0\0\0\0\0\xf8\x7f", [0.0, None]),
        ("<i4", [2, 1], b"\1\0\0\0\2\0\0\0", [[1], [2]]),
        ("<f4", [], b"\0\0\x80?", 1.0),
        ("|b1", [2], b"\0\1", [False, True]),
        ("<f8", [0], b"", []),
        ("O", [1], b"\0" * 8, None),
        ("<f8", [3], b"\0" * 8, None),
        ("<f8", [1 << 30, 0], b"", []),
        ("<f8", [-1, -1], b"\0" * 8, None),
        ("(((", [1], b"", None),
    ],
)
def test_columns_of_snapshots_are_arrays_and_hostile_types_are_not(
    dtype: str, shape: list[int], data: bytes, expected: Any
) -> None:
    snapshot = Snapshot("eu-west-1", "1", "id", 0, 1, "{}", [Column("c", dtype, shape, data)])
    found = strict(shown(encode(snapshot)))["record"]["columns"][0]["data"]
    assert found == expected if expected is not None else found["undecodable"]["hex"] == data.hex()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100))
def test_random_bytes_are_shown_in_hexadecimal_with_the_reason(value: bytes) -> None:
    found = strict(shown(value))
    assert found["undecodable"]["hex"] == value.hex()
    assert found["undecodable"]["reason"]
    assert found["undecodable"]["what"]


@slow_to_make
@given(any_record(), st.data())
def test_a_truncated_record_is_shown_too(record: Any, data: st.DataObject) -> None:
    value = encode(record)
    cut = value[: data.draw(st.integers(0, len(value) - 1))]
    assert strict(shown(cut))["undecodable"]["hex"] == cut.hex()


@pytest.mark.parametrize("name", RECORDS)
def test_random_bytes_behind_a_good_header_are_shown(name: str) -> None:
    header = encode(smallest(name))[:10]

    @settings(max_examples=40, deadline=None)
    @given(st.binary(max_size=200))
    def holds(body: bytes) -> None:
        strict(shown(header + body))

    holds()


def test_a_record_in_a_record_in_a_record_comes_to_an_end() -> None:
    value = encode(Tick("x"))
    for _ in range(2000):
        value = encode(Observation(None, SOURCE, value))
    assert "TOO_DEEP" in json.dumps(shown(value))


def test_keys_are_text_or_say_that_they_are_not() -> None:
    assert text_of(b"eu-west-1") == "eu-west-1"
    assert text_of(b"\xff") == "hex:ff"
    assert text_of(None) is None


@pytest.mark.kafka
def test_every_topic_is_tailed_with_every_record_and_garbage_among_them(topics: Topics) -> None:
    garbage = [b"", b"\xff" * 30, b"{", b"{}", b"\x00\x00\x00\x00\x07abc", b"\xc3\x01" + bytes(8), None]
    typed = (
        b'{"primary_region":"a","target_region":"b","metric":"loss_ratio","value":1,"source":"s","observed_at_ms":1}'
    )
    for topic in TOPICS.values():
        if "compact" in topic.cleanup.split(","):
            continue  # takes no value without a key's meaning; the same code reads it
        records = [smallest(cls.__name__) for cls in topic.records]
        topics.publish(topic.name, *records, *garbage, typed, key=b"\xffkey")
    for topic in TOPICS.values():
        if "compact" in topic.cleanup.split(","):
            continue
        found = lines("tail", topic.name, "--from-beginning", "--to-end", **topics.environment)
        assert [f.get("type") for f in found if "record" in f and f["type"]] == [
            *(cls.__name__ for cls in topic.records),
            "InjectedMetric",
        ]
        assert [f["undecodable"]["hex"] for f in found if "undecodable" in f] == [
            g.hex() for g in garbage if g is not None
        ]
        assert [f["offset"] for f in found] == list(range(len(found)))
        assert {f["topic"] for f in found} == {named(topics.prefix, topic.name)}
        assert {f["key"] for f in found} == {"hex:ff6b6579"}
        assert all(f["appended_at_ms"] > 1_600_000_000_000 for f in found)


@pytest.mark.kafka
def test_a_limit_ends_it(topics: Topics) -> None:
    topics.publish("observations", *(Tick(str(n)) for n in range(5)))
    found = lines("tail", "observations", "--from-beginning", "--limit", "2", **topics.environment)
    assert [f["record"]["appended_by"] for f in found] == ["0", "1"]


@pytest.mark.kafka
@pytest.mark.parametrize("to_file", [True, False], ids=["output", "stdout"])
def test_a_journal_file_has_the_topics_records_as_they_are(topics: Topics, tmp_path: Path, to_file: bool) -> None:
    values = [encode(Observation("eu-west-1", SOURCE, encode(Tick(str(n))))) for n in range(50)]
    topics.publish("observations", *values[:25], b"garbage", None)
    topics.publish("observations", *values[25:], key="ap-south-1")
    path = tmp_path / "monday.journal"
    raw = ("tail", "observations", "--from-beginning", "--to-end", "--raw")
    if to_file:
        succeeds(*raw, "--output", path, **topics.environment)
    else:
        with path.open("wb") as out:
            assert proxima(*raw, stdout=out, **topics.environment).returncode == 0
    name = named(topics.prefix, "observations")
    assert read_header(path) == JournalHeader(name, topic_ids(topics.bootstrap, [name])[name], 12)
    records = list(read(path))
    assert sorted(r.value for r in records) == sorted([*values, b"garbage"])
    assert {r.key for r in records} == {b"eu-west-1", b"ap-south-1"}
    for partition in {r.partition for r in records}:
        offsets = [r.offset for r in records if r.partition == partition]
        assert offsets == sorted(offsets)
    shown_lines = lines("tail", "observations", "--from-beginning", "--to-end", **topics.environment)
    places = {(f["partition"], f["offset"]): f["appended_at_ms"] for f in shown_lines}
    assert all(places[r.partition, r.offset] == r.appended_at_ms for r in records)


def test_json_lines_to_a_file_are_what_redirection_is_for() -> None:
    assert "--raw" in fails(2, "tail", "observations", "--output", "x")


def test_people_may_type_what_an_injected_metric_is() -> None:
    typed = (
        b'{"primary_region":"a","target_region":"b","metric":"loss_ratio","value":1,"source":"s","observed_at_ms":1}'
    )
    assert strict(shown(typed))["type"] == InjectedMetric.__name__
