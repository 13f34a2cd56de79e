"""What a stage needs of Kafka. `app.py` gives it with Faust and aiokafka; a stage knows neither.

Confirmed means that all in-sync replicas have it (acks=all, idempotent producer). A send that fails ends the process:
nothing may be sent after a record that was lost, and the next process begins again at the committed offset.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Histogram

from streams.journal import JournalRecord


@dataclass(frozen=True, slots=True)
class Place:
    """A partition of a topic, by the topic's name in the table (without prefix)."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a stage is with a partition that is ours.

    `appended_at_ms`: when the broker appended the newest record that was taken in; 0: none was. `clock_ms`: the
    journal's time, of a partition that is folded. `snapshot_at_s`: Unix time of its last confirmed snapshot round.
    """

    place: Place
    next_offset: int
    appended_at_ms: int
    clock_ms: int = 0
    snapshot_at_s: float = 0.0


class Broker(Protocol):
    """Kafka as one stage sees it."""

    def topic_id(self, topic: str) -> str:
        """Kafka's id of a topic: another one when it was deleted and made anew."""
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        ...

    async def send(
        self, topic: str, key: bytes | None, value: bytes, partition: int | None = None
    ) -> Awaitable[object]:
        """Hand a record over; await what comes back to have it confirmed. Order within a partition is kept."""
        ...

    async def commit(self, place: Place, offset: int, metadata: str = "") -> bool:
        """Commit exactly `offset` (next to read); False: the partition is no longer ours."""
        ...

    async def committed(self, place: Place) -> tuple[int, str] | None:
        """What is committed, and its metadata; None: nothing yet."""
        ...

    async def read(
        self, place: Place, first: int | None = None, end: int | None = None, *, bytes_max: int | None = None
    ) -> Sequence[JournalRecord]:
        """Records from `first` (None: the earliest kept) up to and without `end` (None: the end now), directly.

        With `bytes_max` it ends earlier, when their values have more bytes than that; one comes if there is one.
        """
        ...

    async def earliest(self, place: Place) -> int:
        """First offset that the broker still has."""
        ...

    def generation(self) -> int:
        """Changes with every rebalance: a partition seen under another number may not be ours any more."""
        ...


class Stage(Protocol):
    """One stage: takes records of its topics in offset order, one at a time."""

    topics: Sequence[str]  # that it reads
    ticked: str  # the one of them that its metronome keeps going
    timings: Sequence[Histogram]  # how long its steps take
    lost_records: int  # that were gone from the broker when they were wanted

    async def take(self, topic: str, record: JournalRecord) -> None:
        """Take one record in."""
        ...

    async def idle(self, now_ms: int, owned: Sequence[Place]) -> None:
        """Called many times a second by wall clock: settle what waits, append Ticks where time would stand still."""
        ...

    async def stop(self) -> None:
        """The process ends in peace: finish what has begun."""
        ...

    def standings(self) -> Sequence[Standing]:
        """How far it is; may be asked from another thread."""
        ...

    def revoke(self) -> None:
        """Partitions were taken away: drop all state, it is read again for those that come back."""
        ...
