"""What is said of a remedy, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from schemas.records import RemedyKind, RemedyLimits
from streams.core.degradation import LATENCY, Degradation, Sight
from streams.core.remedy import Treatment
from streams.core.remedy_states import Phase, Signal

STOPPED: Final = "an operator has stopped all actions: nothing is done until that ends"
_KINDS: Final = {
    RemedyKind.LINK: "activate a redundant link",
    RemedyKind.LOCAL_PREFERENCE: "change local preference",
    RemedyKind.AS_PATH_PREPEND: "prepend to the AS path",
    RemedyKind.BANDWIDTH: "ask the provider for bandwidth",
}


def amount(metric: str, value: float) -> str:
    """A value of a metric with its unit."""
    if math.isnan(value):
        return "an unknown value"
    return f"{value:.1f} ms" if metric == LATENCY else f"{value:.1%}"


def trouble(target: str, t: Treatment, path: Degradation, sight: Sight, *, foretold: bool) -> str:
    """Why a remedy is chosen, what it is to win, and how that will be seen."""
    what = _KINDS[RemedyKind(t.remedy.kind)]
    within = f"within {t.remedy.verify_within_ms / 1000:g} s"
    if foretold:
        why = f"the path to {target} is predicted to be disrupted"
        return f"{why}: {what}; it is to stay below {amount(LATENCY, t.must_reach)} {within}"
    if sight.is_down:
        why = f"{target} does not answer"
    elif path.metric == LATENCY:
        why = f"the path to {target} takes {sight.latency_ms:.1f} ms, usually {path.baseline_ms:.1f} ms"
    else:
        why = f"the path to {target} loses {sight.loss_ratio:.1%}"
    name = "latency" if t.metric == LATENCY else "loss"
    return f"{why}: {what}; {name} is to be {amount(t.metric, t.must_reach)} at most {within}"


def sentence(t: Treatment, before: Phase, signal: Signal, detail: str) -> str:
    """What happened to it."""
    change = f"from {amount(t.metric, t.before)} to {amount(t.metric, t.after)}"
    name = "latency" if t.metric == LATENCY else "loss"
    match signal:
        case Signal.CHOSEN:
            return detail
        case Signal.DONE if before is Phase.PLANNED:
            return f"it is in place ({detail}); now {name} has to fall to {amount(t.metric, t.must_reach)}"
        case Signal.DONE:
            return f"it is as it was before ({detail})"
        case Signal.HELPED:
            won = f"{t.gain:.1f} ms won" if t.metric == LATENCY else f"{100 * t.gain:.1f} points of loss won"
            return f"it helped: {name} went {change}, {won}"
        case Signal.NOT_HELPED:
            return f"it did not help: {name} went {change}, not to {amount(t.metric, t.must_reach)}; it is rolled back"
        case Signal.DONE_LATE:
            return f"it was done after it had been given up ({detail}); it is rolled back"
        case Signal.REVERT:
            return f"it is withdrawn: {detail}"
        case Signal.AGAIN:
            return f"rolling back has failed ({detail}); it is tried again"
        case Signal.GIVEN_UP:
            return f"it cannot be rolled back ({detail}): look at {t.remedy.actuator} yourself"
        case Signal.ON_PURPOSE:
            return f"nothing was done, on purpose ({detail})"
        case Signal.UNSURE:
            return f"it may be there in part ({detail}); it is rolled back"
        case _:
            return f"nothing was done ({detail})"


def opened(t: Treatment, now_ms: int) -> str:
    """Its breaker is open."""
    seconds = (t.breaker.open_until_ms - now_ms) / 1000
    return f"{t.breaker.failures} failures in a row: it is not tried again for {seconds:g} s"


def unmended(there: Sequence[Treatment], now_ms: int) -> str:
    """Nothing is left to be tried."""
    states = ", ".join(f"{t.remedy.remedy_id} {_why_not(t, now_ms)}" for t in there)
    return f"the path to {there[0].remedy.target_region} is bad, and nothing is left to be tried: {states}"


def _why_not(t: Treatment, now_ms: int) -> str:
    if t.phase is not Phase.IDLE:
        return f"is {t.phase}"
    return "is a dry run" if t.spent else f"has its breaker {t.breaker.state(now_ms)}"


def capped(whose: str, limits: RemedyLimits, target: str) -> str:
    """There were too many actions of late."""
    most = limits.actions_max if whose == "this primary" else limits.region_actions_max
    of = f"of {whose}" if whose == "this primary" else f"into {target} of {whose}"
    return f"no remedy is applied: {most} actions {of} in {limits.window_ms / 60_000:g} min are the most"
