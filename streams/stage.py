"""A stage that folds a journal, crash-safe: what `decide` and `overview` have in common.

    partition assigned   its snapshots are read back, directly, before its first record
    a record             folded; what it makes us publish is sent at once
    every few seconds    a snapshot round: outputs confirmed, then the primaries' snapshots, then the partition's own,
                         then the offset committed
    once a day           the round's snapshots go to the checkpoints too, which are kept as long as the journal
    partition revoked    its state is dropped

After a kill the next owner folds again from the last round and publishes again what was published since: the same
bytes, the same `sequence`, which every subscriber drops. The order above is what makes it so.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from prometheus_client import Histogram

from schemas.codec import decode, encode
from schemas.errors import CodecError
from schemas.observed import seconds
from schemas.records import EngineChanged, Snapshot, Tick
from streams.broker import Broker, Place, Standing
from streams.folding import Fold
from streams.journal import JournalRecord

SNAPSHOTS: Final = "engine-snapshots"
CHECKPOINTS: Final = "engine-checkpoints"
_ROUND_RECORDS_MAX: Final = 2000  # between two rounds when catching up: a bound on memory and on folding again
AnyFold = TypeVar("AnyFold", bound=Fold)


class Clockwork(Protocol):
    """Of a stage's configuration, what concerns its clock and snapshots."""

    @property
    def tick_ms(self) -> int: ...
    @property
    def phase_ms(self) -> int: ...
    @property
    def snapshot_every_ms(self) -> int: ...
    @property
    def checkpoint_every_ms(self) -> int: ...


@dataclass(slots=True)
class Partition(Generic[AnyFold]):
    """A partition of the journal that is ours."""

    fold: AnyFold
    generation: int
    next_offset: int
    round_at_s: float
    snapshot_at_s: float  # Unix time of the last round that was confirmed; before the first, when it was opened
    appended_at_ms: int = 0
    ticked_at: int = -1
    records: int = 0
    checkpoint: int = 0  # which interval of journal time the last one was made in; 0: none by us
    sent: list[Awaitable[object]] = field(default_factory=list)
    warming: asyncio.Task[None] | None = None


