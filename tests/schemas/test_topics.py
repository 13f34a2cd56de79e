"""The table, and where a key goes."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from schemas.topics import JOURNAL_BYTES_MAX, PARTITIONS, TOPICS, named, partition_of


@given(st.binary(max_size=300), st.integers(1, 1000))
def test_a_key_goes_where_every_java_client_sends_it(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


def test_known_keys_go_where_kafkas_own_tests_say() -> None:
    """From org.apache.kafka.common.utils.UtilsTest: murmur2 of these keys."""
    for key, hashed in {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }.items():
        assert partition_of(key, 1 << 31) == hashed & 0x7FFFFFFF


def test_every_topic_has_append_time_by_the_broker() -> None:
    assert all(t.settings()["message.timestamp.type"] == "LogAppendTime" for t in TOPICS.values())


def test_a_dead_letter_holds_the_largest_record_there_is() -> None:
    rest = max(t.max_message_bytes for t in TOPICS.values() if t.name != "dead-letters")
    assert rest == JOURNAL_BYTES_MAX
    assert TOPICS["dead-letters"].max_message_bytes >= rest + 64 * 1024


def test_topics_of_primaries_have_the_same_partitions_so_that_a_primary_stays_together() -> None:
    assert {t.partitions for t in TOPICS.values() if t.name != "graph-updates"} == {PARTITIONS}


def test_the_journal_of_the_whole_network_is_one_order() -> None:
    assert TOPICS["graph-updates"].partitions == 1


def test_a_topic_that_is_not_in_the_table_has_no_name() -> None:
    assert named("p-", "observations") == "p-observations"
    with pytest.raises(KeyError):
        named("", "p-observations")
