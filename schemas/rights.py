"""What each role may do on Kafka: the one table that access lists are made from, and that start-up checks ask for.

Kafka's rights are per topic and not per record, so topics differ by who may write them: whoever may inject metrics
cannot forge probe samples, change configuration or publish a ranking. To read or write a topic includes to describe it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from schemas.topics import TOPICS

Kind = Literal["TOPIC", "GROUP", "CLUSTER"]

# Who may do one of these may do that too.
_IMPLY: Final[Mapping[str, tuple[str, ...]]] = {
    "DESCRIBE": ("READ", "WRITE", "DELETE", "ALTER"),
    "DESCRIBE_CONFIGS": ("ALTER_CONFIGS",),
}
# What people look at. Not the engines' snapshots, which only engines need.
_TO_BE_READ: Final = tuple(name for name in TOPICS if name != "engine-snapshots")
_FOR_SUBSCRIBERS: Final = (
    "failover-rankings", "path-weights", "disruption-predictions", "prediction-scorecards", "network-graph",
    "network-verdicts", "readiness-requests", "path-actions",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rights:
    """One row: topics by their names in the table, groups by how their names begin; a prefix stands before all."""

    does: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    sees_groups: tuple[str, ...] = ()  # their offsets, without being a member
    sees_settings: tuple[str, ...] = ()  # of topics
    administers: bool = False

    @property
    def topics(self) -> tuple[str, ...]:
        """All that it has to do with."""
        return tuple(dict.fromkeys((*self.reads, *self.writes)))


class Grant(NamedTuple):
    """One allowed operation; `is_prefix`: on everything whose name begins so."""

    kind: Kind
    name: str
    operation: str
    is_prefix: bool = False

    def touches(self, topic: str) -> bool:
        """Whether it is about this topic, among others maybe."""
        if self.kind != "TOPIC":
            return False
        return topic.startswith(self.name) if self.is_prefix else self.name in (topic, "*")


# Whoever writes these decides where traffic goes.
DECISIVE: Final = (
    "failover-config", "observations", "graph-updates", "network-verdicts", "engine-snapshots", "failover-rankings",
    "path-actions",
)  # fmt: skip


def _sink(does: str, group: str, *reads: str) -> Rights:
    # A group of its own kind: who may join another's could take its partitions, or commit past what it has not done.
    return Rights(does, reads, ("dead-letters",), (group,))


RIGHTS: Final[Mapping[str, Rights]] = {
    "probe": Rights("sends what a probe agent measures", writes=("probe-samples",)),
    "routes": Rights("tells routes' changes", ("failover-config",), ("bgp-events",)),
    "readiness": Rights("checks targets", ("failover-config", "readiness-requests"), ("readiness-reports",)),
    "injector": Rights("injects metrics by topic", writes=("injected-metrics",)),
    "gateway": Rights("takes metrics and serves rankings by HTTP", ("failover-rankings",), ("injected-metrics",)),
    "intake": Rights(
        "makes the journal",
        ("probe-samples", "bgp-events", "readiness-reports", "injected-metrics", "failover-config", "action-results",
         "network-verdicts"),
        ("probe-samples", "observations", "graph-updates", "dead-letters"),
        ("proxima-intake",),
    ),
    "decide": Rights(
        "folds the journal into rankings",
        ("observations", "engine-snapshots", "failover-rankings"),
        ("observations", "engine-snapshots", "engine-checkpoints", "path-weights", "disruption-predictions",
         "prediction-scorecards", "readiness-requests", "failover-rankings", "graph-updates", "dead-letters"),
        ("proxima-decide",),
    ),
    "overview": Rights(
        "looks at the whole network",
        ("graph-updates", "engine-snapshots"),
        ("graph-updates", "engine-snapshots", "engine-checkpoints", "network-verdicts", "network-graph",
         "path-actions", "dead-letters"),
        ("proxima-overview",),
    ),
    "actuators": Rights(
        "does what remedies ask for",
        ("path-actions", "failover-config"),
        ("action-results", "dead-letters"),
        ("proxima-actuators-",),
    ),
    "sink": _sink("keeps the latest, or all, or tells others", "proxima-sink-", "failover-rankings"),
    "store": _sink("keeps history", "proxima-store-", "path-weights", "failover-rankings", "failover-config"),
    "subscriber": Rights("follows decisions and what they come from", _FOR_SUBSCRIBERS, groups=("subscriber-",)),
    "operator": Rights(
        "configures, directs, explains, replays",
        _TO_BE_READ,
        ("failover-config",),
        sees_groups=("proxima-",),
        sees_settings=tuple(TOPICS),
    ),
    "admin": Rights("creates topics, grants rights, asks the doctor", tuple(TOPICS), administers=True,
                    sees_groups=("proxima-",), sees_settings=tuple(TOPICS)),
}  # fmt: skip

# One principal for all stages of a worker, where nobody minds that intake's could publish a ranking.
STAGES: Final = ("intake", "decide", "overview")


def grants(role: str, prefix: str = "") -> Iterator[Grant]:
    """The role's rights on a cluster, each once; raises KeyError for a role that the table does not have."""
    if role == "worker":
        yield from dict.fromkeys(grant for stage in STAGES for grant in grants(stage, prefix))
        return
    rights = RIGHTS[role]
    yield from (Grant("TOPIC", prefix + name, "READ") for name in rights.reads)
    yield from (Grant("TOPIC", prefix + name, "WRITE") for name in rights.writes)
    for name in rights.sees_settings:
        yield Grant("TOPIC", prefix + name, "DESCRIBE_CONFIGS")
        if name not in rights.topics:
            yield Grant("TOPIC", prefix + name, "DESCRIBE")
    yield from (Grant("GROUP", prefix + begin, "READ", is_prefix=True) for begin in rights.groups)
    yield from (Grant("GROUP", prefix + begin, "DESCRIBE", is_prefix=True) for begin in rights.sees_groups)
    if rights.administers:
        for operation in ("CREATE", "DELETE", "ALTER", "ALTER_CONFIGS"):
            yield from (Grant("TOPIC", prefix + name, operation) for name in TOPICS)
        for operation in ("CREATE", "DELETE", "DESCRIBE", "WRITE"):  # the doctor's own, by which it asks the time
            yield Grant("TOPIC", f"{prefix}proxima-doctor-", operation, is_prefix=True)
        for operation in ("ALTER", "DESCRIBE"):  # access lists
            yield Grant("CLUSTER", "kafka-cluster", operation)


def holders(needed: Iterable[Grant]) -> tuple[str, ...]:
    """Roles that have all of these rights on a cluster, whatever prefix stands before its names."""
    wanted = tuple(needed)
    return tuple(role for role in roles() if all(any(_covers(has, each) for has in grants(role)) for each in wanted))


def _covers(has: Grant, needed: Grant) -> bool:
    # No topic's name ends with another's, and a group's begins with a kind's.
    is_it = has.name in needed.name if has.is_prefix else needed.name.endswith(has.name)
    return has.kind == needed.kind and is_it and has.operation in (needed.operation, *_IMPLY.get(needed.operation, ()))


def roles() -> tuple[str, ...]:
    """Every name that `grants` takes."""
    return (*RIGHTS, "worker")
