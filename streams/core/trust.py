"""Whom of those who inject is believed, and how far: bounds, rates, and a standing that contradiction costs.

    bound      one source has SOURCE_SHARE of the say about a path, all together INJECTED_SHARE: never half, however
               many there are. Names on a topic cost nothing, so all that have never agreed with what is measured count
               as one source: a thousand of them leave another as much of the say as one does
    rate       records of one source about one primary, in journal time; what is above it is counted and not used. All
               sources that have never agreed with what is measured have one such rate together, too: a thousand names
               cost no more time than two
    standing   of a source about a path, 0 to 1, times its bound. Every REVIEW_MS what it says is held against what is
               measured there. Plain contradiction leaves little more than a third of it after two minutes; agreement
               earns it back, more slowly

Standing is of a path: truths about ten paths buy no lie about the eleventh. Of the primary itself a source has one too:
what it says of its health is held against what observers in other regions see. A source that nothing measured can be
held against keeps what it has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from schemas.records import Event

SOURCE_SHARE: Final = 0.3
RECORDS_PER_MINUTE: Final = 600  # every metric of ten paths each six seconds
BURST: Final = 600
NEWCOMERS_PER_MINUTE: Final = 2 * RECORDS_PER_MINUTE  # of all together that have never agreed with what is measured
NEWCOMERS_BURST: Final = 2 * BURST
REVIEW_MS: Final = 10_000
_LOSE_MS: Final = 120_000.0
_EARN_MS: Final = 600_000.0
_AGREES: Final = 0.2  # of the way from good to bad may it be off, and is still in agreement; ...
_CONTRADICTS: Final = 0.6  # ... from here on it contradicts plainly
_DISTRUSTED: Final = 0.5
_SOURCES_MAX: Final = 64
_STANDINGS_MAX: Final = 2000


@dataclass(slots=True)
class _Source:
    """One name, or all newcomers: a bucket, what came of the records, and how often they agreed."""

    level: float
    filled_at_ms: int
    first_at_ms: int
    taken: int = 0
    over: int = 0
    over_before: int = 0  # at the last review
    is_over: bool = False
    agreed: int = 0  # reviews in which nothing that it said was contradicted

    def fill(self, now_ms: int, per_minute: int, burst: int) -> None:
        """What time has passed fills the bucket."""
        passed_ms = max(0, now_ms - self.filled_at_ms)
        self.level = min(burst, self.level + passed_ms * per_minute / 60_000)
        self.filled_at_ms = max(self.filled_at_ms, now_ms)


class Trust:
    """Of one primary: every source that was heard lately."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self._sources = {name: _Source(**fields) for name, fields in state.get("sources", {}).items()}
        self._newcomers = _Source(**state["newcomers"]) if state.get("newcomers") else None
        # By "target source", where no target is the primary itself; absent: 1.
        self._standing: dict[str, float] = dict(state.get("standing", {}))
        self._window: int = state.get("window", 0)

    def save(self) -> dict[str, Any]:
        """What a snapshot keeps."""
        sources = {name: asdict(source) for name, source in self._sources.items()}
        newcomers = asdict(self._newcomers) if self._newcomers is not None else None
        return {"sources": sources, "newcomers": newcomers, "standing": self._standing, "window": self._window}

    def admits(self, name: str, now_ms: int) -> bool:
        """Whether a record of this source may be used; counted either way."""
        source = self._sources.get(name)
        if source is not None:
            source.fill(now_ms, RECORDS_PER_MINUTE, BURST)
            if source.level < 1:
                source.over += 1
                return False
        if (source is None or not source.agreed) and not self._admits_newcomer(now_ms):
            if source is not None:
                source.over += 1
            return False
        if source is None:
            source = self._sources[name] = _Source(float(BURST), now_ms, now_ms)
            self._make_room(name)
        source.level -= 1
        source.taken += 1
        return True

    def _admits_newcomer(self, now_ms: int) -> bool:
        all_of_them = self._newcomers
        if all_of_them is None:
            all_of_them = self._newcomers = _Source(float(NEWCOMERS_BURST), now_ms, now_ms)
        all_of_them.fill(now_ms, NEWCOMERS_PER_MINUTE, NEWCOMERS_BURST)
        if all_of_them.level < 1:
            all_of_them.over += 1
            return False
        all_of_them.level -= 1
        all_of_them.taken += 1
        return True

    def share(self, name: str, target: str) -> float:
        """How much of the say about a path it has, beside whom others there may be."""
        return SOURCE_SHARE * self._standing.get(f"{target} {name}", 1.0)

    def believes(self, name: str, target: str) -> bool:
        """Whether its standing is enough where there is no half a say: what it says is taken, or it is not."""
        return self._standing.get(f"{target} {name}", 1.0) >= _DISTRUSTED

    def counts(self, name: str) -> tuple[int, int]:
        """Records of a source that were used, and that were above its rate."""
        source = self._sources.get(name)
        return (source.taken, source.over) if source is not None else (0, 0)

    def newcomers(self) -> tuple[int, int]:
        """Records of sources that had never agreed which were used, and that were above what they have together."""
        return (self._newcomers.taken, self._newcomers.over) if self._newcomers is not None else (0, 0)

    def agreed(self, name: str) -> int:
        """Reviews in which nothing that it said was contradicted; 0: nobody knows it."""
        source = self._sources.get(name)
        return source.agreed if source is not None else 0

    def is_due(self, now_ms: int) -> bool:
        """Whether it is time for a review."""
        return now_ms // REVIEW_MS > self._window

    def next_ms(self, now_ms: int) -> int:
        """The first moment after this one at which a review may be due."""
        return (now_ms // REVIEW_MS + 1) * REVIEW_MS

    def review(self, found: Mapping[tuple[str, str], float], now_ms: int) -> list[Event]:
        """Take in by how much sources contradict what is measured: (source, target) -> 0 to 1. Returns what to say."""
        self._window = now_ms // REVIEW_MS
        events, agreed = [], dict.fromkeys((name for name, _ in found), True)
        for (name, target), contradiction in sorted(found.items()):
            key = f"{target} {name}"
            before = self._standing.get(key, 1.0)
            goal = min(max((_CONTRADICTS - contradiction) / (_CONTRADICTS - _AGREES), 0.0), 1.0)
            pace_ms = _LOSE_MS if goal < before else _EARN_MS
            after = before + (goal - before) * -math.expm1(-REVIEW_MS / pace_ms)
            self._standing[key] = after
            agreed[name] &= goal == 1.0
            if after < _DISTRUSTED <= before:
                events.append(Event.SOURCE_DISTRUSTED)
        for name, well in agreed.items():
            if name in self._sources:
                self._sources[name].agreed += well
        self._keep_the_telling()
        for source in (*self._sources.values(), *([self._newcomers] if self._newcomers is not None else ())):
            is_over = source.over > source.over_before
            if is_over and not source.is_over:
                events.append(Event.SOURCE_OVER_RATE)
            source.is_over, source.over_before = is_over, source.over
        return list(dict.fromkeys(events))

    def note(self) -> str:
        """Who is above its rate now, in words for a ranking's reason; empty: nobody."""
        new = self._newcomers
        flooded = new is not None and new.is_over  # then the names do not matter
        telling = {name: s for name, s in self._sources.items() if s.is_over and (s.agreed or not flooded)}
        if new is not None and flooded:
            telling["new sources together"] = new
        over = [f"{name} ({s.over} of {s.over + s.taken} records)" for name, s in telling.items()]
        return f"; above their rate and not used: {', '.join(sorted(over)[:3])}" if over else ""

    def _make_room(self, newcomer: str) -> None:
        """A flood of names pushes out its own first, and none that has agreed with what is measured."""
        if len(self._sources) <= _SOURCES_MAX:
            return
        others = (name for name in self._sources if name != newcomer)
        self._forget(min(others, key=lambda n: (self._sources[n].agreed, self._sources[n].first_at_ms, n)))

    def _forget(self, name: str) -> None:
        del self._sources[name]
        for key in [key for key in self._standing if key.partition(" ")[2] == name]:
            del self._standing[key]

    def _keep_the_telling(self) -> None:
        """What is near 1 is as if it had never been; bounded, so that a snapshot is."""
        for key in [key for key, standing in self._standing.items() if standing > 1 - 1e-3]:
            del self._standing[key]
        if len(self._standing) > _STANDINGS_MAX:
            kept = sorted(self._standing, key=lambda k: (self._standing[k], k))[:_STANDINGS_MAX]
            self._standing = {key: self._standing[key] for key in kept}

    def knows(self) -> Iterable[str]:
        """Every source, as long as it is remembered."""
        return self._sources.keys()
