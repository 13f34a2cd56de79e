"""What a schema cannot say: ranges, region ids, columns of equal length.

`mistakes(record)` lists everything that is wrong with a record from outside, in sentences; an empty list is a good
record. Nothing here depends on configuration or on the clock, so every reader judges alike.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

from schemas.ranges import AGENT_ID, AT_MS_MAX, METHOD, REGION_ID, RTT_MS_MAX, SOURCE, TTL_MS_MAX
from schemas.ranges import matching as _matching
from schemas.ranges import region as _region
from schemas.ranges import within as _within
from schemas.readiness import ENDPOINTS_MAX, endpoint_mistakes, report_mistakes
from schemas.records import (
    ActionResult,
    AgentHealth,
    BandwidthMeasurement,
    Directive,
    Failback,
    FailoverConfiguration,
    GraphUpdate,
    Health,
    InjectedMetric,
    NetworkVerdict,
    OperatorDirective,
    Outcome,
    PathAction,
    Policy,
    ProbeBatch,
    ReadinessReport,
    RegionCatalog,
    RouteChange,
    RouteEvent,
    View,
)
from schemas.remedies import action_result, path_action, remedy_mistakes

__all__ = [
    "AGENT_ID", "AT_MS_MAX", "METHOD", "REGION_ID", "RTT_MS_MAX", "SOURCE", "TTL_MS_MAX", "columns_mistakes",
    "is_keyed", "mistakes", "policy_mistakes",
]  # fmt: skip

SENT_OFFSET_MS_MAX: Final = 600_000.0
CANDIDATES_MAX: Final = 1000  # of a primary: its ranking has to fit into a record
AGENTS_MAX: Final = 1000  # that a region names: each primary's snapshot has its own
PREFIXES_MAX: Final = 10_000  # of all regions together: monitors keep each, once for each peer
AS_MAX: Final = (1 << 32) - 1  # RFC 6793

# metric -> (lowest, highest) that it may be, both allowed
METRICS: Final = {
    "latency_ms": (0.0, RTT_MS_MAX),
    "loss_ratio": (0.0, 1.0),
    "delay_variation_ms": (0.0, RTT_MS_MAX),
    "bandwidth_bps": (0.0, 1e15),
    "capacity_ratio": (0.0, 1.0),
    "healthy": (0.0, 1.0),
}


def mistakes(record: Any) -> list[str]:
    """Everything wrong with the record, in sentences; records that only Proxima itself writes have none."""
    check = _CHECKS.get(type(record))
    return check(record) if check is not None else []


def _probe_batch(batch: ProbeBatch) -> list[str]:
    """Names, lengths and indices; whether each sample's own values make sense is judged once a flush (intake)."""
    found = [
        *_matching(AGENT_ID, batch.agent_id, "agent_id"),
        *_region(batch.primary_region, "primary_region"),
        *_within(batch.started_at_ms, 0, AT_MS_MAX, "started_at_ms"),
    ]
    for target in batch.targets:
        found += _region(target, "target")
    for method in batch.methods:
        found += _matching(METHOD, method, "method")
    return found


def columns_mistakes(batch: ProbeBatch) -> list[str]:
    """Columns that do not fit each other; cheap enough for every message."""
    probes = len(batch.outcome)
    if not probes:
        return ["the batch is empty"]
    widths = (
        ("target_index", batch.target_index, 2),
        ("method_index", batch.method_index, 1),
        ("sent_offset_ms", batch.sent_offset_ms, 4),
        ("rtt_ms", batch.rtt_ms, 4),
        ("code", batch.code, 1),
    )
    found = [
        f"column {name} has {len(data)} bytes, not {probes * width} for {probes} probes"
        for name, data, width in widths
        if len(data) != probes * width
    ]
    if found:
        return found
    columns = batch.columns()
    if int(columns["target_index"].max()) >= len(batch.targets):
        found.append(f"target_index points beyond the {len(batch.targets)} targets")
    if int(columns["method_index"].max()) >= len(batch.methods):
        found.append(f"method_index points beyond the {len(batch.methods)} methods")
    if int(columns["outcome"].max()) >= len(Outcome):
        found.append(f"outcome {int(columns['outcome'].max())} is unknown")
    offsets = columns["sent_offset_ms"]
    found += _within(float(offsets.min()), 0, SENT_OFFSET_MS_MAX, "sent_offset_ms")
    found += _within(float(offsets.max()), 0, SENT_OFFSET_MS_MAX, "sent_offset_ms")
    return found


