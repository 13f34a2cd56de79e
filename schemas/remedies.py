"""What a schema cannot say of remedies: which values a kind takes, and what actions and results must look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from schemas.ranges import AT_MS_MAX, RTT_MS_MAX, SOURCE, TTL_MS_MAX, matching, region, within
from schemas.records import (
    ActionOutcome,
    ActionResult,
    FailoverConfiguration,
    Operation,
    PathAction,
    Remedy,
    RemedyKind,
)

REMEDIES_MAX: Final = 100  # of a primary
PREPENDS_MAX: Final = 10  # many networks filter longer paths
DETAIL_MAX: Final = 2000  # characters that an actuator may say of a result
# kind -> (lowest, highest) that its value may be, both allowed
REMEDY_VALUES: Final = {
    RemedyKind.LINK: (0.0, 0.0),
    RemedyKind.LOCAL_PREFERENCE: (0.0, float((1 << 32) - 1)),
    RemedyKind.AS_PATH_PREPEND: (1.0, float(PREPENDS_MAX)),
    RemedyKind.BANDWIDTH: (1.0, 1e15),
}


def remedy_mistakes(c: FailoverConfiguration) -> list[str]:
    """Of what may be done to paths, and how often."""
    ids = Counter(r.remedy_id for r in c.remedies)
    found = [f"remedy {i[:80]} is given twice" for i, times in sorted(ids.items()) if times > 1]
    if len(c.remedies) > REMEDIES_MAX:
        found.append(f"there are {len(c.remedies)} remedies, {REMEDIES_MAX} at most")
    for remedy in c.remedies:
        found += [f"remedy {remedy.remedy_id[:80]}: {m}" for m in _remedy(remedy, c.potential_failover_regions)]
    limits = c.remedy_limits
    for name in ("window_ms", "act_within_ms", "breaker_failures", "breaker_open_ms", "breaker_open_ms_max"):
        found += within(getattr(limits, name), 1, 30 * TTL_MS_MAX, f"remedy_limits.{name}")
    for name in ("actions_max", "region_actions_max"):
        found += within(getattr(limits, name), 0, 10_000, f"remedy_limits.{name}")
    if limits.breaker_open_ms > limits.breaker_open_ms_max:
        found.append("remedy_limits.breaker_open_ms must not be above remedy_limits.breaker_open_ms_max")
    return found


def _remedy(remedy: Remedy, candidates: list[str]) -> Iterable[str]:
    yield from matching(SOURCE, remedy.remedy_id, "remedy_id")
    yield from matching(SOURCE, remedy.actuator, "actuator")
    if remedy.target_region not in candidates:
        yield f"target_region {remedy.target_region[:80]} is no candidate"
    yield from _kind_and_value(remedy.kind, remedy.value)
    yield from within(0 if remedy.cost is None else remedy.cost, 0, 1e9, "cost")
    yield from within(remedy.gain_ms, 0, RTT_MS_MAX, "gain_ms")
    yield from within(remedy.gain_ratio, 0.01, 1, "gain_ratio")
    yield from within(remedy.verify_within_ms, 1000, TTL_MS_MAX, "verify_within_ms")
    yield from within(remedy.revert_after_ms, 0, 30 * TTL_MS_MAX, "revert_after_ms")


def _kind_and_value(kind: str, value: float) -> Iterable[str]:
    if kind not in list(RemedyKind):
        yield f"kind {kind[:40]!r} is unknown: one of {', '.join(RemedyKind)}"
        return
    yield from within(value, *REMEDY_VALUES[RemedyKind(kind)], f"value of {kind}")
    if kind != RemedyKind.BANDWIDTH and value % 1:
        yield f"value of {kind} is {value:g}, no whole number"


def path_action(a: PathAction) -> list[str]:
    """What an actuator need not trust overview for."""
    found = [
        *matching(SOURCE, a.action_id, "action_id"),
        *region(a.primary_region, "primary_region"),
        *region(a.target_region, "target_region"),
        *matching(SOURCE, a.remedy_id, "remedy_id"),
        *matching(SOURCE, a.actuator, "actuator"),
        *_kind_and_value(a.kind, a.value),
        *within(a.planned_at_ms, 0, AT_MS_MAX, "planned_at_ms"),
        *within(a.expires_at_ms, 0, AT_MS_MAX, "expires_at_ms"),
    ]
    if a.operation not in list(Operation):
        found.append(f"operation {a.operation[:40]!r} is unknown: one of {', '.join(Operation)}")
    return found


def action_result(r: ActionResult) -> list[str]:
    """What anybody who may write results could say wrongly."""
    found = [
        *matching(SOURCE, r.action_id, "action_id"),
        *region(r.primary_region, "primary_region"),
        *matching(SOURCE, r.remedy_id, "remedy_id"),
        *matching(SOURCE, r.actuator, "actuator"),
        *within(r.at_ms, 0, AT_MS_MAX, "at_ms"),
    ]
    if r.operation not in list(Operation):
        found.append(f"operation {r.operation[:40]!r} is unknown: one of {', '.join(Operation)}")
    if r.outcome not in list(ActionOutcome):
        found.append(f"outcome {r.outcome[:40]!r} is unknown: one of {', '.join(ActionOutcome)}")
    if len(r.detail) > DETAIL_MAX:
        found.append(f"detail has {len(r.detail)} characters, {DETAIL_MAX} at most")
    return found