class FoldStage(ABC, Generic[AnyFold]):
    """The stage's state: one fold a partition of its journal."""

    name: str

    def __init__(self, broker: Broker, clockwork: Clockwork, worker: str, journal: str) -> None:
        self.topics: Sequence[str] = (journal,)
        self.ticked = journal
        self._broker, self._clockwork, self._journal = broker, clockwork, journal
        self._tick = encode(Tick(worker))
        self._partitions: dict[Place, Partition[AnyFold]] = {}
        evaluated = seconds("proxima_stage_evaluate_seconds", "Time that a tick of the journal took.", "stage")
        rounds = seconds("proxima_stage_snapshot_seconds", "Time until a snapshot round was confirmed.", "stage")
        self.timings: Sequence[Histogram] = (evaluated, rounds)
        self._evaluated, self._rounds = evaluated.labels(self.name), rounds.labels(self.name)
        self.lost_records = 0

    def standings(self) -> Sequence[Standing]:
        return [
            Standing(place, p.next_offset, p.appended_at_ms, p.fold.clock_ms, p.snapshot_at_s)
            for place, p in list(self._partitions.items())
        ]

    @abstractmethod
    def _fold_of(self, partition: int) -> AnyFold:
        """A fold of a partition of the journal that has seen nothing yet."""

    async def _sequences(self, place: Place) -> dict[str, int]:  # noqa: ARG002 - for those that need it
        """The numbers reached so far, by primary, for a new engine version to go on above; none if they are times."""
        return {}

    def _opened(self, place: Place, p: Partition[AnyFold]) -> None:
        """A partition is ours, and its snapshots are read."""

    async def take(self, topic: str, record: JournalRecord) -> None:
        """Gather, fold, publish."""
        place = Place(topic, record.partition)
        p = self._partitions.get(place)
        if p is None or p.generation != self._broker.generation():  # opened while a rebalance was under way
            p = await self._open(place)
        if record.offset < p.next_offset:
            return
        if record.offset > p.next_offset:
            await self._catch_up(place, p, record.offset)
        await self._one(place, p, record)

    async def _one(self, place: Place, p: Partition[AnyFold], record: JournalRecord) -> None:
        began_s, tick = time.perf_counter(), p.fold.tick
        outputs = p.fold.apply(record)
        if p.fold.tick != tick:
            self._evaluated.observe(time.perf_counter() - began_s)
        p.next_offset, p.appended_at_ms = record.offset + 1, record.appended_at_ms
        p.records += 1
        p.sent += [await self._broker.send(out.topic, out.key, out.value) for out in outputs]
        due = time.monotonic() - p.round_at_s >= self._clockwork.snapshot_every_ms / 1000
        if due or p.records >= _ROUND_RECORDS_MAX:
            await self._round(place, p)

    async def _open(self, place: Place) -> Partition[AnyFold]:
        """Read the partition's snapshots back; nothing of it may be folded before."""
        generation = self._broker.generation()
        fold = self._fold_of(place.partition)
        snapshots = []
        for record in await self._broker.read(Place(SNAPSHOTS, place.partition)):
            try:
                snapshots.append(decode(record.value, Snapshot))
            except CodecError:  # not ours; only our stages may write here, so this is an operator's accident
                continue
        fold.restore(snapshots)
        if fold.awaits_engine_change:
            await self._announce_engine(place, fold)
        first = fold.next_offset if fold.next_offset is not None else 0
        p = Partition(fold, generation, first, time.monotonic(), time.time())
        self._partitions[place] = p
        self._opened(place, p)
        return p

    async def _catch_up(self, place: Place, p: Partition[AnyFold], end: int) -> None:
        """Records that Faust did not bring are read directly; those that the broker no longer has are a GAP."""
        earliest = await self._broker.earliest(place)
        lost = min(earliest, end) - p.next_offset
        if lost > 0:
            p.next_offset = min(earliest, end)
            self.lost_records += lost if p.fold.knows_something else 0
            if p.fold.knows_something:  # a journal that begins later than 0 has lost nothing that we knew
                p.fold.gap(p.next_offset, await self._sequences(place))
                await self._round(place, p)  # no journal tells of it: whoever comes next shall not find it again
        for missed in await self._broker.read(place, p.next_offset, end):
            await self._one(place, p, missed)

    async def _announce_engine(self, place: Place, fold: AnyFold) -> None:
        """The snapshots are another engine version's: the journal says so, with the numbers reached so far."""
        change = encode(EngineChanged(fold.version, await self._sequences(place)))
        await (await self._broker.send(self._journal, None, change, place.partition))

    async def _round(self, place: Place, p: Partition[AnyFold]) -> None:
        """Outputs, primaries, the partition's own, commit: each confirmed before the next begins."""
        snapshots = p.fold.snapshots()  # no await since the last record: state and offset belong together
        offset, sent, p.sent, p.records = p.next_offset, p.sent, [], 0
        checkpoint = p.fold.clock_ms // self._clockwork.checkpoint_every_ms
        p.round_at_s = time.monotonic()
        await asyncio.gather(*sent)
        if not await self._write(SNAPSHOTS, place, p, snapshots):
            return
        await self._broker.commit(place, offset)
        p.snapshot_at_s = time.time()
        self._rounds.observe(time.monotonic() - p.round_at_s)
        # Who takes over does not know of ours, and may write another in the same interval: one more to begin from.
        if checkpoint != p.checkpoint and await self._write(CHECKPOINTS, place, p, snapshots):
            p.checkpoint = checkpoint

    async def _write(self, topic: str, place: Place, p: Partition[AnyFold], snapshots: Sequence[Snapshot]) -> bool:
        """Primaries, then the partition's own; False: the partition is no longer ours, and not all is written."""
        for part in (snapshots[:-1], snapshots[-1:]):
            if p.generation != self._broker.generation():
                return False
            await asyncio.gather(
                *[await self._broker.send(topic, s.key.encode(), encode(s), place.partition) for s in part]
            )
        return p.generation == self._broker.generation()

    async def idle(self, now_ms: int, owned: Sequence[Place]) -> None:
        """Append a Tick to each partition whose clock has not reached this tick's edge."""
        tick = (now_ms - self._clockwork.phase_ms) // self._clockwork.tick_ms
        for place in owned:
            p = self._partitions.get(place)
            if p is None or p.generation != self._broker.generation():
                await self._open(place)  # one that brings nothing has to be opened too, so that its time goes on
                continue
            if p.ticked_at < tick and (p.appended_at_ms - self._clockwork.phase_ms) // self._clockwork.tick_ms < tick:
                p.ticked_at = tick
                await self._broker.send(self._journal, None, self._tick, place.partition)

    async def stop(self) -> None:
        """A last round, so that the next owner has nothing to fold again."""
        for place, p in list(self._partitions.items()):
            if p.generation == self._broker.generation():
                await self._round(place, p)

    def revoke(self) -> None:
        self._partitions.clear()
