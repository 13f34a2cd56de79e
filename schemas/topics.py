"""The one table of topics: create them from it, never by auto-creation.

A prefix (`named("replay-1-", topic)`) puts a whole second pipeline beside the first. Every topic has append time by
the broker (`LogAppendTime`): time in Proxima is never an agent's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from schemas.records import (
    ActionResult,
    AgentHealth,
    BandwidthMeasurement,
    DeadLetter,
    DisruptionPrediction,
    EngineChanged,
    FailoverConfiguration,
    FailoverRanking,
    GraphUpdate,
    InjectedMetric,
    ModelWarmed,
    NetworkGraphNode,
    NetworkVerdict,
    Observation,
    OperatorDirective,
    PathAction,
    PathWeights,
    PredictionScorecard,
    ProbeBatch,
    ReadinessReport,
    ReadinessRequest,
    RegionCatalog,
    RemedyReport,
    RouteEvent,
    Snapshot,
    Tick,
)

_HOUR_MS: Final = 3600 * 1000
_DAY_MS: Final = 24 * _HOUR_MS
_MIB: Final = 1 << 20
PARTITIONS: Final = 12
# Kafka's own default (1 MiB and a batch's overhead); what holds other records in itself takes more.
MESSAGE_BYTES_MAX: Final = _MIB + 12
# The journal holds a whole flush of a primary, or a forwarded record of the largest size in its envelope.
JOURNAL_BYTES_MAX: Final = 8 * _MIB


@dataclass(frozen=True, slots=True)
class Topic:
    """One row: `key` says in words what a record's key is, `records` what may stand in it, `written_by` who may."""

    name: str
    key: str
    records: tuple[type, ...]
    retention_ms: int
    written_by: str
    partitions: int = PARTITIONS
    cleanup: str = "delete"
    max_message_bytes: int = MESSAGE_BYTES_MAX
    min_compaction_lag_ms: int = 0
    takes_json: bool = False

    def settings(self) -> dict[str, str]:
        """The topic's configuration in Kafka's own words."""
        found = {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime",
        }
        if self.min_compaction_lag_ms:
            found["min.compaction.lag.ms"] = str(self.min_compaction_lag_ms)
        return found


_TABLE: Final = (
    Topic("probe-samples", "agent", (ProbeBatch, BandwidthMeasurement, AgentHealth, Tick), 7 * _DAY_MS,
          "probe agents, metronomes"),
    Topic("bgp-events", "agent", (RouteEvent,), 7 * _DAY_MS, "route monitors"),
    Topic("readiness-reports", "primary", (ReadinessReport,), 7 * _DAY_MS, "readiness probers"),
    Topic("injected-metrics", "primary", (InjectedMetric,), 7 * _DAY_MS, "anyone allowed to", takes_json=True),
    Topic("failover-config", "primary, or `regions`, or `directive/ID`",
          (FailoverConfiguration, RegionCatalog, OperatorDirective), -1, "operators", takes_json=True),
    Topic("action-results", "primary", (ActionResult,), 30 * _DAY_MS, "actuators"),
    Topic("network-verdicts", "primary", (NetworkVerdict,), 7 * _DAY_MS, "overview"),
    Topic("observations", "primary", (Observation, Tick, EngineChanged, ModelWarmed), 90 * _DAY_MS, "intake, decide",
          max_message_bytes=JOURNAL_BYTES_MAX),
    Topic("graph-updates", "primary, or as on `failover-config`", (GraphUpdate, Observation, Tick, EngineChanged),
          30 * _DAY_MS, "decide, intake, overview", partitions=1,
          max_message_bytes=JOURNAL_BYTES_MAX),
    Topic("engine-snapshots", "primary, `_shared` or `graph`", (Snapshot,), -1, "decide, overview", cleanup="compact",
          max_message_bytes=JOURNAL_BYTES_MAX),
    Topic("engine-checkpoints", "primary, `_shared` or `graph`", (Snapshot,), 90 * _DAY_MS, "decide, overview",
          max_message_bytes=JOURNAL_BYTES_MAX),
    Topic("path-weights", "primary", (PathWeights,), 7 * _DAY_MS, "decide"),
    Topic("disruption-predictions", "primary", (DisruptionPrediction,), 7 * _DAY_MS, "decide"),
    Topic("prediction-scorecards", "primary", (PredictionScorecard,), 90 * _DAY_MS, "decide"),
    Topic("readiness-requests", "primary", (ReadinessRequest,), _DAY_MS, "decide"),
    Topic("path-actions", "primary", (PathAction, RemedyReport), 30 * _DAY_MS, "overview"),
    Topic("failover-rankings", "primary", (FailoverRanking,), 30 * _DAY_MS, "decide", cleanup="compact,delete",
          min_compaction_lag_ms=7 * _DAY_MS),
    Topic("network-graph", "region", (NetworkGraphNode,), -1, "overview", cleanup="compact"),
    Topic("dead-letters", "source topic", (DeadLetter,), 30 * _DAY_MS, "intake, decide, overview, sinks",
          max_message_bytes=JOURNAL_BYTES_MAX + 64 * 1024),
)  # fmt: skip
TOPICS: Final = {t.name: t for t in _TABLE}


def named(prefix: str, name: str) -> str:
    """A topic's name on the cluster; raises KeyError for one that the table does not have."""
    return prefix + TOPICS[name].name


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int = PARTITIONS) -> int:
    """The partition that Java's default partitioner (murmur2) gives the key; librdkafka calls it murmur2_random."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """Kafka's variant of Austin Appleby's MurmurHash2 (org.apache.kafka.common.utils.Utils.murmur2), 32 bits."""
    mask, m, length = 0xFFFFFFFF, 0x5BD1E995, len(data)
    h = (0x9747B28C ^ length) & mask
    for at in range(0, length - 3, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[length & ~3 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)
