"""A partition of a journal, folded: what the folds of all stages have in common. No I/O, no clock.

Offset by offset: drop what was seen before (one watermark a source partition), let time pass (the broker's append time,
as a running maximum), evaluate once when a tick's edge is crossed, then take the record in. What comes out are encoded
records and the topics they belong on.

*Time that nobody saw.* `observed_ms` grows by at most two ticks a record: the metronome appends one a tick as long as
anything of ours is alive, so a longer silence was ours, and nobody's path fell stale in it.

*No record stops a partition.* An exception while folding is the same on every worker. The partition's state goes back
to the last snapshot round, the round's records are folded again without showing that record to that engine, and the
record becomes a dead letter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.records import Reason, Snapshot, Source
from streams.core.state import to_columns, to_scalars
from streams.journal import JournalRecord
from streams.letters import letter


@dataclass(frozen=True, slots=True)
class Output:
    """One record to publish: topic by its name in the table, key, encoded value."""

    topic: str
    key: bytes
    value: bytes


class EngineFailedError(Exception):
    """An engine raised (`primary` None: the fold itself), at a tick's edge (`passing`) or by the record."""

    def __init__(self, primary: str | None, cause: Exception, *, passing: bool = False) -> None:
        super().__init__(primary, cause)
        self.primary, self.cause, self.passing = primary, cause, passing


class Fold(ABC):
    """State of one partition of a journal."""

    stage: str  # as dead letters name it
    version: str  # of the engine

    def __init__(self, *, topic: str, topic_id: str, partition: int, tick_ms: int, phase_ms: int) -> None:
        self._topic, self._topic_id, self.partition = topic, topic_id, partition
        self._tick_ms, self._phase_ms = tick_ms, phase_ms
        self._base: list[Snapshot] = []
        self._round: list[JournalRecord] = []
        self._poison: set[tuple[int, str | None, bool]] = set()  # offset, primary, at a tick's edge
        self.dead_letters = 0
        self._forget()

    def _forget(self) -> None:
        self.next_offset: int | None = None  # None: wherever the journal begins
        self.clock_ms = 0
        self._observed_ms = 0.0
        self._tick = 0
        self._watermarks: dict[str, list[int]] = {}  # source -> [first offset, next offset, part, parts]
        self._other_version: str | None = None  # of the snapshots restored, while EngineChanged is awaited

    @property
    def tick(self) -> int:
        """The number of the tick that the journal's time is in."""
        return self._tick

    @property
    def awaits_engine_change(self) -> bool:
        """Restored from another engine version, and its change not folded yet: nothing is published."""
        return self._other_version is not None

    @property
    @abstractmethod
    def knows_something(self) -> bool:
        """Whether records that are gone for ever are a loss."""

    @abstractmethod
    def gap(self, next_offset: int, sequences: Mapping[str, int]) -> None:
        """Records below `next_offset` are gone from the broker for ever; `sequences`: the highest published."""

    @abstractmethod
    def snapshots(self) -> list[Snapshot]:
        """One round, to be published in this order. The next rollback starts from here."""

    @abstractmethod
    def _load(self, snapshots: list[Snapshot]) -> None:
        """Begin again from these."""

    @abstractmethod
    def _fold(self, record: JournalRecord) -> list[Output]:
        """Take the record in; what it makes us publish."""

    @abstractmethod
    def _crossed(self, edge_ms: int, record: JournalRecord) -> list[Output]:
        """A tick's edge was crossed by that record: what has to be published."""

    # -- folding ----------------------------------------------------------------------------------------------------

    def apply(self, record: JournalRecord) -> list[Output]:
        """Fold the next record; what it makes us publish, in order. Never raises because of a record."""
        if self.next_offset is not None and record.offset < self.next_offset:
            return []
        letters: list[Output] = []
        while True:
            try:
                outputs = self._apply(record)
            except EngineFailedError as failure:
                letters.append(self._fold_error(record, failure))
                self._again(record, failure)
                continue
            self._round.append(record)
            self.dead_letters += len(letters)
            if letters:
                self.snapshots()  # another failure soon after need not fold all this again
            return letters + outputs

    def _again(self, record: JournalRecord, failure: EngineFailedError) -> None:
        self._poison.add((record.offset, failure.primary, failure.passing))
        self._load(self._base)
        for before in self._round:
            self._apply(before)

    def _apply(self, record: JournalRecord) -> list[Output]:
        self.next_offset = record.offset + 1
        outputs = self._pass_time(record)
        if (record.offset, None, False) in self._poison:
            return outputs
        try:
            return outputs + self._fold(record)
        except EngineFailedError:
            raise
        except Exception as error:
            raise EngineFailedError(None, error) from error

    def _pass_time(self, record: JournalRecord) -> list[Output]:
        if record.appended_at_ms > self.clock_ms:
            passed = record.appended_at_ms - self.clock_ms if self.clock_ms else 0
            self._observed_ms += min(passed, 2 * self._tick_ms)
            self.clock_ms = record.appended_at_ms
        tick = (self.clock_ms - self._phase_ms) // self._tick_ms
        if tick <= self._tick:
            return []
        first, self._tick = self._tick == 0, tick
        edge_ms = tick * self._tick_ms + self._phase_ms
        return [] if first else self._crossed(edge_ms, record)

    def _seen(self, source: Source) -> bool:
        """Whether it was folded before; parts of a flush count only in order, so that none is skipped unnoticed."""
        key = f"{source.topic_id} {source.partition}"
        first, next_offset, part, _ = self._watermarks.get(key, [-1, -1, -1, 0])
        starts = source.part == 0 and source.first_offset >= next_offset
        follows = source.first_offset == first and source.part == part + 1
        if starts or follows:
            self._watermarks[key] = [source.first_offset, source.next_offset, source.part, source.parts]
            return False
        return True

    # -- dead letters -----------------------------------------------------------------------------------------------

    def _dead_letter(self, record: JournalRecord, reason: str, detail: str) -> Output:
        value = letter(self._topic, record, reason, detail, self.stage)
        return Output("dead-letters", self._topic.encode(), value)

    def _fold_error(self, record: JournalRecord, failure: EngineFailedError) -> Output:
        cause = failure.cause
        who = f"the engine of {failure.primary}" if failure.primary is not None else "the fold"
        # Which index was met first depends on how many records were folded at a time, and the bytes may not.
        said = "" if isinstance(cause, IndexError) else f": {cause}"
        return self._dead_letter(record, Reason.FOLD_ERROR, f"{who} raised {type(cause).__name__}{said}")

    # -- snapshots --------------------------------------------------------------------------------------------------

    def restore(self, snapshots: Iterable[Snapshot]) -> None:
        """Begin from the snapshots of a partition, in any order: the one that covers most wins, key by key."""
        best: dict[str, Snapshot] = {}
        for snapshot in snapshots:
            if snapshot.journal_topic_id == self._topic_id and snapshot.journal_partition == self.partition:
                known = best.get(snapshot.key)
                if known is None or snapshot.next_offset >= known.next_offset:
                    best[snapshot.key] = snapshot
        self._base = list(best.values())
        self._load(self._base)

    def _snapshot(
        self, key: str, offset: int, scalars: dict[str, Any], arrays: dict[str, Any], *, muted: bool
    ) -> Snapshot:
        return Snapshot(
            key=key,
            engine_version=(muted and self._other_version) or self.version,
            journal_topic_id=self._topic_id,
            journal_partition=self.partition,
            next_offset=offset,
            scalars=to_scalars(scalars),
            columns=to_columns(arrays),
        )