def _bandwidth(m: BandwidthMeasurement) -> list[str]:
    return [
        *_matching(AGENT_ID, m.agent_id, "agent_id"),
        *_region(m.primary_region, "primary_region"),
        *_region(m.target_region, "target_region"),
        *_within(m.observed_at_ms, 0, AT_MS_MAX, "observed_at_ms"),
        *_within(m.bandwidth_bps, 1e-9, 1e15, "bandwidth_bps"),
        *_within(m.uncertainty_ratio, 0, 1, "uncertainty_ratio"),
    ]


def _agent_health(h: AgentHealth) -> list[str]:
    return [
        *_matching(AGENT_ID, h.agent_id, "agent_id"),
        *_region(h.primary_region, "primary_region"),
        *_within(h.observed_at_ms, 0, AT_MS_MAX, "observed_at_ms"),
        *_within(h.stalled_ms, 0, AT_MS_MAX, "stalled_ms"),
    ]


def _injected(m: InjectedMetric) -> list[str]:
    found = [
        *_region(m.primary_region, "primary_region"),
        *([] if m.target_region is None else _region(m.target_region, "target_region")),
        *_matching(SOURCE, m.source, "source"),
        *_within(m.observed_at_ms, 0, AT_MS_MAX, "observed_at_ms"),
        *_within(m.ttl_ms, 1, TTL_MS_MAX, "ttl_ms"),
    ]
    if m.metric not in METRICS:
        return [*found, f"metric {m.metric[:40]!r} is unknown: one of {', '.join(METRICS)}"]
    if m.target_region is None and m.metric != "healthy":
        found.append(f"{m.metric} is of a path: name its target_region; of the primary itself healthy alone is heard")
    if m.target_region == m.primary_region:
        found.append(f"target_region is the primary itself ({m.primary_region[:80]}): null means that")
    found += _within(m.value, *METRICS[m.metric], m.metric)
    if m.metric == "healthy" and m.value not in (0.0, 1.0):
        found.append("healthy is 0 or 1")
    return found


def _catalog(catalog: RegionCatalog) -> list[str]:
    found = [] if catalog.version > 0 else ["version is not above 0"]
    ids = [r.region_id for r in catalog.regions]
    found += [f"region {i} is given twice" for i in sorted({i for i in ids if ids.count(i) > 1})]
    for region in catalog.regions:
        found += _region(region.region_id, "region_id")
        found += _within(region.latitude, -90, 90, f"{region.region_id}: latitude")
        found += _within(region.longitude, -180, 180, f"{region.region_id}: longitude")
        found += _within(region.capacity_ratio, 1e-6, 1, f"{region.region_id}: capacity_ratio")
        found += [f"{region.region_id}: {m}" for e in region.health[:ENDPOINTS_MAX] for m in endpoint_mistakes(e)]
        if len(region.health) > ENDPOINTS_MAX:
            found.append(f"{region.region_id} has {len(region.health)} health endpoints, {ENDPOINTS_MAX} at most")
        found += [f"{region.region_id}: {m}" for p in region.prefixes for m in _prefix(p)]
        found += [m for agent in region.agents for m in _matching(AGENT_ID, agent, f"{region.region_id}: agent")]
        if len(region.agents) > AGENTS_MAX:
            found.append(f"{region.region_id} names {len(region.agents)} agents, {AGENTS_MAX} at most")
        for name, what in (("providers", "provider"), ("risk_groups", "risk group")):
            given = getattr(region, name)
            found += [m for each in given for m in _matching(SOURCE, each, f"{region.region_id}: {what}")]
    found += _agents(catalog)
    prefixes = Counter(p for r in catalog.regions for p in r.prefixes)
    found += [f"prefix {p[:80]!r} is given twice" for p, times in sorted(prefixes.items()) if times > 1]
    if prefixes.total() > PREFIXES_MAX:
        found.append(f"the regions have {prefixes.total()} prefixes, {PREFIXES_MAX} at most")
    return found


