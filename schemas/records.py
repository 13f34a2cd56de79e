"""The records of `avsc/` as frozen dataclasses: same names, same order of fields, same defaults.

Units stand in the names (`_ms`, `_us`, `_bps`, `_ratio`; `_at_ms` is Unix time). What a field means is said once, in
its schema's `doc`. Packed columns (ProbeBatch, PathPanes) are little-endian; `COLUMNS` names their types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum, StrEnum
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Outcome(IntEnum):
    """How a probe ended. NOT_SENT and SUSPECT are the agent's own failures, never a path's loss."""

    ANSWERED = 0
    TIMED_OUT = 1
    REFUSED = 2
    UNREACHABLE = 3
    NOT_SENT = 4
    SUSPECT = 5


class Reason(StrEnum):
    """Why a record became a dead letter."""

    MALFORMED = "MALFORMED"
    UNKNOWN_SCHEMA = "UNKNOWN_SCHEMA"
    WRONG_RECORD = "WRONG_RECORD"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    FROM_THE_FUTURE = "FROM_THE_FUTURE"
    TOO_LATE = "TOO_LATE"
    UNKNOWN_REGION = "UNKNOWN_REGION"
    FOREIGN_AGENT = "FOREIGN_AGENT"
    TOO_LARGE = "TOO_LARGE"
    UNASKED = "UNASKED"
    FOLD_ERROR = "FOLD_ERROR"
    REGISTRY_NOT_CONFIGURED = "REGISTRY_NOT_CONFIGURED"
    NOT_DELIVERED = "NOT_DELIVERED"


class Mode(StrEnum):
    """How far a ranking can be trusted."""

    NORMAL = "NORMAL"
    THIN = "THIN"
    PANIC = "PANIC"


class Advice(StrEnum):
    """What the primary's own health asks for."""

    HOLD = "HOLD"
    PREPARE = "PREPARE"
    FAIL_OVER = "FAIL_OVER"


class Event(StrEnum):
    """Why a ranking was published."""

    TARGET_CHANGED = "TARGET_CHANGED"
    TARGET_RESTORED = "TARGET_RESTORED"
    ORDER_CHANGED = "ORDER_CHANGED"
    ELIGIBILITY_CHANGED = "ELIGIBILITY_CHANGED"
    MODE_CHANGED = "MODE_CHANGED"
    ADVICE_CHANGED = "ADVICE_CHANGED"
    SCORE_MOVED = "SCORE_MOVED"
    CONFIG_ACCEPTED = "CONFIG_ACCEPTED"
    CONFIG_REJECTED = "CONFIG_REJECTED"
    DIRECTIVE_ACCEPTED = "DIRECTIVE_ACCEPTED"
    DIRECTIVE_REJECTED = "DIRECTIVE_REJECTED"
    DIRECTIVE_ENDED = "DIRECTIVE_ENDED"
    AGENTS_CHANGED = "AGENTS_CHANGED"
    PREDICTION_WARMED = "PREDICTION_WARMED"
    PREDICTION_TRUSTED = "PREDICTION_TRUSTED"
    PREDICTION_DISTRUSTED = "PREDICTION_DISTRUSTED"
    SOURCE_DISTRUSTED = "SOURCE_DISTRUSTED"
    SOURCE_OVER_RATE = "SOURCE_OVER_RATE"
    GAP = "GAP"
    HEARTBEAT = "HEARTBEAT"


class Directive(StrEnum):
    """What an operator may order."""

    PIN = "pin"
    DRAIN = "drain"
    FREEZE = "freeze"
    STOP_ACTIONS = "stop-actions"
    EXECUTED = "executed"


class Health(StrEnum):
    """How a primary is, as observers in other regions see it together; BLIND is one observer's own."""

    UP = "UP"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"
    UNKNOWN = "UNKNOWN"
    BLIND = "BLIND"


class FaultKind(StrEnum):
    """Whose fault it is that paths are bad."""

    PATH = "PATH"
    TARGET_ACCESS = "TARGET_ACCESS"
    PRIMARY_ACCESS = "PRIMARY_ACCESS"
    AGENT = "AGENT"
    TRANSIT = "TRANSIT"


