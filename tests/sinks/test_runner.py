"""Every sink in the consumer loop, on a real broker: what is committed is in the store, whatever dies between."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer

from infra.findings import OK, WARNING
from infra.kafka.admin import admin_client, create_topics
from infra.processes import wait_until
from infra.roles import sinks
from schemas.breaker import State
from schemas.records import FailoverRanking, Reason
from schemas.topics import named
from tests.sinks.conftest import Pipeline
from tests.sinks.rankings import (
    PRIMARIES,
    committed,
    dead_letters_on,
    ends,
    latest_of,
    publish,
    ranking,
    rankings_on,
)
from tests.sinks.targets import JsonLinesTarget, Target

pytestmark = pytest.mark.kafka


def test_the_store_ends_up_with_the_latest_of_the_topic_and_all_of_it_is_committed(
    target: Target, pipeline: Pipeline
) -> None:
    rankings = [ranking(p, s) for s in range(1, 101) for p in PRIMARIES]
    publish(pipeline.bootstrap, pipeline.prefix, rankings[:250])
    with pipeline.running(target.open(pipeline.prefix)):
        publish(pipeline.bootstrap, pipeline.prefix, rankings[250:])
        wait_until(lambda: target.served(pipeline.prefix) == latest_of(rankings), 20, "the latest rankings")
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == ends(pipeline.bootstrap, pipeline.prefix)


def test_nothing_is_committed_that_was_not_flushed_and_nothing_is_lost(target: Target, pipeline: Pipeline) -> None:
    first, second = (
        [ranking(p, s) for s in sequences for p in PRIMARIES] for sequences in (range(1, 21), range(21, 61))
    )
    publish(pipeline.bootstrap, pipeline.prefix, first)
    with pipeline.running(target.open(pipeline.prefix)) as runner:
        wait_until(lambda: target.served(pipeline.prefix) == latest_of(first), 20, "the first rankings")
        wait_until(lambda: committed(pipeline.bootstrap, pipeline.prefix, "test") ==
                   ends(pipeline.bootstrap, pipeline.prefix), 20, "the commit")  # fmt: skip
        before = committed(pipeline.bootstrap, pipeline.prefix, "test")
        target.destroy()
        publish(pipeline.bootstrap, pipeline.prefix, second)
        wait_until(lambda: runner.counts.outages > 0, 20, "the sink to notice")
    # Stopped while the store is down: what it could not write is not committed, so the next one reads it.
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == before
    target.mend()
    with pipeline.running(target.open(pipeline.prefix)):
        wait_until(lambda: target.served(pipeline.prefix) == latest_of(second), 20, "the second rankings")
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == ends(pipeline.bootstrap, pipeline.prefix)


def test_a_store_killed_mid_stream_has_everything_once_it_is_back(target: Target, pipeline: Pipeline) -> None:
    rankings = [ranking(p, s) for s in range(1, 301) for p in PRIMARIES]
    with pipeline.running(target.open(pipeline.prefix), batch_max=50) as runner:
        publish(pipeline.bootstrap, pipeline.prefix, rankings[:500])
        wait_until(lambda: bool(target.served(pipeline.prefix)), 20, "the first rankings")
        target.destroy()
        publish(pipeline.bootstrap, pipeline.prefix, rankings[500:])
        wait_until(lambda: runner.counts.outages > 0, 20, "the sink to notice")
        waiting = runner.counts.taken
        target.mend()
        wait_until(lambda: target.served(pipeline.prefix) == latest_of(rankings), 20, "all of them")
    assert waiting < len(rankings), "it should not read on while it cannot write"
    assert latest_of(rankings_on(pipeline.bootstrap, pipeline.prefix)) == target.served(pipeline.prefix)
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == ends(pipeline.bootstrap, pipeline.prefix)


def test_bad_bytes_become_dead_letters_and_stop_nothing(target: Target, pipeline: Pipeline) -> None:
    good = [ranking(sequence=1), ranking(sequence=3)]
    bad = [b"", b"\xff" * 40, b"{}", b"\x00\x00\x00\x00\x01\x02", b"\xc3\x01" + bytes(8)]
    unwritable = ranking(sequence=2, order_confidence=float("inf"))
    publish(pipeline.bootstrap, pipeline.prefix, [good[0], *bad, unwritable, good[1]])
    with pipeline.running(target.open(pipeline.prefix)) as runner:
        wait_until(lambda: target.served(pipeline.prefix) == {PRIMARIES[0]: 3}, 20, "the ranking after the bad bytes")
        wait_until(lambda: runner.counts.dead_letters == len(bad) + 1, 20, "the dead letters")
    letters = sorted(dead_letters_on(pipeline.bootstrap, pipeline.prefix), key=lambda d: d.source_offset)
    assert [d.original for d in letters][:-1] == bad
    assert [d.reason for d in letters] == [
        Reason.MALFORMED,
        Reason.MALFORMED,
        Reason.MALFORMED,
        Reason.REGISTRY_NOT_CONFIGURED,
        Reason.UNKNOWN_SCHEMA,
        Reason.OUT_OF_RANGE,
    ]
    for letter in letters:
        assert letter.found_by == "test"
        assert letter.source_topic == named(pipeline.prefix, "failover-rankings")
        assert letter.original_key == PRIMARIES[0].encode()
        assert letter.appended_at_ms > 1_600_000_000_000
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == ends(pipeline.bootstrap, pipeline.prefix)


def test_a_place_is_given_up_only_when_its_dead_letter_has_arrived(
    target: Target, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.dead_letters.CONFIRM_TIMEOUT_S", 0.5)
    admin = admin_client(pipeline.bootstrap)
    letters = named(pipeline.prefix, "dead-letters")
    admin.delete_topics([letters])[letters].result()
    wait_until(lambda: letters not in admin.list_topics(timeout=5).topics, 20, "the topic to be gone")
    publish(pipeline.bootstrap, pipeline.prefix, [b"bad", ranking(sequence=1)])
    with pipeline.running(target.open(pipeline.prefix)) as runner:
        wait_until(lambda: runner.counts.outages > 0, 30, "the sink to wait")
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == {}
    create_topics(pipeline.bootstrap, prefix=pipeline.prefix)
    with pipeline.running(target.open(pipeline.prefix)):
        wait_until(lambda: target.served(pipeline.prefix) == {PRIMARIES[0]: 1}, 30, "the ranking")
    letters_found = dead_letters_on(pipeline.bootstrap, pipeline.prefix)
    assert {(d.original, d.source_offset) for d in letters_found} == {(b"bad", 0)}, "maybe twice, never none"
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == ends(pipeline.bootstrap, pipeline.prefix)


def test_a_sequence_that_was_handled_is_dropped_before_the_store_sees_it(target: Target, pipeline: Pipeline) -> None:
    publish(pipeline.bootstrap, pipeline.prefix, [ranking(sequence=s) for s in (1, 2, 1, 2, 2, 3)])
    with pipeline.running(target.open(pipeline.prefix)) as runner:
        wait_until(lambda: target.served(pipeline.prefix) == {PRIMARIES[0]: 3}, 20, "the latest ranking")
        assert runner.counts.repeated == 3


def test_an_outage_does_not_cost_the_group_membership(target: Target, pipeline: Pipeline) -> None:
    """Longer down than a consumer may go without polling: whoever stops polling would be thrown out."""
    publish(pipeline.bootstrap, pipeline.prefix, [ranking(sequence=1)])
    with pipeline.running(target.open(pipeline.prefix)) as runner:
        wait_until(lambda: target.served(pipeline.prefix) == {PRIMARIES[0]: 1}, 20, "the first ranking")
        target.destroy()
        publish(pipeline.bootstrap, pipeline.prefix, [ranking(sequence=2)])
        wait_until(lambda: runner.counts.outages > 0, 20, "the sink to notice")
        # Another of the same name: the group gives away partitions only if the first one answers.
        second = Consumer({"bootstrap.servers": pipeline.bootstrap, "group.id": f"{pipeline.prefix}proxima-sink-test",
                           "partition.assignment.strategy": "range"})  # fmt: skip
        try:
            second.subscribe([named(pipeline.prefix, "failover-rankings")])
            wait_until(lambda: second.poll(0.1) is None and len(second.assignment()) == 6, 20, "half of the partitions")
        finally:
            second.close()
        target.mend()
        wait_until(lambda: target.served(pipeline.prefix) == {PRIMARIES[0]: 2}, 20, "the second ranking")


def test_two_sinks_share_the_work_and_a_handover_loses_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    published: list[FailoverRanking] = []
    files = [JsonLinesTarget(tmp_path / f"{i}.jsonl") for i in range(2)]

    def goes_on_until_there_are_lines(target: JsonLinesTarget) -> bool:
        more = [ranking(p, len(published) // len(PRIMARIES) + 1) for p in PRIMARIES]
        published.extend(more)
        publish(pipeline.bootstrap, pipeline.prefix, more)
        return bool(target.served())

    with pipeline.running(files[0].open()):
        wait_until(lambda: goes_on_until_there_are_lines(files[0]), 20, "the first sink's lines")
        with pipeline.running(files[1].open()):
            wait_until(lambda: goes_on_until_there_are_lines(files[1]), 20, "the second sink's lines")
        goes_on_until_there_are_lines(files[0])
        wanted = {r.decision_id for r in published}
        wait_until(lambda: {line["decision_id"] for f in files for line in f.lines()} == wanted, 20, "every ranking")
    assert committed(pipeline.bootstrap, pipeline.prefix, "test") == ends(pipeline.bootstrap, pipeline.prefix)


def test_an_outage_opens_the_stores_breaker_which_the_doctor_sees_and_its_return_closes_it(
    target: Target, pipeline: Pipeline
) -> None:
    publish(pipeline.bootstrap, pipeline.prefix, [ranking(sequence=1)])
    with pipeline.running(target.open(pipeline.prefix)) as runner:
        wait_until(lambda: target.served(pipeline.prefix) == {PRIMARIES[0]: 1}, 20, "the first ranking")
        wait_until(lambda: sinks(pipeline.bootstrap, pipeline.prefix).found == "test: 0 behind", 20, "a first commit")
        assert runner.breaker.status().state is State.CLOSED
        target.destroy()
        publish(pipeline.bootstrap, pipeline.prefix, [ranking(sequence=2)])
        wait_until(lambda: runner.breaker.status().opened > 2, 20, "some tries")
        status = runner.breaker.status()
        assert status.state is not State.CLOSED
        assert status.reason
        wait_until(lambda: sinks(pipeline.bootstrap, pipeline.prefix).status == WARNING, 20, "the doctor to see it")
        assert "test: 1 behind, breaker OPEN for" in sinks(pipeline.bootstrap, pipeline.prefix).found
        target.mend()
        wait_until(lambda: target.served(pipeline.prefix) == {PRIMARIES[0]: 2}, 20, "the second ranking")
        # The store may be read before the flush that wrote to it has returned.
        wait_until(lambda: runner.breaker.status().state is State.CLOSED, 20, "its breaker to close")
        wait_until(lambda: sinks(pipeline.bootstrap, pipeline.prefix).status == OK, 20, "the doctor to see that")
    assert sinks(pipeline.bootstrap, pipeline.prefix).status == OK, "nobody is there, and nothing is behind"
    publish(pipeline.bootstrap, pipeline.prefix, [ranking(sequence=3)])
    found = sinks(pipeline.bootstrap, pipeline.prefix)
    assert (found.status, found.found) == (WARNING, "test: no process is there, 1 behind")
