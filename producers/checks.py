"""A target's checks: what was seen beside what was asked for, each with its reason in words.

    http, https, tcp   every health endpoint answers as declared
    answer             and soon enough (`answer_ms_max` of the prober)
    latency            connections to it take no longer than the policy's `latency_bad_ms`
    bandwidth          trains to its responder say at least `bandwidth_bad_bps`, where one is configured
    capacity           its declared capacity covers the primary's load, where that is stated

Pure: what was seen goes in, checks come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from producers.health import Seen
from schemas.records import FailoverConfiguration, Outcome, ReadinessCheck, Region


@dataclass(frozen=True, slots=True)
class Measured:
    """A bandwidth test: how it ended, when (the prober's monotonic clock), and what it said."""

    outcome: Outcome
    at_s: float
    endpoint: str
    bps: float = 0.0
    uncertainty_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """A region that a primary may fail over to, and what it is held to."""

    region: Region
    load_ratio: float
    latency_ms_max: float
    bandwidth_bps_min: float
    config_version: int

    @property
    def region_id(self) -> str:
        return self.region.region_id

    @property
    def is_checkable(self) -> bool:
        """Whether there is anything to be checked."""
        return bool(self.region.health) or self.load_ratio > 0


def targets_of(configuration: FailoverConfiguration | None, regions: dict[str, Region]) -> dict[str, Target]:
    """Whom a primary's prober checks: its candidates that the catalogue knows, and says something about."""
    if configuration is None:
        return {}
    policy = configuration.policy
    found = (
        Target(
            regions[region_id],
            configuration.load_ratio,
            policy.latency_bad_ms,
            policy.bandwidth_bad_bps,
            configuration.version,
        )
        for region_id in configuration.potential_failover_regions
        if region_id in regions
    )
    return {target.region_id: target for target in found if target.is_checkable}


def checks_of(
    target: Target, seen: list[Seen], measured: Measured | None, *, answer_ms_max: float, now_s: float
) -> list[ReadinessCheck]:
    """All checks of a target, in the order in which people look at them: what failed first is the reason."""
    found = [check for each in seen for check in _endpoint(each, answer_ms_max)]
    found += [check for each in seen for check in _latency(each, target.latency_ms_max)]
    if measured is not None and measured.outcome is not Outcome.NOT_SENT:
        found.append(_bandwidth(measured, target.bandwidth_bps_min, now_s))
    if target.load_ratio > 0:
        found.append(_capacity(target))
    return found


def _endpoint(seen: Seen, answer_ms_max: float) -> Iterator[ReadinessCheck]:
    endpoint, is_tcp = seen.endpoint, seen.scheme == "tcp"
    yield ReadinessCheck(
        name=seen.scheme,
        passed=seen.answered and (is_tcp or seen.status == endpoint.expected_status),
        reason=seen.reason,
        endpoint=endpoint.url,
        observed=None if seen.status is None else float(seen.status),
        limit=None if is_tcp else float(endpoint.expected_status),
        unit="" if is_tcp else "status",
        took_ms=round(seen.took_ms, 3),
        breaker=seen.breaker.value,
    )
    if seen.answer_ms is not None:
        yield _at_most("answer", "it took {} to answer", seen, seen.answer_ms, answer_ms_max)


def _latency(seen: Seen, limit_ms: float) -> Iterator[ReadinessCheck]:
    if seen.latency_ms is not None:
        yield _at_most("latency", "a connection takes {}", seen, seen.latency_ms, limit_ms)


def _at_most(name: str, said: str, seen: Seen, observed_ms: float, limit_ms: float) -> ReadinessCheck:
    passed = observed_ms <= limit_ms
    reason = said.format(f"{observed_ms:.1f} ms") + ("" if passed else f", {limit_ms:g} ms at most")
    return ReadinessCheck(name, passed, reason, seen.endpoint.url, round(observed_ms, 3), limit_ms, "ms")


def _bandwidth(measured: Measured, limit_bps: float, now_s: float) -> ReadinessCheck:
    if measured.outcome is not Outcome.ANSWERED:
        reason = f"the responder does not answer ({measured.outcome.name.lower().replace('_', ' ')})"
        return ReadinessCheck("bandwidth", False, reason, measured.endpoint, None, limit_bps, "bps")
    # What may be within the interval's width of the limit is not held against it.
    passed = measured.bps * (1 + measured.uncertainty_ratio) >= limit_bps
    age_s = now_s - measured.at_s
    found = f"{measured.bps / 1e6:.1f} Mbit/s give or take {measured.uncertainty_ratio:.0%}"
    when = f", {age_s:.0f} s ago" if age_s >= 1 else ""
    least = "" if passed else f", {limit_bps / 1e6:g} at least"
    return ReadinessCheck(
        "bandwidth", passed, f"{found}{when}{least}", measured.endpoint, round(measured.bps, 1), limit_bps, "bps"
    )


def _capacity(target: Target) -> ReadinessCheck:
    has, needs = target.region.capacity_ratio, target.load_ratio
    passed = has >= needs
    reason = f"it can take {has:g}, and the primary's load is {needs:g}"
    return ReadinessCheck("capacity", passed, reason, "", has, needs, "ratio")
