"""What the last published ranking said: the next one is published when that has changed, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.records import Array, Event, Policy
from streams.core.ranked import Ranked


@dataclass(frozen=True, slots=True)
class Shown:
    """As far as it matters for publishing; `order` holds the first `publish_ranks`, `scores` and `eligible` all."""

    order: list[str]
    eligible: Array
    scores: Array
    mode: str = ""
    advice: str = ""
    target: str | None = None
    suspects: tuple[str, ...] = ()
    at_ms: int = 0

    @classmethod
    def nothing(cls) -> Shown:
        """Before the first ranking."""
        return cls([], np.zeros(0, bool), np.zeros(0))

    @classmethod
    def of(cls, ranked: Ranked, policy: Policy, advice: str, target: str | None, now_ms: int) -> Shown:
        """What a ranking published now would say."""
        return cls(
            order=[ranked.regions[i] for i in ranked.order[: policy.publish_ranks].tolist()],
            eligible=ranked.eligible,
            scores=ranked.score,
            mode=str(ranked.mode),
            advice=advice,
            target=target,
            suspects=ranked.suspects,
            at_ms=now_ms,
        )


def changes(before: Shown, now: Shown, policy: Policy) -> list[Event]:
    """Why a ranking has to be published now; empty: it need not be."""
    events = []
    if now.target != before.target:
        events.append(Event.TARGET_CHANGED)
    if now.mode != before.mode:
        events.append(Event.MODE_CHANGED)
    if now.advice != before.advice:
        events.append(Event.ADVICE_CHANGED)
    if now.suspects != before.suspects:
        events.append(Event.AGENTS_CHANGED)
    if not np.array_equal(now.eligible, before.eligible):
        events.append(Event.ELIGIBILITY_CHANGED)
    if now.order != before.order:
        events.append(Event.ORDER_CHANGED)
    elif len(now.scores) == len(before.scores) and _moved(before.scores, now.scores, policy):
        events.append(Event.SCORE_MOVED)
    if not events and now.at_ms - before.at_ms >= policy.heartbeat_ms:
        events.append(Event.HEARTBEAT)
    return events


def _moved(before: Array, now: Array, policy: Policy) -> bool:
    return bool(np.count_nonzero(np.abs(now - before) > policy.publish_score_delta_ratio * before))
