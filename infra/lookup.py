"""One primary's ranking at a moment, its path weights and its scorecard then, without reading whole topics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, TypeVar

from infra.history import records
from infra.kafka.reader import offsets_at
from infra.remedy_words import latest
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.records import FailoverRanking, NetworkVerdict, PathWeights, PredictionScorecard, RemedyReport
from schemas.topics import named, partition_of

# So far back from the moment it is looked, one after the other; None: everything that is kept.
_WINDOWS_MS: Final = (120_000, 7_200_000, 2 * 86_400_000, None)
# A ranking is appended after it was decided, later still by a worker that catches up.
_WRITTEN_LATER_MS: Final = 300_000
_SCORED_WITHIN_MS: Final = 600_000
_END_MS: Final = 1 << 60
R = TypeVar("R", FailoverRanking, PathWeights, PredictionScorecard, NetworkVerdict, RemedyReport)


class Lookup:
    """Looks up what was published about one primary. Every call raises KafkaUnavailableError."""

    def __init__(self, bootstrap: str, prefix: str, primary: str) -> None:
        self._bootstrap, self._prefix, self._key = bootstrap, prefix, primary.encode()

    def ranking(self, at_ms: int | None = None) -> FailoverRanking | None:
        """The one with the highest sequence, or of those decided at or before a moment; None when none is kept."""
        best: FailoverRanking | None = None
        for window_ms in _WINDOWS_MS:
            for found in self._records(FailoverRanking, "failover-rankings", at_ms, window_ms):
                if (at_ms is None or found.decided_at_ms <= at_ms) and (best is None or found.sequence > best.sequence):
                    best = found
            if best is not None:
                break
        return best

    def weights(self, at_ms: int) -> PathWeights | None:
        """What was known of the paths at a moment, or shortly before; None when it is kept no more."""
        best: PathWeights | None = None
        for found in self._records(PathWeights, "path-weights", at_ms, _WINDOWS_MS[0]):
            if found.decided_at_ms <= at_ms and (best is None or found.decided_at_ms >= best.decided_at_ms):
                best = found
        return best

    def scorecard(self, at_ms: int) -> PredictionScorecard | None:
        """The record of its model at a moment, or shortly before; None when it is kept no more."""
        best: PredictionScorecard | None = None
        for found in self._records(PredictionScorecard, "prediction-scorecards", at_ms, _SCORED_WITHIN_MS):
            if found.scored_at_ms <= at_ms and (best is None or found.scored_at_ms >= best.scored_at_ms):
                best = found
        return best

    def verdict(self, at_ms: int) -> NetworkVerdict | None:
        """What the whole network said about it at a moment; None when nothing was, or it was stale."""
        best: NetworkVerdict | None = None
        for found in self._records(NetworkVerdict, "network-verdicts", at_ms, _WINDOWS_MS[0]):
            if found.decided_at_ms <= at_ms and (best is None or found.sequence > best.sequence):
                best = found
        return best if best is not None and at_ms < best.decided_at_ms + best.stale_after_ms else None

    def remedies(self, at_ms: int) -> list[RemedyReport]:
        """What was last said of each remedy at a moment, of what was said within two days before."""
        said = self._records(RemedyReport, "path-actions", at_ms, _WINDOWS_MS[2])
        return latest(report for report in said if report.at_ms <= at_ms)

    def _records(self, cls: type[R], topic: str, at_ms: int | None, window_ms: int | None) -> Iterator[R]:
        """Appended within a window before a moment (None: now), or shortly after it."""
        name = named(self._prefix, topic)
        until_ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
        first = offsets_at(self._bootstrap, name, 0 if window_ms is None else until_ms - window_ms)
        place = partition_of(self._key, len(first))
        ends = offsets_at(self._bootstrap, name, _END_MS if at_ms is None else at_ms + _WRITTEN_LATER_MS, [place])
        for record in records(self._bootstrap, name, {place: first[place]}, ends):
            if record.key != self._key:
                continue
            try:
                yield decode(record.value, cls)
            except CodecError:
                continue  # a sink has made a dead letter of it