def is_keyed(record: FailoverConfiguration | ActionResult, key: bytes | None) -> bool:
    """Whether it stands under its primary's key, where all of its primary do, in their order; else it is no record."""
    return key == record.primary_region.encode()


def _agents(catalog: RegionCatalog) -> Iterable[str]:
    """An agent stands in one place."""
    claimed: dict[str, list[str]] = {}
    for region in catalog.regions:
        for agent in region.agents:
            claimed.setdefault(agent, []).append(region.region_id)
    for agent, regions in sorted(claimed.items()):
        if len(regions) > 1:
            where = " and ".join(sorted(set(regions))[:5])
            yield f"agent {agent[:80]!r} is named by {where}{' twice' if len(set(regions)) == 1 else ''}"


def _prefix(text: str) -> Iterable[str]:
    try:
        written = str(ipaddress.ip_network(text)) if "/" in text and "%" not in text else ""
    except ValueError as error:
        yield f"prefix {text[:80]!r}: {str(error)[:120]}"
    else:
        if not written or written != text:  # one spelling, so that each is there once
            do = f": write {written}" if written else ", in CIDR notation as 203.0.113.0/24"
            yield f"prefix {text[:80]!r} is none{do}"


def _readiness_report(r: ReadinessReport) -> list[str]:
    return [
        *_matching(AGENT_ID, r.agent_id, "agent_id"),
        *_region(r.primary_region, "primary_region"),
        *_region(r.target_region, "target_region"),
        *_within(r.observed_at_ms, 0, AT_MS_MAX, "observed_at_ms"),
        *report_mistakes(r),
    ]


def _route_event(e: RouteEvent) -> list[str]:
    found = [
        *_matching(AGENT_ID, e.agent_id, "agent_id"),
        *_region(e.primary_region, "primary_region"),
        *_within(e.observed_at_ms, 0, AT_MS_MAX, "observed_at_ms"),
        *_within(e.peer_as, 0, AS_MAX, "peer_as"),
    ]
    if e.kind not in list(RouteChange):
        found.append(f"kind {e.kind[:40]!r} is unknown: one of {', '.join(RouteChange)}")
    if e.view not in list(View):
        found.append(f"view {e.view[:40]!r} is unknown: one of {', '.join(View)}")
    for route in e.routes:
        found += [*_region(route.region_id, "routes"), *_prefix(route.prefix)]
        found += [m for number in route.as_path for m in _within(number, 0, AS_MAX, "as_path")]
        found += _within(route.as_path_length, 0, AT_MS_MAX, "as_path_length")
    for reach in e.regions:
        found += [*_region(reach.region_id, "regions"), *_within(reach.peers_left, 0, AT_MS_MAX, "peers_left")]
    for name in ("announced", "withdrawn", "over_ms"):
        found += _within(getattr(e, name), 0, AT_MS_MAX, name)
    return found


