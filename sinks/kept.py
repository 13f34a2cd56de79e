"""What the stores keep of a record, in the stores' common terms: rows, their buckets, and when they expire.

    path-weights       a row for each path and tick, in buckets of an hour
    failover-rankings  a row for each ranking, in buckets of a day; and the latest of each primary
    failover-config    a row for each version that came into force

A bucket bounds a partition: an hour of a primary with 100 paths is 360,000 rows of some 100 bytes, a day of rankings
10,000 of some kilobytes. Rankings and configurations are kept as the bytes of their record (Avro, single-object
encoding), in one piece: a reader never sees half of one and half of another; the columns beside are for people.

A configuration comes into force by compare-and-set, as the journal judges it: if it is based on the version in force.
Judged again after a crash, in the light of what came later, an early record could pass that had not; so what is in
force goes with the place of its record on the topic, and a record at or before that place is not judged again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

from schemas.errors import CodecError
from schemas.records import FailoverConfiguration, FailoverRanking, PathWeight, PathWeights, Reason
from schemas.validate import is_keyed, mistakes
from sinks.sink import Meta

TOPICS: Final = ("path-weights", "failover-rankings", "failover-config")
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
METRICS: Final = tuple(f.name for f in fields(PathWeight))
"""The columns of a path's row."""

# The year 9999: what is beyond is no time, and would need another width where times are sorted as text.
_AT_MS_MAX: Final = 253_402_300_799_999
_NAME_BYTES_MAX: Final = 512  # a region's id has 63 at most; DynamoDB's sort key takes 1,024
_DYNAMO_MAX: Final = 1e120  # both stores take all numbers from here down to ...
_DYNAMO_MIN: Final = 1e-120  # ... here, and zero


@dataclass(frozen=True, slots=True)
class Metrics:
    """Of one tick of one primary: a row a path, target first, then the values of `METRICS`."""

    primary_region: str
    decided_at_ms: int
    evidence_at_ms: int
    rows: list[tuple[str, tuple[float | None, ...]]]

    @property
    def hour_at_ms(self) -> int:
        return self.decided_at_ms - self.decided_at_ms % HOUR_MS


@dataclass(frozen=True, slots=True)
class InForce:
    """What the store says of a primary: the version in force (0: none yet), and where its record stood."""

    version: int = 0
    place: str = ""

    def follows(self, record: FailoverConfiguration, place: str) -> bool:
        """Whether the record, one without mistakes, is new here, and comes into force after this."""
        return place > self.place and record.based_on == self.version


def is_sound(record: FailoverConfiguration, key: bytes | None) -> bool:
    """Whether the fold hears of it: it has no mistake, and stands where all of its primary do, in their order."""
    return is_keyed(record, key) and not mistakes(record)


def metrics_of(record: PathWeights) -> Metrics:
    """Raises CodecError for a record that no store can hold."""
    check_name(record.primary_region)
    check_time(record.decided_at_ms)
    check_time(record.evidence_at_ms)
    columns = [getattr(record, name) for name in METRICS]
    if any(len(column) != len(record.targets) for column in columns):
        raise CodecError(Reason.MALFORMED, "columns of path weights are not as long as its targets")
    for target in record.targets:
        check_name(target)
    for name, column in zip(METRICS, columns, strict=True):
        for value in column:
            if value and not (math.isfinite(value) and _DYNAMO_MIN <= abs(value) <= _DYNAMO_MAX):
                raise CodecError(Reason.OUT_OF_RANGE, f"{name} = {value} is no number that a store keeps")
    rows = dict(zip(record.targets, zip(*columns, strict=True), strict=True))
    return Metrics(record.primary_region, record.decided_at_ms, record.evidence_at_ms, list(rows.items()))


def check_ranking(record: FailoverRanking) -> None:
    """Raises CodecError for a ranking that no store can hold, or that no reader could print."""
    check_name(record.primary_region)
    check_time(record.decided_at_ms)
    if not 0 <= record.sequence < 1 << 62:
        raise CodecError(Reason.OUT_OF_RANGE, f"sequence = {record.sequence}")
    numbers = [record.order_confidence, *(c.score for c in record.candidates)]
    if not all(map(math.isfinite, numbers)):
        raise CodecError(Reason.OUT_OF_RANGE, "a score or the order's confidence is no finite number")


def check_name(text: str) -> None:
    if not 0 < len(text.encode()) <= _NAME_BYTES_MAX:
        raise CodecError(
            Reason.OUT_OF_RANGE, f"a region's id has 1 to {_NAME_BYTES_MAX} bytes, not {len(text.encode())}"
        )


def check_time(at_ms: int) -> None:
    if not 0 <= at_ms <= _AT_MS_MAX:
        raise CodecError(Reason.OUT_OF_RANGE, f"{at_ms} ms is no time")


def place_of(meta: Meta) -> str:
    """Where a record stood, as text that sorts in the order in which configurations are judged."""
    return f"{meta.appended_at_ms:015d}/{meta.partition:05d}/{meta.offset:019d}"


def buckets(from_ms: int, to_ms: int, size_ms: int) -> Iterator[int]:
    """The buckets that hold what was decided from `from_ms` up to before `to_ms`."""
    first_ms = max(0, from_ms)
    yield from range(first_ms - first_ms % size_ms, to_ms, size_ms)
