"""The records in which a remedy's treatment is published: what its actuator is to do, and what is thought of it."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from schemas.records import (
    FailoverConfiguration,
    Operation,
    PathAction,
    RemedyEvent,
    RemedyReport,
    Verification,
)
from streams.core.remedy import Treatment


def action_id(primary: str, t: Treatment, operation: Operation, sequence: int, now_ms: int) -> str:
    """A digest of what the action is about, and when: a fold that is repeated gives the same."""
    about = f"{primary}/{t.remedy.remedy_id}/{operation}/{sequence}/{now_ms}"
    return hashlib.blake2b(about.encode(), digest_size=16).hexdigest()


def action(c: FailoverConfiguration, t: Treatment, sequence: int, now_ms: int, reason: str) -> PathAction:
    """What the treatment's actuator is asked for now."""
    applies = t.operation == Operation.APPLY
    aim = Verification(t.metric, t.from_value, t.must_reach, t.remedy.verify_within_ms) if applies else None
    return PathAction(
        action_id=t.action_id,
        sequence=sequence,
        primary_region=c.primary_region,
        target_region=t.remedy.target_region,
        remedy_id=t.remedy.remedy_id,
        kind=t.remedy.kind,
        operation=t.operation,
        actuator=t.remedy.actuator,
        value=t.remedy.value,
        planned_at_ms=now_ms,
        expires_at_ms=t.expires_at_ms,
        config_version=c.version,
        reason=reason,
        expected_gain=max(t.from_value - t.must_reach, 0.0) if applies else 0.0,
        verification=aim,
    )


def report(primary: str, t: Treatment, event: RemedyEvent, reason: str, *, sequence: int, now_ms: int) -> RemedyReport:
    """What is thought of the remedy now."""
    measured: dict[str, Any] = {}
    if event in (RemedyEvent.VERIFIED, RemedyEvent.NOT_HELPED):
        values = {"before": t.before, "after": t.after, "gain": t.gain}
        measured = {"metric": t.metric, **{k: None if math.isnan(v) else v for k, v in values.items()}}
    return RemedyReport(
        sequence=sequence,
        primary_region=primary,
        target_region=t.remedy.target_region,
        remedy_id=t.remedy.remedy_id,
        at_ms=now_ms,
        event=event.value,
        phase=t.phase.value,
        breaker=t.breaker.state(now_ms),
        reason=reason,
        action_id=t.action_id or None,
        **measured,
    )
