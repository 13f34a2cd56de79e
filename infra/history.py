"""Where in the journal a moment is, and what to begin to fold from.

A decision needs the state that was folded before it. Decide keeps a checkpoint of every partition a day
(`engine-checkpoints`): a replay from a moment takes the nearest one at or before it, folds on from the offset that its
`_shared` record covers, and shows what is decided from the moment on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from infra.kafka.admin import topic_ids
from infra.kafka.reader import TopicReader, offsets_at
from schemas.codec import decode
from schemas.errors import CodecError, ProximaError
from schemas.records import (
    DeadLetter,
    DisruptionPrediction,
    FailoverRanking,
    GraphUpdate,
    NetworkGraphNode,
    NetworkVerdict,
    PathWeights,
    PredictionScorecard,
    ReadinessRequest,
    Snapshot,
)
from schemas.topics import named
from streams.core.state import from_scalars
from streams.journal import JournalRecord

if TYPE_CHECKING:
    from streams.folding import Output

JOURNAL: Final = "observations"
CHECKPOINTS: Final = "engine-checkpoints"
_DAY_MS: Final = 86_400_000
# So far back from the moment checkpoints are looked for, one after the other; None: everything that is kept.
_WINDOWS_MS: Final = (2 * _DAY_MS, 16 * _DAY_MS, None)
# A checkpoint is written after the moment that it covers; a worker that catches up writes it much later.
_WRITTEN_LATER_MS: Final = 3_600_000
_POLL_S: Final = 0.2
_SILENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """What of the journal is folded: by partition the first offset, and the end."""

    topic_id: str
    first: dict[int, int]
    ends: dict[int, int]
    snapshots: list[Snapshot] = field(default_factory=list)
    without_checkpoint: list[int] = field(default_factory=list)  # partitions with records, from their first on

    @property
    def offsets(self) -> int:
        """How many there are to be read: that many records at most."""
        return sum(max(0, end - self.first[n]) for n, end in self.ends.items())


def stretch(bootstrap: str, prefix: str, from_ms: int | None = None, to_ms: int | None = None) -> Stretch:
    """The stretch to fold for what is decided from `from_ms` (None: the beginning) up to before `to_ms` (None: now).

    Raises KafkaUnavailableError: no broker answers, or there is no journal.
    """
    journal = named(prefix, JOURNAL)
    topic_id = topic_ids(bootstrap, [journal])[journal]
    earliest = offsets_at(bootstrap, journal, 0)
    ends = offsets_at(bootstrap, journal, to_ms if to_ms is not None else _END_MS)
    if from_ms is None:
        return Stretch(topic_id, earliest, ends)
    found = checkpoints(bootstrap, prefix, topic_id, from_ms, earliest)
    begun = offsets_at(bootstrap, journal, from_ms)
    return Stretch(
        topic_id,
        # The last of a checkpoint is `_shared`, which covers least.
        {n: found[n][-1].next_offset if n in found else offset for n, offset in earliest.items()},
        ends,
        [s for each in found.values() for s in each],
        [n for n, offset in earliest.items() if n not in found and begun[n] > offset],
    )


def checkpoints(
    bootstrap: str, prefix: str, topic_id: str, from_ms: int, earliest: dict[int, int]
) -> dict[int, list[Snapshot]]:
    """By partition, the nearest whole checkpoint at or before a moment from whose offset on the journal is still kept.

    Primaries first, `_shared` last; a partition that has none is left out.
    """
    topic = named(prefix, CHECKPOINTS)
    first = offsets_at(bootstrap, topic, 0)
    ends = offsets_at(bootstrap, topic, from_ms + _WRITTEN_LATER_MS)
    wanted = {n for n, end in ends.items() if n in earliest and first[n] < end}
    found: dict[int, list[Snapshot]] = {}
    for window_ms in _WINDOWS_MS:
        starts = first if window_ms is None else offsets_at(bootstrap, topic, from_ms - window_ms)
        left = {n: starts[n] for n in wanted if n not in found}
        by_partition: dict[int, list[Snapshot]] = {n: [] for n in left}
        for record in records(bootstrap, topic, left, {n: ends[n] for n in left}):
            try:
                snapshot = decode(record.value, Snapshot)
            except CodecError:  # an operator's accident, as in decide
                continue
            if snapshot.journal_topic_id == topic_id:
                by_partition[record.partition].append(snapshot)
        for n, snapshots in by_partition.items():
            nearest = nearest_round(snapshots, from_ms, earliest[n], whole=starts[n] == 0)
            if nearest:
                found[n] = nearest
        if len(found) == len(wanted):
            break
    return found


def nearest_round(snapshots: Iterable[Snapshot], at_ms: int, earliest: int, *, whole: bool) -> list[Snapshot]:
    """Of one partition's checkpoints, in their order, the last round that covers the journal to before `at_ms`.

    `whole`: nothing was written before the first of them; otherwise the first round may lack what stood before it.
    Empty: there is none that begins at `earliest` or later.
    """
    from streams.fold import SHARED  # noqa: PLC0415 - the engine, which `proxima explain` has no need of

    latest: dict[str, Snapshot] = {}
    found: list[Snapshot] = []
    for s in snapshots:
        if s.key != SHARED:
            latest[s.key] = s
            continue
        # A round that two writers mixed (a zombie's and its successor's) may hold one that covers less: not usable.
        usable = whole and s.next_offset >= earliest and all(p.next_offset >= s.next_offset for p in latest.values())
        if usable and from_scalars(s.scalars)["clock_ms"] < at_ms:
            found = [*(latest[key] for key in sorted(latest)), s]
        whole = True
    return found


def records(bootstrap: str, topic: str, first: dict[int, int], ends: dict[int, int]) -> Iterator[JournalRecord]:
    """Records of a topic from `first` up to before `ends`, each partition in its order.

    Raises KafkaUnavailableError; ProximaError when the broker gives nothing more before the end.
    """
    return (record for record in live(bootstrap, topic, first, ends) if record is not None)


def live(
    bootstrap: str, topic: str, first: dict[int, int], ends: dict[int, int], *, follow: bool = False
) -> Iterator[JournalRecord | None]:
    """As `records`, and None now and then while nothing comes, so that the caller can look after other things.

    `follow`: the ends are no ends; it goes on for as long as it is asked.
    """
    if not first:
        return
    with TopicReader(bootstrap, {topic: first}, None if follow else {topic: ends}) as reader:
        heard_s = time.monotonic()
        while follow or not reader.at_end:
            r = reader.poll(_POLL_S)
            if r is not None and r.value is not None:
                heard_s = time.monotonic()
                yield JournalRecord(r.partition, r.offset, r.appended_at_ms, r.key, r.value)
                continue
            yield None
            if not follow and time.monotonic() - heard_s > _SILENCE_S:
                raise ProximaError(f"{topic} gives nothing more before its end", where=bootstrap)


def decided_at_ms(output: Output) -> int:
    """When an output was decided, in journal time; of a dead letter: when its record was appended."""
    record = decode(output.value, *_AT)
    return getattr(record, _AT[type(record)])  # type: ignore[no-any-return]


_AT: Final = {
    FailoverRanking: "decided_at_ms",
    PathWeights: "decided_at_ms",
    GraphUpdate: "decided_at_ms",
    NetworkVerdict: "decided_at_ms",
    NetworkGraphNode: "decided_at_ms",
    DisruptionPrediction: "predicted_at_ms",
    PredictionScorecard: "scored_at_ms",
    ReadinessRequest: "requested_at_ms",
    DeadLetter: "appended_at_ms",
}


_END_MS: Final = 1 << 60  # later than any record: gives the end
