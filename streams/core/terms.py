"""What the overview needs of a primary's configuration: compare-and-set, limits, load; and of its latest update."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from schemas.records import FailoverConfiguration, GraphUpdate, Policy

_DEFAULT = Policy()


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one primary; version 0: none is configured, and the defaults hold."""

    version: int = 0
    disruption_latency_ratio: float = _DEFAULT.disruption_latency_ratio
    disruption_latency_excess_ms: float = _DEFAULT.disruption_latency_excess_ms
    disruption_loss_ratio: float = _DEFAULT.disruption_loss_ratio
    quorum_ratio: float = _DEFAULT.quorum_ratio
    load_ratio: float = 0.0

    @classmethod
    def of(cls, configuration: FailoverConfiguration) -> Terms:
        """From a configuration."""
        policy = configuration.policy
        return cls(
            configuration.version,
            policy.disruption_latency_ratio,
            policy.disruption_latency_excess_ms,
            policy.disruption_loss_ratio,
            policy.quorum_ratio,
            configuration.load_ratio,
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """What a primary's latest update says beside its paths."""

    sequence: int
    decided_at_ms: int
    target_region: str | None
    target_since_ms: int
    agents: tuple[str, ...]
    silent_agents: tuple[str, ...]

    @classmethod
    def of(cls, update: GraphUpdate, before: Standing | None, now_ms: int) -> Standing:
        """After an update, and what was before it."""
        same = before is not None and before.target_region == update.target_region
        return cls(
            sequence=update.sequence,
            decided_at_ms=update.decided_at_ms,
            target_region=update.target_region,
            target_since_ms=before.target_since_ms if before is not None and same else now_ms,
            agents=tuple(update.agents),
            silent_agents=tuple(update.silent_agents),
        )

    def plain(self) -> dict[str, Any]:
        """For a snapshot."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Standing:
        """The same again."""
        lists = {name: tuple(plain[name]) for name in ("agents", "silent_agents")}
        return cls(**plain | lists)
