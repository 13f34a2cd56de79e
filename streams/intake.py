"""Stage 1: validate, condense probe samples into panes, re-key by primary into the journal (`observations`).

    probe-samples       held in memory, and flushed just before the first record whose append time lies in a later tick
                        than the flush's first record (or when the flush is full): condensed, sent, confirmed, committed
    everything else     validated and forwarded at once, in offset order; what is configured also to `graph-updates`

A flush's bounds follow from the records alone (append times, offsets, and the rule that the commit's metadata names),
so a restart from any committed offset, or a zombie beside its successor, makes the same flushes again, and the fold
drops them by their identity. A new rule (another tick length) begins at the next boundary.

Uses neither regions nor configurations: an unknown region is judged in the fold, where the answer is reproducible.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import Histogram

from schemas.codec import decode, encode, read
from schemas.config import Intake as IntakeConfig
from schemas.observed import seconds
from schemas.records import (
    AgentHealth,
    BandwidthMeasurement,
    Observation,
    OperatorDirective,
    ProbeBatch,
    RegionCatalog,
    Source,
    Tick,
)
from schemas.topics import JOURNAL_BYTES_MAX, PARTITIONS, TOPICS, partition_of
from streams.broker import Broker, Place, Standing
from streams.core.panes import Flush, Rejected
from streams.core.rows import pieces
from streams.journal import JournalRecord
from streams.letters import letter
from streams.refusal import check_size, too_many_paths, unreadable, wrong

log = logging.getLogger("proxima")

SAMPLES: Final = "probe-samples"
JOURNAL: Final = "observations"
OVERVIEW: Final = "graph-updates"  # the journal of the stage that looks at the whole network
_FORWARDED: Final = (
    "bgp-events", "readiness-reports", "injected-metrics", "network-verdicts", "failover-config", "action-results"
)  # fmt: skip
_ALSO_TO_OVERVIEW: Final = ("failover-config",)
_TO_OVERVIEW_ALONE: Final = ("action-results",)
_EDGE_MS: Final = 20  # after a tick's edge, so that records on their way flush it themselves
_UNSETTLED_MAX: Final = 500  # forwarded records sent and not confirmed yet
_PIECE_BYTES: Final = JOURNAL_BYTES_MAX // 2  # of a flush's panes in one journal record; another value is another Rule
_SILENT_MS: Final = 3000  # a partition that brought nothing for so long is looked into ...
_MISSED_MAX: Final = 500  # ... for so many records at a time
_READ_BYTES: Final = 64 << 20
_SETTLING_MAX: Final = 8  # flushes of a partition that are sent and not committed yet


@dataclass(frozen=True, slots=True)
class Rule:
    """What decides where a flush ends; it travels in the commit's metadata."""

    tick_ms: int
    samples_max: int

    def __str__(self) -> str:
        return f"1 {self.tick_ms} {self.samples_max}"

    @classmethod
    def parse(cls, text: str, otherwise: Rule) -> Rule:
        """The rule of a commit; `otherwise` when it names none."""
        version, _, rest = text.partition(" ")
        numbers = rest.split()
        return cls(int(numbers[0]), int(numbers[1])) if version == "1" and len(numbers) == 2 else otherwise


@dataclass(slots=True)
class _Partition:
    """One source partition as it is being read."""

    rule: Rule
    next_offset: int
    generation: int
    touched_at_ms: int = 0  # wall clock at which a record last came
    ticked_at: int = -1  # wall-clock tick for which a Tick was appended
    # probe-samples: the flush under way
    flush: Flush | None = None
    first_offset: int = 0
    first_tick: int = 0
    appended_at_ms: int = 0  # of the last record in the flush
    newest_at_ms: int = 0  # of the last record that was taken in
    aside: list[tuple[Any, bytes]] = field(default_factory=list)  # records to forward with the flush
    originals: dict[int, JournalRecord] = field(default_factory=dict)
    letters: list[bytes] = field(default_factory=list)
    settling: list[asyncio.Task[None]] = field(
        default_factory=list
    )  # the last flushes, confirmed and committed in order
    # forwarded topics: sent and not confirmed yet
    unsettled: list[Awaitable[object]] = field(default_factory=list)