class RemedyKind(StrEnum):
    """What a remedy does to a path, the least disruptive first."""

    LINK = "LINK"
    LOCAL_PREFERENCE = "LOCAL_PREFERENCE"
    AS_PATH_PREPEND = "AS_PATH_PREPEND"
    BANDWIDTH = "BANDWIDTH"


class Operation(StrEnum):
    """What an actuator is asked for; both set a state."""

    APPLY = "APPLY"
    ROLL_BACK = "ROLL_BACK"


class ActionOutcome(StrEnum):
    """What became of an action; `avsc/ActionResult.avsc` explains each."""

    STARTED = "STARTED"
    APPLIED = "APPLIED"
    ALREADY = "ALREADY"
    DRY_RUN = "DRY_RUN"
    REFUSED = "REFUSED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"


class RemedyEvent(StrEnum):
    """Why a RemedyReport was published."""

    STARTED = "STARTED"
    APPLIED = "APPLIED"
    NOT_APPLIED = "NOT_APPLIED"
    VERIFIED = "VERIFIED"
    NOT_HELPED = "NOT_HELPED"
    REVERTING = "REVERTING"
    WITHDRAWN = "WITHDRAWN"
    STRANDED = "STRANDED"
    BREAKER_OPENED = "BREAKER_OPENED"
    CAPPED = "CAPPED"
    STOPPED = "STOPPED"
    UNMENDED = "UNMENDED"


class RouteChange(StrEnum):
    """What a RouteEvent says; `avsc/RouteEvent.avsc` explains each."""

    REACHABLE = "REACHABLE"
    PATH_CHANGED = "PATH_CHANGED"
    WITHDRAWN = "WITHDRAWN"
    PEER_UP = "PEER_UP"
    PEER_DOWN = "PEER_DOWN"
    ROUTER_LOST = "ROUTER_LOST"
    CHURN = "CHURN"
    ALIVE = "ALIVE"


class View(StrEnum):
    """Which of a router's tables a route is in (RFC 7854, RFC 9069)."""

    PRE_POLICY = "pre-policy"
    POST_POLICY = "post-policy"
    LOC_RIB = "loc-rib"


class Failback(StrEnum):
    """When a target that was left because it failed may be chosen again."""

    IMMEDIATE = "immediate"
    DELAYED = "delayed"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class ProbeBatch:
    """Everything one agent measured in one tick; see `of` for columns as arrays."""

    COLUMNS: ClassVar = {
        "target_index": "<u2",
        "method_index": "u1",
        "sent_offset_ms": "<f4",
        "rtt_ms": "<f4",
        "outcome": "u1",
        "code": "u1",
    }

    agent_id: str
    primary_region: str
    started_at_ms: int
    targets: list[str]
    methods: list[str]
    target_index: bytes
    method_index: bytes
    sent_offset_ms: bytes
    rtt_ms: bytes
    outcome: bytes
    code: bytes

    @classmethod
    def of(
        cls,
        *,
        agent_id: str,
        primary_region: str,
        started_at_ms: int,
        targets: list[str],
        methods: list[str],
        **columns: npt.ArrayLike,
    ) -> ProbeBatch:
        """Pack columns, arrays of shape (probes,) by the names in `COLUMNS`; raises KeyError when one is missing."""
        packed = {name: np.asarray(columns[name], dtype).tobytes() for name, dtype in cls.COLUMNS.items()}
        return cls(agent_id, primary_region, started_at_ms, targets, methods, **packed)

    def columns(self) -> dict[str, Array]:
        """The columns as read-only arrays of shape (probes,); ValueError when bytes are no whole number of them."""
        return {name: np.frombuffer(getattr(self, name), dtype) for name, dtype in self.COLUMNS.items()}


@dataclass(frozen=True, slots=True)
class BandwidthMeasurement:
    agent_id: str
    primary_region: str
    target_region: str
    observed_at_ms: int
    bandwidth_bps: float
    uncertainty_ratio: float
    bytes_sent: int


@dataclass(frozen=True, slots=True)
class AgentHealth:
    agent_id: str
    primary_region: str
    observed_at_ms: int
    stalled_ms: float
    not_sent: int
    dropped_batches: int


@dataclass(frozen=True, slots=True)
class Tick:
    appended_by: str


