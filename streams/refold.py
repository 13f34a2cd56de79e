"""A partition folded again, many records at a time: what comes out is what `JournalFold` gives for one after the other.

    records ──► ticks and panes are noted, engine by engine ──► FailoverEngine.run, when the engine is asked for
                anything else is folded at once                   anything else, or so many ticks are noted

An engine is told nothing before what is noted for it has been run, so it sees everything in the order of the journal;
engines have nothing to do with each other. Should anything be raised, the partition goes back to its last snapshot
round, and the same records are folded one by one: which of them it was that failed is the same then as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.records import EngineChanged, Observation, PathPanes
from streams.core.engine import FailoverEngine
from streams.core.stretch import Arrival, Edge, Step
from streams.fold import JournalFold
from streams.folding import Output
from streams.journal import JournalRecord

_TICKS_MAX: Final = 128  # of an engine noted: more gains nothing, and costs memory
_PATHS_MAX: Final = 4096  # their product with its candidates


@dataclass(slots=True)
class _Noted:
    """Of one engine: what it has not seen yet, and at which record of the list each tick was."""

    ticks_max: int
    steps: list[Step] = field(default_factory=list)
    records: list[int] = field(default_factory=list)


class Refold(JournalFold):
    """`apply_all` takes a list of records, as the next ones of the partition; `apply` is as it was."""

    def _forget(self) -> None:
        super()._forget()
        self._noted: dict[str, _Noted] | None = None  # by primary; None: nothing is put off
        self._ticked: list[dict[str, list[Output]]] = []  # a record of the list each: outputs by primary

    def apply_all(self, records: Sequence[JournalRecord]) -> list[list[Output]]:
        """Fold the next records; what each of them makes us publish, in order. Never raises because of a record."""
        next_offset = self.next_offset or 0
        try:
            made = self._ahead(records)
        except Exception:  # whatever it is: the ordinary path finds out whose it is, or does not meet it
            self._load(self._base)
            for before in self._round:
                self._apply(before)
            return [self.apply(record) for record in records]
        for record in records:
            if record.offset >= next_offset:  # else it was a repeat, and not folded
                self._round.append(record)
                next_offset = record.offset + 1
        return made

    def _ahead(self, records: Sequence[JournalRecord]) -> list[list[Output]]:
        self._noted, self._ticked = {}, []
        made: list[list[Output]] = []
        for record in records:
            self._ticked.append({})
            made.append([] if record.offset < (self.next_offset or 0) else self._apply(record))
        for primary in list(self._noted):
            self._run(primary)
        ticked, self._noted, self._ticked = self._ticked, None, []
        return [
            [out for primary in sorted(ticks) for out in ticks[primary]] + others if ticks else others
            for ticks, others in zip(ticked, made, strict=True)
        ]

    def _evaluate(self, primary: str, now_ms: int, record: JournalRecord, *, passing: bool = False) -> list[Output]:
        if self._noted is None or not passing or not self._engine.runs_ahead:
            return super()._evaluate(primary, now_ms, record, passing=passing)
        if self._takes(primary, record, passing=True):
            noted = self._of(self._noted, primary)
            noted.steps.append(Edge(now_ms, self._observed_ms))
            noted.records.append(len(self._ticked) - 1)
            if len(noted.records) >= noted.ticks_max:
                self._run(primary)
        return []

    def _panes(self, primary: str, panes: PathPanes, observation: Observation, record: JournalRecord) -> None:
        if self._noted is None or not self._engine.runs_ahead:
            super()._panes(primary, panes, observation, record)
        elif self._takes(primary, record):
            arrival = Arrival(panes, self.clock_ms, self._observed_ms, observation.source.appended_at_ms)
            self._of(self._noted, primary).steps.append(arrival)

    def _guarded(
        self, primary: str, record: JournalRecord, call: Callable[[FailoverEngine], Any], *, passing: bool = False
    ) -> Any:
        self._run(primary)
        return super()._guarded(primary, record, call, passing=passing)

    def _engine_changed(self, change: EngineChanged, record: JournalRecord) -> list[Output]:
        for primary in self.engines:
            self._run(primary)
        return super()._engine_changed(change, record)

    def _of(self, all_noted: dict[str, _Noted], primary: str) -> _Noted:
        noted = all_noted.get(primary)
        if noted is None:
            candidates = len(self.engines[primary].candidates)
            noted = all_noted[primary] = _Noted(max(min(_TICKS_MAX, _PATHS_MAX // max(candidates, 1)), 1))
        return noted

    def _run(self, primary: str) -> None:
        """Show an engine what is noted for it."""
        noted = self._noted.pop(primary, None) if self._noted else None
        if noted is None:
            return
        decided = self.engines[primary].run(noted.steps)
        for number, published in zip(noted.records, decided, strict=True):
            if published:
                self._ticked[number][primary] = self._encoded(primary, published)
