"""What became of a primary's remedies, in sentences, for `explain` and `watch`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from infra.times import lasting
from infra.words import clean
from schemas.records import RemedyReport

_PHASES: Final = {
    "IDLE": "not in place",
    "PLANNED": "being applied",
    "VERIFYING": "in place, and being verified",
    "HELD": "in place",
    "ROLLING_BACK": "being rolled back",
    "STRANDED": "in place and cannot be rolled back",
}
_BREAKERS: Final = {"OPEN": "; its breaker is open", "HALF_OPEN": "; its breaker lets one more try through"}


def latest(reports: Iterable[RemedyReport]) -> list[RemedyReport]:
    """The last of each remedy, the newest first; repeats and what comes late change nothing."""
    found: dict[tuple[str, str], RemedyReport] = {}
    for report in reports:
        key = report.primary_region, report.remedy_id
        if key not in found or report.sequence > found[key].sequence:
            found[key] = report
    return sorted(found.values(), key=lambda r: -r.sequence)


def remedy_sentences(reports: Sequence[RemedyReport], now_ms: int) -> list[str]:
    """One of each remedy."""
    return [sentence(report, now_ms) for report in reports]


def sentence(report: RemedyReport, now_ms: int) -> str:
    """Where a remedy stands, and what was last said of it."""
    phase = _PHASES.get(report.phase, clean(report.phase))
    ago = lasting(now_ms - report.at_ms)
    about = f"{clean(report.remedy_id)} (path to {clean(report.target_region)})"
    return f"{about} is {phase}{_BREAKERS.get(report.breaker, '')}. {ago} ago: {clean(report.reason)}."