@dataclass(frozen=True, slots=True)
class InjectedMetric:
    primary_region: str
    target_region: str | None
    metric: str
    value: float
    source: str
    observed_at_ms: int
    ttl_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class HealthEndpoint:
    url: str
    expected_status: int = 200
    tls_name: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    region_id: str
    latitude: float
    longitude: float
    name: str = ""
    capacity_ratio: float = 1.0
    prefixes: list[str] = field(default_factory=list, hash=False)
    providers: list[str] = field(default_factory=list, hash=False)
    risk_groups: list[str] = field(default_factory=list, hash=False)
    health: list[HealthEndpoint] = field(default_factory=list, hash=False)
    agents: list[str] = field(default_factory=list, hash=False)


@dataclass(frozen=True, slots=True)
class RegionCatalog:
    version: int
    regions: list[Region]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a primary's decisions follow; each default is argued in `avsc/FailoverConfiguration.avsc`."""

    latency_good_ms: float = 20.0
    latency_bad_ms: float = 1000.0
    loss_good_ratio: float = 0.037
    loss_bad_ratio: float = 0.22
    delay_variation_good_ms: float = 50.0
    delay_variation_bad_ms: float = 300.0
    bandwidth_good_bps: float = 4e9
    bandwidth_bad_bps: float = 1e8
    utility_floor: float = 0.02
    latency_exponent: float = 1.0
    loss_exponent: float = 1.0
    delay_variation_exponent: float = 0.02
    bandwidth_exponent: float = 0.25
    baseline_exponent: float = 0.5
    proximity_scale_km: float = 4000.0
    fast_tau_ms: float = 7300.0
    slow_tau_ms: float = 140000.0
    confidence_samples: float = 3.0
    pessimistic_utility: float = 0.2
    stale_after_ms: int = 10000
    down_after_probes: int = 3
    quorum_ratio: float = 0.51
    must_be_healthy: list[str] = field(default_factory=list, hash=False)
    fresh_ratio_min: float = 0.5
    eligible_min: int = 1
    margin_ratio: float = 0.004
    sure_ratio: float = 0.9
    dwell_ms: int = 5000
    dwell_min_ms: int = 3000
    failback: str = "delayed"
    failback_delay_ms: int = 30000
    ejection_base_ms: int = 30000
    ejection_max_ms: int = 600000
    ejection_forgive_ms: int = 300000
    heartbeat_ms: int = 10000
    publish_score_delta_ratio: float = 0.1
    publish_ranks: int = 10
    prediction_every_ms: int = 10000
    prediction_horizon_ms: int = 30000
    disruption_loss_ratio: float = 0.05
    disruption_latency_ratio: float = 1.5
    disruption_latency_excess_ms: float = 10.0
    disruption_ticks: int = 2
    prediction_weight: float = 0.5
    alarm_probability: float = 0.25
    shared_risk_weight: float = 0.1
    readiness_stale_after_ms: int = 30000
    readiness_stale_ratio: float = 0.9
    readiness_forget_ms: int = 600000


@dataclass(frozen=True, slots=True)
class Remedy:
    remedy_id: str
    target_region: str
    kind: str
    actuator: str
    value: float = 0.0
    cost: int | None = None
    gain_ms: float = 0.0
    gain_ratio: float = 0.2
    verify_within_ms: int = 30_000
    revert_after_ms: int = 1_800_000


@dataclass(frozen=True, slots=True)
class RemedyLimits:
    actions_max: int = 6
    region_actions_max: int = 4
    window_ms: int = 3_600_000
    act_within_ms: int = 10_000
    breaker_failures: int = 2
    breaker_open_ms: int = 600_000
    breaker_open_ms_max: int = 86_400_000


@dataclass(frozen=True, slots=True)
class FailoverConfiguration:
    primary_region: str
    potential_failover_regions: list[str]
    version: int
    weights: Mapping[str, float] = field(default_factory=dict)
    based_on: int = 0
    author: str = ""
    policy: Policy = field(default_factory=Policy)
    load_ratio: float = 0.0
    remedies: list[Remedy] = field(default_factory=list, hash=False)
    remedy_limits: RemedyLimits = field(default_factory=RemedyLimits)


@dataclass(frozen=True, slots=True)
class OperatorDirective:
    directive_id: str
    kind: str
    expires_at_ms: int
    author: str
    reason: str
    primary_region: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    region_id: str
    prefix: str
    as_path: list[int] = field(default_factory=list)
    as_path_length: int = 0
    previous_as_path_length: int | None = None


