"""Stage 2: the journal folded into rankings (`stage.py` says how that survives a crash).

a model is new       it learns from the history beside all that, and what it learnt goes into the journal
"""

from __future__ import annotations

import asyncio
from typing import Final

from schemas.codec import decode, encode
from schemas.config import Decide as DecideConfig
from schemas.errors import CodecError
from schemas.records import FailoverRanking
from streams.broker import Broker, Place
from streams.core.engine import FailoverEngine
from streams.fold import JournalFold
from streams.stage import FoldStage, Partition
from streams.warmup import Warmup

JOURNAL: Final = "observations"
_HISTORY_RECORDS: Final = 5000  # read at once for a new model


class Decide(FoldStage[JournalFold]):
    """One engine a primary region."""

    name = "decide"

    def __init__(
        self, broker: Broker, config: DecideConfig, worker: str, engine: type[FailoverEngine] = FailoverEngine
    ) -> None:
        super().__init__(broker, config, worker, JOURNAL)
        self._config, self._engine = config, engine

    def _fold_of(self, partition: int) -> JournalFold:
        return JournalFold(
            topic=JOURNAL,
            topic_id=self._broker.topic_id(JOURNAL),
            partition=partition,
            tick_ms=self._config.tick_ms,
            phase_ms=self._config.phase_ms,
            engine=self._engine,
        )

    def _opened(self, place: Place, p: Partition[JournalFold]) -> None:
        if self._config.warm_up_ms and any(engine.is_cold for engine in p.fold.engines.values()):
            p.warming = asyncio.create_task(self._warm_up(place, p))

    async def _warm_up(self, place: Place, p: Partition[JournalFold]) -> None:
        """Let new models learn from the history, beside the fold; what they learnt goes into the journal."""
        end, since_ms = p.next_offset, p.fold.clock_ms - self._config.warm_up_ms
        warmup = Warmup(p.fold)
        first = await self._offset_at(place, since_ms, end)
        for begin in range(first, end, _HISTORY_RECORDS):
            records = await self._broker.read(place, begin, min(begin + _HISTORY_RECORDS, end))
            await asyncio.to_thread(warmup.take, records)
            if p.generation != self._broker.generation():  # whoever has it now begins anew
                return
        for model in warmup.models():
            key = model.primary_region.encode()
            await (await self._broker.send(JOURNAL, key, encode(model), place.partition))

    async def _offset_at(self, place: Place, at_ms: int, end: int) -> int:
        """The first offset appended at that time or later; append times only grow."""
        low, high = min(await self._broker.earliest(place), end), end
        while low < high:
            middle = (low + high) // 2
            found = await self._broker.read(place, middle, middle + 1)
            if found and found[0].appended_at_ms < at_ms:
                low = middle + 1
            else:
                high = middle
        return low

    async def _sequences(self, place: Place) -> dict[str, int]:
        """Highest sequence published of each primary of a partition."""
        highest: dict[str, int] = {}
        for record in await self._broker.read(Place("failover-rankings", place.partition)):
            try:
                ranking = decode(record.value, FailoverRanking)
            except CodecError:
                continue
            highest[ranking.primary_region] = max(ranking.sequence, highest.get(ranking.primary_region, 0))
        return highest
