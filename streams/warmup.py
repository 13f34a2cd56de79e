"""A model that is new here learns from the journal's last days, in order, before it may count.

    live fold ── its configurations ──► a fold of its own ── the history, record by record ──► ModelWarmed
                                                                                                  │
    live fold ◄── adopts what was learnt ── the journal, like everything that decides ◄───────────┘

It is the fold that replays use, and what it has learnt is itself a record of the journal: whoever folds the journal
later finds the same model at the same place. The live fold decides on meanwhile, without the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.records import ModelWarmed
from streams.core.prediction import MODEL
from streams.core.state import to_columns, to_scalars
from streams.fold import JournalFold
from streams.journal import JournalRecord
from streams.refold import Refold
from streams.replay import without_weights


class Warmup:
    """The history of one partition, for those of its primaries whose model is new."""

    def __init__(self, live: JournalFold) -> None:
        """As the live fold is now; it may go on meanwhile."""
        self._cold = sorted(primary for primary, engine in live.engines.items() if engine.is_cold)
        self._fold: Refold = live.begun_anew(Refold, without_weights)
        self._since_ms = 0

    def take(self, records: Sequence[JournalRecord]) -> None:
        """The next records of the history."""
        if records and not self._since_ms:
            self._since_ms = records[0].appended_at_ms
        self._fold.apply_all(records)

    def models(self) -> list[ModelWarmed]:
        """What was learnt, one record a primary."""
        found = []
        for primary in self._cold:
            engine = self._fold.engines[primary]
            scalars, arrays = engine.save_model()
            found.append(
                ModelWarmed(
                    primary_region=primary,
                    model=MODEL,
                    since_ms=self._since_ms,
                    until_ms=self._fold.clock_ms,
                    targets=list(engine.candidates),
                    scalars=to_scalars(scalars),
                    columns=to_columns(arrays),
                )
            )
        return found