@dataclass(frozen=True, slots=True)
class RegionReach:
    region_id: str
    peers_left: int


@dataclass(frozen=True, slots=True)
class RouteEvent:
    agent_id: str
    primary_region: str
    observed_at_ms: int
    kind: str
    router: str
    peer: str
    peer_as: int
    view: str = View.PRE_POLICY.value
    routes: list[Route] = field(default_factory=list)
    regions: list[RegionReach] = field(default_factory=list)
    announced: int = 0
    withdrawn: int = 0
    over_ms: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    topic: str
    topic_id: str
    partition: int
    first_offset: int
    next_offset: int
    appended_at_ms: int = 0
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Observation:
    primary_region: str | None
    source: Source
    body: bytes


@dataclass(frozen=True, slots=True)
class PathPanes:
    """Samples condensed by intake: one row for each agent, target, method and pane."""

    ROWS: ClassVar = {
        "pane_at_ms": "<i8",
        "agent_index": "<u2",
        "target_index": "<u2",
        "method_index": "<u2",
        "outcomes": "<u4",
        "rtt_sum_us": "<i8",
        "rtt_min_us": "<u4",
        "buckets": "<u2",
    }
    ENTRIES: ClassVar = {"bucket": "<u2", "bucket_count": "<u4"}

    pane_ms: int
    agents: list[str]
    targets: list[str]
    methods: list[str]
    pane_at_ms: bytes
    agent_index: bytes
    target_index: bytes
    method_index: bytes
    outcomes: bytes
    rtt_sum_us: bytes
    rtt_min_us: bytes
    buckets: bytes
    bucket: bytes
    bucket_count: bytes

    def columns(self) -> dict[str, Array]:
        """Read-only arrays: (rows,), but `outcomes` (rows, 6), and (entries,) for `bucket` and `bucket_count`."""
        arrays = {n: np.frombuffer(getattr(self, n), d) for n, d in _PANES.items()}
        arrays["outcomes"] = arrays["outcomes"].reshape(-1, len(Outcome))
        return arrays


_PANES: Final = {n: np.dtype(d) for n, d in {**PathPanes.ROWS, **PathPanes.ENTRIES}.items()}


@dataclass(frozen=True, slots=True)
class EngineChanged:
    engine_version: str
    sequences: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    dtype: str
    shape: list[int]
    data: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    key: str
    engine_version: str
    journal_topic_id: str
    journal_partition: int
    next_offset: int
    scalars: str
    columns: list[Column]


@dataclass(frozen=True, slots=True)
class ModelWarmed:
    primary_region: str
    model: str
    since_ms: int
    until_ms: int
    targets: list[str]
    scalars: str
    columns: list[Column]


@dataclass(frozen=True, slots=True)
class PathWeight:
    """One path of `PathWeights`."""

    weight: float
    baseline_weight: float
    network_weight: float
    confidence: float
    latency_ms: float | None
    loss_ratio: float | None
    delay_variation_ms: float | None
    bandwidth_bps: float | None
    age_ms: float | None


@dataclass(frozen=True, slots=True)
class PathWeights:
    """Every path of a primary at a tick, in columns of equal length; None where nobody knows."""

    primary_region: str
    decided_at_ms: int
    evidence_at_ms: int
    targets: list[str]
    weight: list[float]
    baseline_weight: list[float]
    network_weight: list[float]
    confidence: list[float]
    latency_ms: list[float | None]
    loss_ratio: list[float | None]
    delay_variation_ms: list[float | None]
    bandwidth_bps: list[float | None]
    age_ms: list[float | None]

    def paths(self) -> dict[str, PathWeight]:
        """Each path by its target."""
        columns = [getattr(self, f.name) for f in fields(PathWeight)]
        return {target: PathWeight(*row) for target, *row in zip(self.targets, *columns, strict=True)}


@dataclass(frozen=True, slots=True)
class PathPrediction:
    target_region: str
    probability: float


@dataclass(frozen=True, slots=True)
class DisruptionPrediction:
    primary_region: str
    predicted_at_ms: int
    horizon_ms: int
    model: str
    influence: float
    labels_learnt: int
    paths: list[PathPrediction]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    probability: float
    hit_ratio: float
    outcomes: float