def _configuration(c: FailoverConfiguration) -> list[str]:
    regions = c.potential_failover_regions
    found = [*_region(c.primary_region, "primary_region")]
    found += [m for r in regions for m in _region(r, "potential_failover_regions")]
    if not regions:
        found.append("potential_failover_regions is empty")
    if len(regions) > CANDIDATES_MAX:
        found.append(f"potential_failover_regions has {len(regions)} regions, {CANDIDATES_MAX} at most")
    if c.primary_region in regions:
        found.append(f"{c.primary_region} cannot be its own failover region")
    found += [f"candidate {r} is given twice" for r in sorted({r for r in regions if regions.count(r) > 1})]
    found += [f"weights has {r}, which is no candidate" for r in sorted(set(c.weights) - set(regions))]
    for region, weight in c.weights.items():
        found += _within(weight, 1e-6, 1, f"weight of {region}")
    found += _within(c.load_ratio, 0, 1000, "load_ratio")
    if c.version <= 0:
        found.append("version is not above 0")
    if not 0 <= c.based_on < max(c.version, 1):
        found.append(f"based_on {c.based_on} is not below version {c.version}")
    found += _within(c.load_ratio, 0, 100, "load_ratio")
    return found + policy_mistakes(c.policy) + remedy_mistakes(c)


def _directive(d: OperatorDirective) -> list[str]:
    found = [
        *_matching(SOURCE, d.directive_id, "directive_id"),
        *([] if d.primary_region is None else _region(d.primary_region, "primary_region")),
        *([] if d.region is None else _region(d.region, "region")),
        *_within(d.expires_at_ms, 0, AT_MS_MAX, "expires_at_ms"),
    ]
    if d.kind not in list(Directive):
        return [*found, f"kind {d.kind[:40]!r} is unknown: one of {', '.join(Directive)}"]
    if d.kind == Directive.PIN and d.primary_region is None:
        found.append("a pin names its primary_region")
    if d.kind == Directive.EXECUTED and (d.primary_region is None or d.primary_region == d.region):
        found.append("executed names the primary_region whose traffic was moved, and another region")
    if (d.region is None) == (d.kind in (Directive.PIN, Directive.DRAIN, Directive.EXECUTED)):
        found.append(f"{d.kind} {'names a region' if d.region is None else 'names no region'}")
    for name, most in (("author", 128), ("reason", 1000)):
        value = getattr(d, name)
        if not value.strip() or len(value) > most:
            found.append(f"{name} must be said, in {most} characters at most")
    return found


def policy_mistakes(p: Policy) -> list[str]:
    """Everything wrong with a policy: each number finite and in range, each `good` on the good side of its `bad`."""
    found: list[str] = []
    for spec in fields(p):
        value = getattr(p, spec.name)
        if isinstance(value, int | float) and not (value == 0 or 1e-9 <= value <= 1e15):  # false for NaN too
            found.append(f"policy.{spec.name} is {value:g}, not 0 or a number of 1e-9 to 1e15")
    for low, high in (
        ("latency_good_ms", "latency_bad_ms"),
        ("loss_good_ratio", "loss_bad_ratio"),
        ("delay_variation_good_ms", "delay_variation_bad_ms"),
        ("bandwidth_bad_bps", "bandwidth_good_bps"),
        ("fast_tau_ms", "slow_tau_ms"),
    ):
        if not 0 < getattr(p, low) < getattr(p, high):
            found.append(f"policy.{low} must be above 0 and below policy.{high}")
    for name in ("utility_floor", "pessimistic_utility"):
        if not 0 < getattr(p, name) <= 1:
            found.append(f"policy.{name} must be above 0, 1 at most")
    for name in ("stale_after_ms", "heartbeat_ms", "down_after_probes", "confidence_samples", "proximity_scale_km",
                 "prediction_every_ms", "prediction_horizon_ms", "publish_ranks", "quorum_ratio",
                 "ejection_forgive_ms", "disruption_ticks", "readiness_stale_after_ms",
                 "readiness_stale_ratio"):  # fmt: skip
        if getattr(p, name) <= 0:
            found.append(f"policy.{name} must be above 0")
    taus = ("fast_tau_ms", "slow_tau_ms")
    found += [f"policy.{n} must be 1 ms to a day" for n in taus if not 1 <= getattr(p, n) <= TTL_MS_MAX]
    shares = [spec.name for spec in fields(p) if spec.name.endswith(("_exponent", "_ratio"))]
    found += [f"policy.{n} must be 100 at most" for n in shares if getattr(p, n) > 100]
    if not 0 <= p.prediction_weight <= 100:
        found.append("policy.prediction_weight must be 0 to 100")
    if not 0 < p.alarm_probability <= 1:
        found.append("policy.alarm_probability must be above 0, 1 at most")
    if not 0 <= p.shared_risk_weight < 1:
        found.append("policy.shared_risk_weight must be 0 to below 1")
    if p.latency_exponent + p.loss_exponent <= 0:
        found.append("policy.latency_exponent and policy.loss_exponent cannot both be 0")
    return found + _hold_down_mistakes(p)


