"""A journal folded again: the same engine, the same bytes, from a file or from the topic.

One fold a partition, as the worker has; records of different partitions may come in any order between them. `pace`
says how long to wait before a record so that journal time passes at a chosen speed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from schemas.records import FailoverConfiguration, Policy, Snapshot
from streams.core.candidates import Catalogue
from streams.core.engine import FailoverEngine
from streams.folding import Output
from streams.journal import JournalRecord
from streams.refold import Refold


@dataclass(frozen=True, slots=True)
class Replayed:
    """One output, with the place and journal time of the record that brought it about."""

    partition: int
    offset: int
    appended_at_ms: int
    output: Output


class Replay:
    """Folds of all partitions of one journal; `topics`: those on which decisions are wanted, None: on all."""

    def __init__(
        self,
        *,
        topic: str = "observations",
        topic_id: str = "",
        tick_ms: int = 1000,
        phase_ms: int = 300,
        engine: type[FailoverEngine] = FailoverEngine,
        topics: Collection[str] | None = None,
    ) -> None:
        self._make = partial(
            Refold,
            topic=topic,
            topic_id=topic_id,
            tick_ms=tick_ms,
            phase_ms=phase_ms,
            engine=engine,
            topics=topics,
        )
        self.folds: dict[int, Refold] = {}
        self.records = 0

    def restore(self, snapshots: Iterable[Snapshot]) -> None:
        """Begin from a checkpoint of each partition that has one; the records behind them are to be applied then."""
        by_partition: dict[int, list[Snapshot]] = {}
        for snapshot in snapshots:
            by_partition.setdefault(snapshot.journal_partition, []).append(snapshot)
        for partition, each in by_partition.items():
            self._fold(partition).restore(each)

    def apply(self, record: JournalRecord) -> list[Output]:
        """Fold one record; partitions in any order, each partition's records in theirs."""
        fold = self._fold(record.partition)
        self.records += 1
        outputs = fold.apply(record)
        if self.records % _ROUND_RECORDS == 0:
            self._begin_round()
        return outputs

    def apply_all(self, records: Sequence[JournalRecord]) -> list[list[Output]]:
        """Fold many records, several times as fast as one by one; what each of them brings about."""
        numbers: dict[int, list[int]] = {}
        for number, record in enumerate(records):
            numbers.setdefault(record.partition, []).append(number)
        found: list[list[Output]] = [[] for _ in records]
        for partition, each in numbers.items():
            for number, outputs in zip(each, self._fold(partition).apply_all([records[n] for n in each]), strict=True):
                found[number] = outputs
        before, self.records = self.records, self.records + len(records)
        if self.records // _ROUND_RECORDS > before // _ROUND_RECORDS:
            self._begin_round()
        return found

    def _begin_round(self) -> None:
        """What a rollback would fold again stays bounded."""
        for fold in self.folds.values():
            fold.snapshots()

    def each(self, records: Iterable[JournalRecord]) -> Iterator[tuple[JournalRecord, list[Output]]]:
        """Each record with the outputs that it brings about, in order."""
        for record in records:
            yield record, self.apply(record)

    def run(self, records: Iterable[JournalRecord]) -> Iterator[Replayed]:
        """All outputs, in order."""
        for record in records:
            for output in self.apply(record):
                yield Replayed(record.partition, record.offset, record.appended_at_ms, output)

    def _fold(self, partition: int) -> Refold:
        if partition not in self.folds:
            self.folds[partition] = self._make(partition=partition)
        return self.folds[partition]


_ROUND_RECORDS = 20_000


def engine_under(policy: Policy) -> type[FailoverEngine]:
    """FailoverEngine with this policy in place of every configuration's own, those in snapshots too."""

    class UnderPolicy(FailoverEngine):
        def __init__(self, configuration: FailoverConfiguration, catalogue: Catalogue) -> None:
            super().__init__(replace(configuration, policy=policy), catalogue)

        def configure(self, configuration: FailoverConfiguration, catalogue: Catalogue) -> None:
            super().configure(replace(configuration, policy=policy), catalogue)

    return UnderPolicy


def without_weights(engine: type[FailoverEngine]) -> type[FailoverEngine]:
    """The same engine, which decides the same and does not publish every path at every tick."""

    class WithoutWeights(engine):  # type: ignore[misc, valid-type]
        says_weights = False

    return WithoutWeights


def pace_s(first_at_ms: int, appended_at_ms: int, speed: float, elapsed_s: float) -> float:
    """Seconds to wait so that journal time since the first record passes `speed` times as fast as `elapsed_s`."""
    return max(0.0, (appended_at_ms - first_at_ms) / 1000 / speed - elapsed_s)