@dataclass(frozen=True, slots=True)
class PredictionScorecard:
    primary_region: str
    scored_at_ms: int
    model: str
    horizon_ms: int
    trust: str
    influence: float
    outcomes: float
    hits: float
    drifts: int
    drifted_at_ms: int | None = None
    brier: float | None = None
    brier_climatology: float | None = None
    skill: float | None = None
    skill_low: float | None = None
    auc_pooled: float | None = None
    auc_within: float | None = None
    calibration_error: float | None = None
    calibration: list[CalibrationBin] = field(default_factory=list)
    foretold_ratio: float | None = None
    lead_ms: float | None = None
    false_alarms_per_day: float | None = None


@dataclass(frozen=True, slots=True)
class ReadinessRequest:
    primary_region: str
    candidate_region: str
    target_region: str
    requested_at_ms: int
    expires_at_ms: int
    probability: float
    influence: float
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    metric: str
    from_value: float
    must_reach: float
    within_ms: int


@dataclass(frozen=True, slots=True)
class PathAction:
    action_id: str
    sequence: int
    primary_region: str
    target_region: str
    remedy_id: str
    kind: str
    operation: str
    actuator: str
    value: float
    planned_at_ms: int
    expires_at_ms: int
    config_version: int
    reason: str
    expected_gain: float = 0.0
    verification: Verification | None = None


@dataclass(frozen=True, slots=True)
class ActionResult:
    action_id: str
    primary_region: str
    remedy_id: str
    actuator: str
    operation: str
    outcome: str
    detail: str
    breaker: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class RemedyReport:
    sequence: int
    primary_region: str
    target_region: str
    remedy_id: str
    at_ms: int
    event: str
    phase: str
    breaker: str
    reason: str
    action_id: str | None = None
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class ReadinessCheck:
    name: str
    passed: bool
    reason: str
    endpoint: str = ""
    observed: float | None = None
    limit: float | None = None
    unit: str = ""
    took_ms: float = 0.0
    breaker: str = ""


@dataclass(frozen=True, slots=True)
class ReadinessReport:
    primary_region: str
    target_region: str
    agent_id: str
    observed_at_ms: int
    checks: list[ReadinessCheck]
    requested: bool = False
    config_version: int = 0

    @property
    def ready(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True, slots=True)
class Flip:
    metric: str
    from_value: float
    to_value: float


@dataclass(frozen=True, slots=True)
class Candidate:
    region_id: str
    rank: int
    score: float
    normalized_score: float
    baseline_weight: float
    network_weight: float
    readiness: float
    confidence: float
    eligible: bool
    predicted_disruption: float | None = None
    ineligible_reason: str | None = None
    suspicion_ratio: float = 0.0
    waits: bool = False
    contributions: Mapping[str, float] = field(default_factory=dict)
    flip: Flip | None = None


@dataclass(frozen=True, slots=True)
class DirectiveInForce:
    directive_id: str
    kind: str
    region: str | None
    expires_at_ms: int
    author: str
    reason: str


@dataclass(frozen=True, slots=True)
class FailoverRanking:
    decision_id: str
    sequence: int
    decided_at_ms: int
    evidence_at_ms: int
    primary_region: str
    mode: str
    advice: str
    events: list[str]
    reason: str
    config_version: int
    stale_after_ms: int
    order_confidence: float
    candidates: list[Candidate]
    target_region: str | None = None
    previous_target_region: str | None = None
    suspect_agents: list[str] = field(default_factory=list)
    directives: list[DirectiveInForce] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GraphRoute:
    region_id: str
    transits: list[int]


