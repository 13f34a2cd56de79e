"""Checkpoints of a real worker: from any of them, the rest of the journal gives the bytes that it published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from infra.kafka.cluster import Broker
from schemas.codec import decode
from schemas.records import Snapshot
from streams.fold import SHARED, JournalFold
from streams.journal import JournalRecord
from tests.pipeline import Feed, Pipeline

ALPHA = 4  # the partition of its primary


def folded(fold: JournalFold, journal: Iterable[JournalRecord]) -> list[tuple[str, bytes]]:
    return [(out.topic, out.value) for record in journal for out in fold.apply(record)]


@pytest.mark.kafka
def test_from_any_checkpoint_the_rest_of_the_journal_gives_the_same_bytes(kafka: Broker, tmp_path: Path) -> None:
    intervals = {"DECIDE__CHECKPOINT_EVERY_MS": 1000, "DECIDE__SNAPSHOT_EVERY_MS": 300}
    with Pipeline(kafka.bootstrap, tmp_path, **intervals) as pipeline:
        pipeline.start()
        pipeline.configure(("alpha",))

        def checkpoints() -> list[Snapshot]:
            return [decode(r.value, Snapshot) for r in pipeline.read("engine-checkpoints") if r.partition == ALPHA]

        with Feed(pipeline, 1, primaries=("alpha",)) as feed:
            pipeline.wait(lambda: len(checkpoints()) >= 8, 60, "some checkpoints")
            feed.stop()
        pipeline.settle()
        pipeline.stop()
        found, journal = checkpoints(), [r for r in pipeline.read("observations") if r.partition == ALPHA]
        topic_id, written = pipeline.topic_id("observations"), pipeline.read("engine-snapshots")
    offsets = [s.next_offset for s in found if s.key == SHARED]
    assert offsets == sorted(set(offsets)), "one an interval"
    assert len(offsets) < len([r for r in written if r.partition == ALPHA and r.key == SHARED.encode()])
    whole = JournalFold(topic="observations", topic_id=topic_id, partition=ALPHA, tick_ms=1000, phase_ms=300)
    full = {record.offset: whole.apply(record) for record in journal}
    told = 0
    for number, shared in enumerate(found):
        if shared.key != SHARED:
            continue
        fold = JournalFold(topic="observations", topic_id=topic_id, partition=ALPHA, tick_ms=1000, phase_ms=300)
        # Primaries first, the partition's own last: what stands before it is the whole round.
        fold.restore(found[max(0, number - 1) : number + 1])
        rest = folded(fold, [r for r in journal if r.offset >= shared.next_offset])
        expected = [(o.topic, o.value) for offset, made in full.items() if offset >= shared.next_offset for o in made]
        assert rest == expected
        told += len(rest)
    assert told, "some of them had something to tell"