class Intake:
    """The stage's state: one entry a source partition."""

    topics: Sequence[str] = (SAMPLES, *_FORWARDED)
    ticked: str = SAMPLES

    def __init__(self, broker: Broker, config: IntakeConfig, worker: str) -> None:
        self._broker, self._config = broker, config
        self._tick = encode(Tick(worker))
        self._rule = Rule(config.tick_ms, config.flush_samples_max)
        self._partitions: dict[Place, _Partition] = {}
        self._now_ms = 0  # wall clock, as `idle` was last told
        self._condensed = seconds("proxima_intake_condense_seconds", "Time that a flush took to condense.")
        self._flushed = seconds("proxima_intake_flush_seconds", "Time from a flush's end until it was committed.")
        self.timings: Sequence[Histogram] = (self._condensed, self._flushed)
        self.lost_records = 0

    def standings(self) -> Sequence[Standing]:
        return [Standing(place, p.next_offset, p.newest_at_ms) for place, p in list(self._partitions.items())]

    # -- records ----------------------------------------------------------------------------------------------------

    async def take(self, topic: str, record: JournalRecord) -> None:
        """Gather, decide whether a flush ends, take in."""
        place = Place(topic, record.partition)
        p = self._partitions.get(place)
        if p is None or p.generation != self._broker.generation():  # opened while a rebalance was under way
            p = await self._open(place)
        p.touched_at_ms = self._now_ms
        if record.offset < p.next_offset:
            return
        if record.offset > p.next_offset:  # Faust skipped some, or the broker no longer has them
            earliest = await self._broker.earliest(place)
            self.lost_records += max(0, min(earliest, record.offset) - p.next_offset)
            await self._read(place, p, record.offset)
        await self._one(place, p, record)

    async def _read(self, place: Place, p: _Partition, end: int) -> None:
        """Take in what the partition has from its next offset up to `end`, in pieces: each may be large."""
        while p.next_offset < end:
            found = await self._broker.read(place, p.next_offset, end, bytes_max=_READ_BYTES)
            if not found:
                return
            for record in found:
                await self._one(place, p, record)

    async def _one(self, place: Place, p: _Partition, record: JournalRecord) -> None:
        p.newest_at_ms = max(p.newest_at_ms, record.appended_at_ms)
        if place.topic != SAMPLES:
            await self._forward(place, p, record)
            return
        tick = record.appended_at_ms // p.rule.tick_ms
        if p.flush is not None and (tick > p.first_tick or p.flush.samples >= p.rule.samples_max):
            await self._flush(place, p)
        if p.flush is None:
            p.flush = Flush(
                pane_ms=p.rule.tick_ms,
                ahead_ms_max=self._config.ahead_ms_max,
                lateness_ms_max=self._config.lateness_ms_max,
            )
            p.first_offset, p.first_tick = record.offset, tick
        self._add(p, p.flush, record)
        p.next_offset, p.appended_at_ms = record.offset + 1, record.appended_at_ms

    async def _open(self, place: Place) -> _Partition:
        generation = self._broker.generation()
        committed = await self._broker.committed(place)
        if committed is None:
            # The rule of the very first flush has to outlive us as any other's.
            committed = (await self._broker.earliest(place), str(self._rule))
            await self._broker.commit(place, *committed)
        offset, metadata = committed
        rule = Rule.parse(metadata, self._rule)
        p = _Partition(rule, max(offset, await self._broker.earliest(place)), generation)
        self._partitions[place] = p
        return p

    # -- probe-samples ----------------------------------------------------------------------------------------------

    def _add(self, p: _Partition, flush: Flush, record: JournalRecord) -> None:
        p.originals[record.offset] = record
        try:
            check_size(record)
            content = decode(record.value, ProbeBatch, BandwidthMeasurement, AgentHealth, Tick)
            if isinstance(content, ProbeBatch):
                found = too_many_paths(content, record) or flush.add(content, record.offset, record.appended_at_ms)
            else:
                found = wrong(content, record, self._config.ahead_ms_max)
        except Exception as error:  # no record may stop a partition
            found = unreadable(record, error)
        if found is not None:
            self._reject(p, found)
        elif not isinstance(content, ProbeBatch):
            del p.originals[record.offset]
            if not isinstance(content, Tick):
                p.aside.append((content, record.value))

    def _reject(self, p: _Partition, rejected: Rejected) -> None:
        original = p.originals.pop(rejected.offset)
        p.letters.append(letter(SAMPLES, original, rejected.reason, rejected.detail, "intake"))

    async def _flush(self, place: Place, p: _Partition) -> None:
        """Condense and send; when it is confirmed, commit: at a boundary, with the next flush's rule."""
        assert p.flush is not None  # noqa: S101 - the callers' condition, told to the type checker
        began_s = time.monotonic()
        with self._condensed.time():
            panes, rejected = p.flush.condense()
        for r in rejected:
            self._reject(p, r)
        sent = [
            await self._broker.send(JOURNAL, key, value, partition)
            for key, value, partition in self._parts(place, p, panes)
        ]
        sent += [await self._broker.send("dead-letters", SAMPLES.encode(), value) for value in p.letters]
        p.flush, p.aside, p.letters, p.originals = None, [], [], {}
        # Reading goes on while the broker confirms; commits keep their order, and a send that fails ends the process
        # before anything behind it leaves (see streams.broker).
        task = asyncio.create_task(self._settle_flush(place, p, sent, p.next_offset, p.settling[-1:], began_s=began_s))
        p.settling.append(task)
        p.rule = self._rule
        if len(p.settling) > _SETTLING_MAX:
            await p.settling.pop(0)

    async def _settle_flush(
        self,
        place: Place,
        p: _Partition,
        sent: list[Awaitable[object]],
        offset: int,
        before: list[asyncio.Task[None]],
        *,
        began_s: float,
    ) -> None:
        await asyncio.gather(*before)
        await self._settle(place, p, sent, offset, str(self._rule))
        self._flushed.observe(time.monotonic() - began_s)

    def _parts(self, place: Place, p: _Partition, panes: dict[str, Any]) -> list[tuple[bytes, bytes, int]]:
        """(key, value, journal partition) of everything in the flush; parts are numbered within a journal partition."""
        bodies = [(content.primary_region, value) for content, value in p.aside]
        bodies += [(primary, encode(piece)) for primary, body in panes.items() for piece in pieces(body, _PIECE_BYTES)]
        by_partition: dict[int, list[tuple[str, bytes]]] = {}
        for primary, body in bodies:
            by_partition.setdefault(partition_of(primary.encode(), PARTITIONS), []).append((primary, body))
        found = []
        for partition, parts in by_partition.items():
            for part, (primary, body) in enumerate(parts):
                source = Source(
                    topic=place.topic,
                    topic_id=self._broker.topic_id(place.topic),
                    partition=place.partition,
                    first_offset=p.first_offset,
                    next_offset=p.next_offset,
                    appended_at_ms=p.appended_at_ms,
                    part=part,
                    parts=len(parts),
                )
                found.append((primary.encode(), encode(Observation(primary, source, body)), partition))
        return found

    # -- everything else --------------------------------------------------------------------------------------------

    async def _forward(self, place: Place, p: _Partition, record: JournalRecord) -> None:
        p.next_offset = record.offset + 1
        try:
            check_size(record)
            content = read(record.value, *TOPICS[place.topic].records)
            found = wrong(content, record, self._config.ahead_ms_max)
            body = b"" if found is not None else encode(content)
        except Exception as error:  # no record may stop a partition
            found = unreadable(record, error)
        if found is not None:
            await self._dead_letter(place, p, record, found)
            return
        source = Source(
            topic=place.topic,
            topic_id=self._broker.topic_id(place.topic),
            partition=place.partition,
            first_offset=record.offset,
            next_offset=p.next_offset,
            appended_at_ms=record.appended_at_ms,
        )
        if place.topic in _TO_OVERVIEW_ALONE:
            key = content.primary_region.encode()
            observation = encode(Observation(content.primary_region, source, body))
            p.unsettled.append(await self._broker.send(OVERVIEW, key, observation, 0))
        elif isinstance(content, RegionCatalog | OperatorDirective):  # for every primary
            key = b"regions" if isinstance(content, RegionCatalog) else f"directive/{content.directive_id}".encode()
            observation = encode(Observation(None, source, body))
            for partition in range(self._broker.partitions(JOURNAL)):
                p.unsettled.append(await self._broker.send(JOURNAL, key, observation, partition))
        else:
            key = content.primary_region.encode()
            observation = encode(Observation(content.primary_region, source, body))
            p.unsettled.append(await self._broker.send(JOURNAL, key, observation, partition_of(key, PARTITIONS)))
        if place.topic in _ALSO_TO_OVERVIEW:
            p.unsettled.append(await self._broker.send(OVERVIEW, key, observation, 0))
        if len(p.unsettled) >= _UNSETTLED_MAX:
            await self._settle_forwarded(place, p)

    async def _dead_letter(self, place: Place, p: _Partition, record: JournalRecord, why: Rejected) -> None:
        value = letter(place.topic, record, why.reason, why.detail, "intake")
        p.unsettled.append(await self._broker.send("dead-letters", place.topic.encode(), value))

    async def _settle(
        self, place: Place, p: _Partition, sent: list[Awaitable[object]], offset: int, metadata: str = ""
    ) -> None:
        """Have everything below `offset` confirmed, and only then commit."""
        await asyncio.gather(*sent)
        if p.generation == self._broker.generation():
            await self._broker.commit(place, offset, metadata)

    async def _settle_forwarded(self, place: Place, p: _Partition) -> None:
        sent, p.unsettled = p.unsettled, []
        await self._settle(place, p, sent, p.next_offset)

    # -- time -------------------------------------------------------------------------------------------------------

    async def idle(self, now_ms: int, owned: Sequence[Place]) -> None:
        """Settle forwarded records, look after silent partitions, append a Tick where a flush waits for its end."""
        self._now_ms = now_ms
        for place in owned:
            await self._look_after(place)
        for place, p in list(self._partitions.items()):
            if p.unsettled:
                await self._settle_forwarded(place, p)
        tick = now_ms // self._config.tick_ms
        if now_ms - tick * self._config.tick_ms < _EDGE_MS:
            return
        for place in owned:
            known = self._partitions.get(place)
            if place.topic != SAMPLES or known is None or known.ticked_at == tick:
                continue
            if (
                known.flush is not None
                and known.first_tick < tick
                and known.appended_at_ms // self._config.tick_ms < tick
            ):
                known.ticked_at = tick
                await self._broker.send(SAMPLES, None, self._tick, place.partition)

    async def _look_after(self, place: Place) -> None:
        """Read directly what a silent partition has: Faust drops what a rebalance finds fetched, and may never bring it
        again; only a later record would show that something is missing, and a configuration may be the last for days.
        """
        p = self._partitions.get(place)
        if p is None or p.generation != self._broker.generation():
            p = await self._open(place)
            p.touched_at_ms = self._now_ms
        elif self._now_ms - p.touched_at_ms >= _SILENT_MS:
            p.touched_at_ms = self._now_ms
            await self._read(place, p, p.next_offset + _MISSED_MAX)

    async def stop(self) -> None:
        """What is forwarded gets confirmed; a flush under way is made again by whoever comes next."""
        for place, p in list(self._partitions.items()):
            if p.unsettled:
                await self._settle_forwarded(place, p)
            await asyncio.gather(*p.settling)

    def revoke(self) -> None:
        self._partitions.clear()