@dataclass(frozen=True, slots=True)
class GraphUpdate:
    """All paths of a primary at a moment; see `of` and `columns` for the packed columns as arrays."""

    COLUMNS: ClassVar = {
        "latency_ms": "<f4",
        "usual_latency_ms": "<f4",
        "delay_variation_ms": "<f4",
        "bandwidth_bps": "<f4",
        "loss_ratio": "<f4",
        "loss_now_ratio": "<f4",
        "weight": "<f4",
        "confidence": "<f4",
        "state": "u1",
    }
    FRESH: ClassVar = 1  # bits of `state`
    DOWN: ClassVar = 2
    ELIGIBLE: ClassVar = 4
    FORETOLD: ClassVar = 8

    primary_region: str
    sequence: int
    decided_at_ms: int
    targets: list[str]
    agents: list[str]
    silent_agents: list[str]
    latency_ms: bytes
    usual_latency_ms: bytes
    delay_variation_ms: bytes
    bandwidth_bps: bytes
    loss_ratio: bytes
    loss_now_ratio: bytes
    weight: bytes
    confidence: bytes
    state: bytes
    target_region: str | None = None
    says_routes: bool = False
    routes: list[GraphRoute] = field(default_factory=list)

    @classmethod
    def packed(cls, **columns: npt.ArrayLike) -> dict[str, Any]:
        """Columns by the names in `COLUMNS`, arrays of shape (targets,), as the record holds them."""
        return {name: np.asarray(columns[name], dtype).tobytes() for name, dtype in cls.COLUMNS.items()}

    def columns(self) -> dict[str, Array]:
        """The columns as read-only arrays of shape (targets,); ValueError when one does not fit the targets."""
        found = {name: np.frombuffer(getattr(self, name), dtype) for name, dtype in self.COLUMNS.items()}
        wrong = [name for name, column in found.items() if len(column) != len(self.targets)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} do not fit {len(self.targets)} targets")
        return found


@dataclass(frozen=True, slots=True)
class Observer:
    region_id: str
    sees: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    name: str
    confidence: float
    explained: int
    contradicting: int
    since_ms: int
    regions: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SharedRisk:
    region_id: str
    kind: str
    name: str
    share_ratio: float
    with_primary: bool = False


@dataclass(frozen=True, slots=True)
class Allotment:
    region_id: str
    free_ratio: float
    taken_by: list[str] = field(default_factory=list)
    counted_on_by: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NetworkVerdict:
    primary_region: str
    sequence: int
    decided_at_ms: int
    stale_after_ms: int
    health: str
    health_since_ms: int
    observers: list[Observer]
    reason: str
    faults: list[Fault] = field(default_factory=list)
    shared: list[SharedRisk] = field(default_factory=list)
    allotments: list[Allotment] = field(default_factory=list)
    executed_to: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkEdge:
    target_region: str
    weight: float
    confidence: float
    state: str
    latency_ms: float | None = None
    packet_loss_ratio: float | None = None
    delay_variation_ms: float | None = None
    bandwidth_bps: float | None = None


@dataclass(frozen=True, slots=True)
class NetworkGraphNode:
    region_id: str
    sequence: int
    decided_at_ms: int
    edges: list[NetworkEdge]
    latency_ms: float | None = None
    packet_loss_ratio: float | None = None
    bandwidth_bps: float | None = None
    weight: float | None = None
    confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    reason: str
    detail: str
    source_topic: str
    source_partition: int
    source_offset: int
    appended_at_ms: int
    found_by: str
    original: bytes
    original_key: bytes | None = None


Record = (
    ProbeBatch
    | BandwidthMeasurement
    | AgentHealth
    | Tick
    | RouteEvent
    | InjectedMetric
    | RegionCatalog
    | FailoverConfiguration
    | OperatorDirective
    | Observation
    | PathPanes
    | EngineChanged
    | ModelWarmed
    | Snapshot
    | PathWeights
    | DisruptionPrediction
    | PredictionScorecard
    | ReadinessRequest
    | PathAction
    | ActionResult
    | RemedyReport
    | ReadinessReport
    | FailoverRanking
    | GraphUpdate
    | NetworkVerdict
    | NetworkGraphNode
    | DeadLetter
)
RECORDS: Final[Mapping[str, type[Record]]] = {
    cls.__name__: cls
    for cls in (
        ProbeBatch,
        BandwidthMeasurement,
        AgentHealth,
        Tick,
        RouteEvent,
        InjectedMetric,
        RegionCatalog,
        FailoverConfiguration,
        OperatorDirective,
        Observation,
        PathPanes,
        EngineChanged,
        ModelWarmed,
        Snapshot,
        PathWeights,
        DisruptionPrediction,
        PredictionScorecard,
        ReadinessRequest,
        PathAction,
        ActionResult,
        RemedyReport,
        ReadinessReport,
        FailoverRanking,
        GraphUpdate,
        NetworkVerdict,
        NetworkGraphNode,
        DeadLetter,
    )
}