def _hold_down_mistakes(p: Policy) -> list[str]:
    """Of what says when a target moves: who must agree, how long, and what is waited for."""
    shares = ("quorum_ratio", "fresh_ratio_min", "sure_ratio", "readiness_stale_ratio")
    found = [f"policy.{name} must be 1 at most" for name in shares if getattr(p, name) > 1]
    pairs = (("dwell_min_ms", "dwell_ms"), ("ejection_base_ms", "ejection_max_ms"),
             ("readiness_stale_after_ms", "readiness_forget_ms"))  # fmt: skip
    found += [f"policy.{a} must not be above policy.{b}" for a, b in pairs if getattr(p, a) > getattr(p, b)]
    if p.failback not in list(Failback):
        found.append(f"policy.failback {p.failback[:40]!r} is unknown: one of {', '.join(Failback)}")
    return found + [m for agent in p.must_be_healthy for m in _matching(AGENT_ID, agent, "policy.must_be_healthy")]


@lru_cache(maxsize=4096)
def _targets(regions: tuple[str, ...]) -> tuple[str, ...]:
    """Of a primary they are the same at every tick."""
    return tuple(m for region in regions for m in _region(region, "target"))


def _graph_update(u: GraphUpdate) -> list[str]:
    found = [*_region(u.primary_region, "primary_region"), *_targets(tuple(u.targets))]
    found += [] if u.target_region is None else _region(u.target_region, "target_region")
    found += [m for a in (*u.agents, *u.silent_agents) for m in _matching(AGENT_ID, a, "agent")]
    found += [m for route in u.routes for m in _region(route.region_id, "routes")]
    try:
        u.columns()
    except ValueError as error:
        found.append(str(error))
    return found


def _verdict(v: NetworkVerdict) -> list[str]:
    found = [*_region(v.primary_region, "primary_region"), *_within(v.stale_after_ms, 1, TTL_MS_MAX, "stale_after_ms")]
    healths = [str(health) for health in Health if health is not Health.BLIND]
    if v.health not in healths:
        found.append(f"health {v.health[:40]!r} is unknown: one of {', '.join(healths)}")
    for shared in v.shared:
        found += _within(shared.share_ratio, 0, 1, f"shared: {shared.region_id[:80]}: share_ratio")
    for allotment in v.allotments:
        found += _within(allotment.free_ratio, 0, 1, f"allotments: {allotment.region_id[:80]}: free_ratio")
    return found


_CHECKS: Final[dict[type, Callable[[Any], list[str]]]] = {
    ProbeBatch: lambda b: _probe_batch(b) + columns_mistakes(b),
    BandwidthMeasurement: _bandwidth,
    AgentHealth: _agent_health,
    InjectedMetric: _injected,
    RegionCatalog: _catalog,
    FailoverConfiguration: _configuration,
    OperatorDirective: _directive,
    PathAction: path_action,
    ActionResult: action_result,
    RouteEvent: _route_event,
    GraphUpdate: _graph_update,
    NetworkVerdict: _verdict,
    ReadinessReport: _readiness_report,
}
