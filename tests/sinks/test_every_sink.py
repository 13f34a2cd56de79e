"""What every sink promises, without a broker: nothing twice, nothing back, nothing lost while its store is down."""

from __future__ import annotations

import pytest

from schemas.errors import CodecError, StoreUnavailableError
from schemas.records import FailoverRanking, Reason
from sinks.sink import Meta, Sink
from tests.sinks.rankings import PRIMARIES, latest_of, ranking
from tests.sinks.targets import Target

TOPIC = "failover-rankings"


def add(sink: Sink, *rankings: FailoverRanking, first_offset: int = 0) -> None:
    for offset, record in enumerate(rankings, start=first_offset):
        sink.add(record, Meta(TOPIC, 0, offset, record.decided_at_ms, record.primary_region.encode()))


def opened(target: Target) -> Sink:
    sink = target.open()
    sink.assigned([(TOPIC, 0)])
    return sink


def test_what_was_added_is_there_after_the_flush_and_not_before(target: Target) -> None:
    sink = opened(target)
    rankings = [ranking(p, s) for s in (1, 2, 3) for p in PRIMARIES]
    add(sink, *rankings)
    assert target.served() == {}
    assert not sink.flush()
    assert target.served() == latest_of(rankings)
    sink.close()


def test_a_batch_that_comes_twice_changes_nothing(target: Target) -> None:
    sink = opened(target)
    rankings = [ranking(p, s) for s in (1, 2) for p in PRIMARIES]
    add(sink, *rankings)
    sink.flush()
    before = target.content()
    add(sink, *rankings)
    sink.flush()
    assert target.content() == before
    sink.close()


def test_a_sink_that_starts_again_changes_nothing_by_reading_again(target: Target) -> None:
    rankings = [ranking(p, s) for s in (1, 2) for p in PRIMARIES]
    for _ in range(2):
        sink = opened(target)
        add(sink, *rankings)
        sink.flush()
        before = target.content()
        sink.close()
    assert target.content() == before


def test_a_lower_sequence_never_replaces_a_higher_one(target: Target) -> None:
    sink = opened(target)
    add(sink, ranking(sequence=5))
    sink.flush()
    add(sink, ranking(sequence=4), ranking(PRIMARIES[1], 1), first_offset=1)
    sink.flush()
    assert target.served() == {PRIMARIES[0]: 5, PRIMARIES[1]: 1}
    sink.close()
    again = opened(target)
    add(again, ranking(sequence=3))
    again.flush()
    assert target.served() == {PRIMARIES[0]: 5, PRIMARIES[1]: 1}
    again.close()


def test_a_flush_that_fails_keeps_its_batch_for_the_next(target: Target) -> None:
    sink = opened(target)
    add(sink, ranking(sequence=1))
    sink.flush()
    target.destroy()
    add(sink, ranking(sequence=2), ranking(PRIMARIES[1], 1), first_offset=1)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            sink.flush()
    add(sink, ranking(sequence=3), first_offset=3)
    target.mend()
    sink.flush()
    assert target.served() == {PRIMARIES[0]: 3, PRIMARIES[1]: 1}
    sink.close()


def test_a_number_that_json_does_not_have_is_the_records_fault_and_leaves_the_batch_alone(target: Target) -> None:
    sink = opened(target)
    add(sink, ranking(sequence=1))
    with pytest.raises(CodecError) as raised:
        add(sink, ranking(PRIMARIES[1], 1, order_confidence=float("nan")), first_offset=1)
    assert raised.value.reason == Reason.OUT_OF_RANGE
    sink.flush()
    assert target.served() == {PRIMARIES[0]: 1}
    sink.close()


def test_an_empty_flush_writes_nothing(target: Target) -> None:
    sink = opened(target)
    sink.flush()
    before = target.content()
    assert not sink.flush()
    assert target.content() == before
    sink.close()


def test_a_hostile_primary_is_only_a_name(target: Target) -> None:
    name = 'a"b\\ \n {"sequence":9} é'
    sink = opened(target)
    add(sink, ranking(name, 2))
    sink.flush()
    sink.close()
    again = opened(target)
    add(again, ranking(name, 1))
    again.flush()
    assert target.served() == {name: 2}
    again.close()
