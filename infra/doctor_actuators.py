"""What actuators and remedies said last: breakers that are open, remedies that nobody could take back, dry runs."""

from __future__ import annotations

import time
from typing import Final

from infra.kafka.reader import TopicReader
from infra.remedy_words import latest, sentence
from infra.words import clean, listed
from schemas.codec import decode
from schemas.errors import CodecError
from schemas.records import ActionOutcome, ActionResult, RemedyReport
from schemas.topics import named

_BACK: Final = 200  # of each partition, so many of the last records
_TIMEOUT_S: Final = 10.0


def last_results(bootstrap: str, prefix: str) -> dict[str, ActionResult]:
    """Of each actuator what it said last. Raises KafkaUnavailableError."""
    found: dict[str, tuple[int, ActionResult]] = {}
    for value, appended_at_ms in _values(bootstrap, named(prefix, "action-results")):
        try:
            result = decode(value, ActionResult)
        except CodecError:
            continue
        if result.actuator not in found or appended_at_ms >= found[result.actuator][0]:
            found[result.actuator] = appended_at_ms, result
    return {actuator: result for actuator, (_, result) in sorted(found.items())}


def last_reports(bootstrap: str, prefix: str) -> list[RemedyReport]:
    """Of each remedy what was said last. Raises KafkaUnavailableError."""
    found = []
    for value, _ in _values(bootstrap, named(prefix, "path-actions")):
        try:
            found.append(decode(value, RemedyReport))
        except CodecError:
            continue
    return latest(found)


def actuators(bootstrap: str, prefix: str) -> tuple[bool, str]:
    """Whether all is well with those that said something, and what is to be said. Raises KafkaUnavailableError."""
    results = last_results(bootstrap, prefix)
    if not results:
        return True, "none was asked for anything yet"
    troubles = [
        f"{clean(name)}: its breaker is {clean(r.breaker)} ({clean(r.detail)})"
        for name, r in results.items() if r.breaker != "CLOSED"
    ]  # fmt: skip
    dry = [clean(name) for name, r in results.items() if r.outcome == ActionOutcome.DRY_RUN]
    said = [*troubles, *([f"dry runs, which do nothing: {listed(dry)}"] if dry else [])]
    well = [clean(name) for name in results if not any(t.startswith(f"{clean(name)}:") for t in troubles)]
    return not troubles, "; ".join([*said, *([f"breakers closed: {listed(well)}"] if well else [])])


def remedies(bootstrap: str, prefix: str) -> tuple[bool, str]:
    """The same of remedies."""
    reports = last_reports(bootstrap, prefix)
    now_ms = time.time_ns() // 1_000_000
    troubles = [sentence(r, now_ms) for r in reports if r.phase == "STRANDED" or r.breaker == "OPEN"]
    if troubles:
        return False, " ".join(troubles)
    in_place = [clean(r.remedy_id) for r in reports if r.phase != "IDLE"]
    return True, f"in place or under way: {listed(in_place)}" if in_place else "none is in place"


def _values(bootstrap: str, topic: str) -> list[tuple[bytes, int]]:
    found = []
    deadline_s = time.monotonic() + _TIMEOUT_S
    with TopicReader(bootstrap, {topic: _BACK}) as reader:
        while not reader.at_end and time.monotonic() < deadline_s:
            record = reader.poll(0.1)
            if record is not None and record.value is not None:
                found.append((record.value, record.appended_at_ms))
    return found
