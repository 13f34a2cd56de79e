"""Whether a target would take the traffic, as readiness probers report it.

*Not ready.* When a quorum of the probers that report on a target find that a check fails, it is not eligible, with the
check as the reason. One prober's finding counts only where it is the only one; one that is silent is not asked for its
opinion while others report.

*Old.* When nobody has reported on a target for `readiness_stale_after_ms`, what is left of its score is
`readiness_stale_ratio`, and it is asked for again. What was found last goes on counting.

*Forgotten.* `readiness_forget_ms` after its last report a prober has said nothing: it neither discounts nor gates. So a
target that nobody reports on, because no prober is there or any more, is as good as its path.

Times are journal time; what a prober found does not become newer by arriving late.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from schemas.records import Array, Policy, ReadinessReport
from streams.core.views import needed

_PROBERS_MAX: Final = 32  # of a target; whoever invents more must not make a snapshot that the broker refuses
_REASON_MAX: Final = 200  # characters that a failed check has in a ranking
_ASKED_MAX: Final = 10  # old targets that are asked for at once


@dataclass(frozen=True, slots=True)
class Standing:
    """At a moment: (targets,) `log_factor`, 0 or less, and `not_ready`, bool (None: of all 0, none), and why not."""

    log_factor: Array | None = None
    not_ready: Array | None = None
    why: Mapping[str, str] = field(default_factory=dict)


_NOTHING: Final = Standing()


class Reports:
    """Of one primary: the latest report of each prober on each target."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self._latest: dict[str, dict[str, list[Any]]] = state.get("latest", {})  # target -> prober -> [at_ms, failed]
        self._asked_at_ms: dict[str, int] = state.get("asked_at_ms", {})
        self._standing: tuple[float, Standing] | None = None  # until when it holds

    @property
    def any(self) -> bool:
        """Whether there is anybody who reports."""
        return bool(self._latest)

    def save(self) -> dict[str, Any]:
        """For a snapshot."""
        return {"latest": self._latest, "asked_at_ms": self._asked_at_ms}

    def take(self, report: ReadinessReport, policy: Policy, now_ms: int) -> bool:
        """Take one in; True when the target is ready and was not, or the other way round."""
        at_ms = min(report.observed_at_ms, now_ms)
        its = self._latest.get(report.target_region, {})
        if at_ms + policy.readiness_forget_ms <= now_ms or at_ms < its.get(report.agent_id, [0])[0]:
            return False
        before = _verdict(its, policy, now_ms)
        self._latest.setdefault(report.target_region, its)[report.agent_id] = [at_ms, _failed(report)]
        if len(its) > _PROBERS_MAX:
            del its[min(its, key=lambda prober: (its[prober][0], prober))]
        self._asked_at_ms.pop(report.target_region, None)
        self._standing = None
        return (before is None) != (_verdict(its, policy, now_ms) is None)

    def only_of(self, agents: Collection[str]) -> None:
        """Forget what any other prober reported."""
        kept = {region: {p: said for p, said in its.items() if p in agents} for region, its in self._latest.items()}
        self._latest = {region: its for region, its in kept.items() if its}
        self._standing = None

    def changed(self) -> None:
        """The candidates or the policy are others now."""
        self._standing = None

    def until_ms(self, policy: Policy, now_ms: int) -> float:
        """When, after this moment, the first report becomes old or is forgotten; infinity: never."""
        edges = (
            at_ms + after_ms
            for its in self._latest.values()
            for at_ms, _ in its.values()
            for after_ms in (policy.readiness_stale_after_ms, policy.readiness_forget_ms)
        )
        return min((edge for edge in edges if edge > now_ms), default=math.inf)

    def standing(self, numbers: Mapping[str, int], policy: Policy, now_ms: int) -> Standing:
        """What counts at this moment for these targets."""
        if not self._latest:
            return _NOTHING
        if self._standing is None or now_ms >= self._standing[0]:
            self._forget(policy, now_ms)
            self._standing = self.until_ms(policy, now_ms), self._judged(numbers, policy, now_ms)
        return self._standing[1]

    def asks(self, order: Sequence[str], policy: Policy, now_ms: int) -> Iterator[tuple[str, int]]:
        """Targets, best first, whose last report is old, and how old in milliseconds; each once in a while."""
        due = 0
        for region in order if self._latest else ():
            its = self._latest.get(region)
            if its is None or due == _ASKED_MAX:
                continue
            age_ms = now_ms - _newest(its)
            asked_ago_ms = now_ms - self._asked_at_ms.get(region, -policy.readiness_forget_ms)
            if age_ms >= policy.readiness_stale_after_ms <= asked_ago_ms:
                self._asked_at_ms[region] = now_ms
                due += 1
                yield region, age_ms

    def _forget(self, policy: Policy, now_ms: int) -> None:
        kept = {
            region: {p: said for p, said in its.items() if said[0] + policy.readiness_forget_ms > now_ms}
            for region, its in self._latest.items()
        }
        self._latest = {region: its for region, its in kept.items() if its}
        self._asked_at_ms = {region: at for region, at in self._asked_at_ms.items() if region in self._latest}

    def _judged(self, numbers: Mapping[str, int], policy: Policy, now_ms: int) -> Standing:
        log_factor, not_ready = np.zeros(len(numbers)), np.zeros(len(numbers), bool)
        why = {}
        for region, its in self._latest.items():
            number = numbers.get(region)
            if number is None:
                continue
            if now_ms - _newest(its) >= policy.readiness_stale_after_ms:
                log_factor[number] = math.log(policy.readiness_stale_ratio)
            failed = _verdict(its, policy, now_ms)
            if failed is not None:
                not_ready[number], why[region] = True, failed
        return Standing(log_factor if log_factor.any() else None, not_ready if why else None, why)


def _newest(its: Mapping[str, list[Any]]) -> int:
    return int(max(at_ms for at_ms, _ in its.values()))


def _verdict(its: Mapping[str, list[Any]], policy: Policy, now_ms: int) -> str | None:
    """Why a quorum of the probers find it not ready, in the words of the latest of them; None: it is."""
    fresh = [said for said in its.values() if now_ms - said[0] < policy.readiness_stale_after_ms]
    counts = fresh or list(its.values())
    failing = [(at_ms, failed) for at_ms, failed in counts if failed]
    if not failing or len(failing) < needed(np.array(len(counts)), policy.quorum_ratio):
        return None
    return str(max(failing)[1])


def _failed(report: ReadinessReport) -> str:
    """The first check that failed, in words; empty: none did."""
    failed = next((check for check in report.checks if not check.passed), None)
    if failed is None:
        return ""
    said = " ".join(f"{failed.name}: {failed.reason}".split())
    return said if len(said) <= _REASON_MAX else f"{said[: _REASON_MAX - 1]}…"
