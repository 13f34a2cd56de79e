"""Another policy beside the one in force: what it would have chosen, and where the two differ.

The shadow's engine is `streams.replay.engine_under`; `Beside` compares its targets with the real ones, in journal time:
a moment is compared once the journal has passed it by `GRACE_MS`, because a real ranking reaches us some time after the
journal record that brought it about, and a target that comes a moment later is no difference.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from infra.kafka.reader import TopicReader, offsets_at
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.records import FailoverRanking
from schemas.topics import named

GRACE_MS: Final = 2000
# The target in force at a moment was published at a heartbeat before it, at the latest.
_KNOWN_BEFORE_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Turn:
    """The two policies begin to differ, or agree again, about one primary."""

    primary_region: str
    at_ms: int
    agree: bool
    target_region: str | None  # the shadow's
    real_target_region: str | None
    differences: int  # so far
    differing_ratio: float  # share of the time compared so far

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Course:
    """A primary's two targets up to `until_ms`, and what is known of them after it."""

    partition: int
    shadow: deque[tuple[int, str | None]] = field(default_factory=deque)  # (decided_at_ms, target)
    real: deque[tuple[int, str | None]] = field(default_factory=deque)
    real_sequence: int = 0
    targets: dict[str, str | None] = field(default_factory=dict)
    until_ms: int = 0
    changed_at_ms: int = 0
    compared_ms: int = 0
    differing_ms: int = 0
    differences: int = 0
    said_differs: bool = False

    @property
    def differs(self) -> bool:
        return len(self.targets) == 2 and self.targets["shadow"] != self.targets["real"]


class Beside:
    """Where shadow and reality differ; `passed` says it in order of journal time."""

    def __init__(self, from_ms: int = 0, grace_ms: int = GRACE_MS) -> None:
        self._from_ms, self._grace_ms = from_ms, grace_ms
        self._courses: dict[str, _Course] = {}
        self._passed_ms: dict[int, int] = {}  # by partition

    def shadow(self, ranking: FailoverRanking, partition: int) -> None:
        """A ranking of the shadow's, from the journal partition that it came from."""
        course = self._course(ranking.primary_region)
        course.partition = partition
        course.shadow.append((ranking.decided_at_ms, ranking.target_region))

    def real(self, ranking: FailoverRanking) -> None:
        """A published ranking; what comes twice counts once."""
        course = self._course(ranking.primary_region)
        if ranking.sequence > course.real_sequence:
            course.real_sequence = ranking.sequence
            course.real.append((ranking.decided_at_ms, ranking.target_region))

    def passed(self, partition: int, at_ms: int) -> list[Turn]:
        """Journal time of a partition has come so far; what turned since, up to the grace before it."""
        self._passed_ms[partition] = max(at_ms, self._passed_ms.get(partition, 0))
        return self._turns(partition, self._grace_ms)

    def finish(self) -> list[Turn]:
        """Nothing more comes: compare to the end."""
        return [turn for partition in sorted(self._passed_ms) for turn in self._turns(partition, 0)]

    def totals(self) -> dict[str, Any]:
        """Over all primaries, so far."""
        courses = self._courses.values()
        compared_ms = sum(c.compared_ms for c in courses)
        differing_ms = sum(c.differing_ms for c in courses)
        return {
            "primaries": sum(c.compared_ms > 0 for c in courses),
            "differences": sum(c.differences for c in courses),
            "compared_ms": compared_ms,
            "differing_ms": differing_ms,
            "differing_ratio": _ratio(differing_ms, compared_ms),
        }

    def _turns(self, partition: int, grace_ms: int) -> list[Turn]:
        until_ms = self._passed_ms[partition] - grace_ms
        return [
            turn
            for primary, course in sorted(self._courses.items())
            if course.partition == partition
            for turn in _turns(primary, course, self._from_ms, until_ms)
        ]

    def _course(self, primary: str) -> _Course:
        return self._courses.setdefault(primary, _Course(-1))


class RealRankings:
    """The rankings that were and are published, for `Beside.real`; from some time before a moment on.

    Raises KafkaUnavailableError: no broker answers, or there is no such topic.
    """

    def __init__(self, bootstrap: str, prefix: str, from_ms: int | None) -> None:
        topic = named(prefix, "failover-rankings")
        before_ms = 0 if from_ms is None else max(0, from_ms - _KNOWN_BEFORE_MS)
        self._reader = TopicReader(bootstrap, {topic: offsets_at(bootstrap, topic, before_ms)})

    def there(self, deadline_s: float = 60.0) -> Iterator[FailoverRanking]:
        """All that are there already."""
        deadline = time.monotonic() + deadline_s
        while not self._reader.at_end and time.monotonic() < deadline:
            yield from self.new(0.2)

    def new(self, timeout_s: float = 0.0) -> Iterator[FailoverRanking]:
        """Those that came since; waits so long for the first."""
        raw = self._reader.poll(timeout_s)
        while raw is not None:
            with suppress(CodecError):  # a sink has made a dead letter of it
                yield decode(raw.value or b"", FailoverRanking)
            raw = self._reader.poll(0)

    def close(self) -> None:
        self._reader.close()


def _turns(primary: str, course: _Course, from_ms: int, until_ms: int) -> list[Turn]:
    """Go on to `until_ms`, change by change."""
    found: list[Turn] = []
    queues = {"shadow": course.shadow, "real": course.real}
    while True:
        name = min((n for n, queue in queues.items() if queue), key=lambda n: queues[n][0][0], default=None)
        if name is None or queues[name][0][0] > until_ms:
            break
        at_ms, target = queues[name].popleft()
        found += _passed(primary, course, from_ms, at_ms)
        course.targets[name] = target
        course.changed_at_ms = max(at_ms, course.until_ms)  # what comes late counts from now on
        if not any(queue and queue[0][0] <= at_ms for queue in queues.values()):  # else not all of it has happened
            found += _turned(primary, course, from_ms)
    found += _passed(primary, course, from_ms, until_ms)
    return found + _turned(primary, course, from_ms)


def _passed(primary: str, course: _Course, from_ms: int, at_ms: int) -> list[Turn]:
    """Let time pass, and see how things stand at the beginning, if it lies between."""
    found = []
    if course.until_ms < from_ms < at_ms:
        _pass(course, from_ms, from_ms)
        found = _turned(primary, course, from_ms)
    _pass(course, from_ms, at_ms)
    return found


def _pass(course: _Course, from_ms: int, at_ms: int) -> None:
    """Let time pass with the targets as they are."""
    passed_ms = at_ms - max(course.until_ms, from_ms)
    if len(course.targets) == 2 and passed_ms > 0:
        course.compared_ms += passed_ms
        course.differing_ms += passed_ms if course.differs else 0
    course.until_ms = max(at_ms, course.until_ms)


def _turned(primary: str, course: _Course, from_ms: int) -> list[Turn]:
    if course.until_ms < from_ms or course.differs == course.said_differs:
        return []
    course.said_differs = course.differs
    course.differences += course.differs
    return [
        Turn(
            primary, max(course.changed_at_ms, from_ms), not course.differs, course.targets["shadow"],
            course.targets["real"], course.differences, _ratio(course.differing_ms, course.compared_ms),
        )
    ]  # fmt: skip


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
