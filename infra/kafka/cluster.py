"""Real brokers on this machine: started in seconds, killed and restarted at will, gone when we are.

    with KafkaCluster.start(nodes=3) as cluster:
        cluster.bootstrap               127.0.0.1:12001,127.0.0.1:12002,127.0.0.1:12003
        cluster.kill(2)                 kill -9
        cluster.restart(2)              same ports, same data

KRaft, each node broker and controller, on 127.0.0.1 only, one rack a node: what a cluster over three zones does when
a zone dies, three nodes here do too. Timeouts are those of such a cluster, shortened, as the brokers' settings
decide how long partitions pause after a kill (3 to 4.5 s against 8 to 9), and a client's hardly matter.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from infra.kafka.guard import Guard
from infra.kafka.jars import KafkaHome, kafka_home
from infra.kafka.node import Node, existing_cluster_id, kafka_uuid
from infra.processes import ChildProcess, free_ports, stop_all, wait_until
from schemas.connection import client_settings
from schemas.errors import KafkaUnavailableError, ProximaError

BOOTSTRAP_VARIABLE = "PROXIMA_KAFKA__BOOTSTRAP"
READY_TIMEOUT_S = 60.0
EXISTING_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 20.0

# 512 MB hold a broker of a test with room to spare; the serial collector needs the fewest threads and memory. Ours live
# for seconds or minutes, in which the optimising compiler takes more than it gives: without it, a start and a first set
# of topics take 2.5 s of CPU time instead of 4.5.
JAVA_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_ALWAYS = (
    "-XX:+ExitOnOutOfMemoryError",  # dead is a state that clients know; half alive is not
    "-XX:-UsePerfData",  # else a killed JVM leaves a file in /tmp
    "-Dlog4j2.level=INFO",
)


class Broker(Protocol):
    """Whatever can be connected to, ours or not."""

    @property
    def bootstrap(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ExistingCluster:
    """A cluster that somebody else runs: we never stop it."""

    bootstrap: str


@contextmanager
def existing_or_started(
    nodes: Literal[1, 3] = 1, *, data_dir: Path | None = None, log_dir: Path | None = None
) -> Iterator[Broker]:
    """The cluster of PROXIMA_KAFKA__BOOTSTRAP if that is set, else one of ours for as long as the context lasts.

    Raises KafkaUnavailableError: if the existing one does not answer, or none can be started.
    """
    bootstrap = os.environ.get(BOOTSTRAP_VARIABLE)
    if not bootstrap:
        with KafkaCluster.start(nodes, data_dir=data_dir, log_dir=log_dir) as cluster:
            yield cluster
        return
    admin = _admin(bootstrap)
    try:
        wait_until(lambda: _metadata(admin) is not None, EXISTING_TIMEOUT_S, f"a broker at {bootstrap}")
    except ProximaError as error:
        raise KafkaUnavailableError(
            str(error), where=BOOTSTRAP_VARIABLE, do="check the address, or unset it to have a broker started here"
        ) from None
    yield ExistingCluster(bootstrap)


class KafkaCluster:
    """One broker, or three in three racks; nodes are numbered from 1. Make one with `start`."""

    def __init__(
        self,
        home: KafkaHome,
        cluster_id: str,
        nodes: Sequence[Node],
        java_options: Sequence[str],
        remove: Path | None,
    ) -> None:
        self._home, self._cluster_id = home, cluster_id
        self._nodes = {node.node_id: node for node in nodes}
        self._java_options = (*_ALWAYS, *java_options)
        self._remove = remove

    @classmethod
    def start(
        cls,
        nodes: Literal[1, 3] = 1,
        *,
        data_dir: Path | None = None,
        log_dir: Path | None = None,
        racks: Sequence[str] = ("a", "b", "c"),
        overrides: Mapping[str, str] | None = None,
        java_options: Sequence[str] = JAVA_OPTIONS,
        guard: Guard | None = None,
    ) -> Self:
        """Start brokers and wait until every one of them serves.

        Without `data_dir` the data lives in a temporary folder and goes at `stop`; with it, a cluster that was
        there goes on (on new ports). `log_dir` is for the brokers' own logs, by default `data_dir`/logs.
        `overrides` are brokers' settings that win over ours. With a `guard` clients have to say who they are.
        Raises KafkaUnavailableError: if they do not come up; the message ends with their logs.
        """
        home = kafka_home()
        ports = free_ports(3 * nodes)
        base = data_dir.absolute() if data_dir is not None else Path(tempfile.mkdtemp(prefix="proxima-kafka-"))
        members = [
            Node(
                node_id=number,
                port=ports[3 * number - 3],
                controller_port=ports[3 * number - 2],
                broker_port=ports[3 * number - 1],
                guard=guard,
                rack=racks[number - 1],
                data_dir=base / f"node-{number}",
                config=base / f"node-{number}.properties",
                log_path=(log_dir or base / "logs") / f"kafka-{number}.log",
            )
            for number in range(1, nodes + 1)
        ]
        cluster_id = existing_cluster_id(members) or kafka_uuid()
        cluster = cls(home, cluster_id, members, java_options, base if data_dir is None else None)
        try:
            for node in members:
                node.format(home, cluster_id)
                node.config.write_text(node.properties(members, overrides or {}))
                cluster._start(node)
            cluster.wait_ready()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{node.port}" for node in self._nodes.values())

    @property
    def administration(self) -> str:
        """Of a guarded cluster: where its own certificate is the password."""
        return ",".join(f"127.0.0.1:{node.broker_port}" for node in self._nodes.values())

    @property
    def pids(self) -> dict[int, int]:
        """Process ids of the nodes that run."""
        return {node.node_id: node.process.pid for node in self._nodes.values() if node.process and node.process.alive}

    def kill(self, node: int) -> None:
        """`kill -9` one broker; returns when it is gone."""
        member = self._nodes[node]
        if member.process is not None:
            member.process.kill()
            member.process = member.admin = None

    def restart(self, node: int) -> None:
        """Start a killed broker on its ports and data, and wait until it serves again."""
        self.kill(node)
        self._start(self._nodes[node])
        self.wait_ready()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until the cluster says that every node that was not killed serves."""
        expected = {node.node_id for node in self._nodes.values() if node.process is not None}
        self._wait(
            lambda seen: expected <= set(seen.brokers),
            f"brokers {sorted(expected)} to serve at {self.bootstrap}",
            timeout_s,
        )

    def wait_in_sync(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every replica is in sync: before that, killing another node may make a partition unavailable."""
        self._wait(
            lambda seen: all(
                len(partition.isrs) == len(partition.replicas)
                for topic in seen.topics.values()
                for partition in topic.partitions.values()
            ),
            "every replica to be in sync",
            timeout_s,
        )

    def stop(self) -> None:
        """End all brokers, and remove the data if it was temporary. Stopping twice is fine."""
        processes = self._processes()
        if self._remove is None:
            stop_all(processes, STOP_TIMEOUT_S)
            return
        for process in processes:
            process.kill()  # nothing to close orderly in a folder that goes away
        shutil.rmtree(self._remove, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _processes(self) -> list[ChildProcess]:
        return [node.process for node in self._nodes.values() if node.process is not None]

    def _start(self, node: Node) -> None:
        argv = self._home.command("kafka.Kafka", node.config, java_options=self._java_options)
        node.process = ChildProcess.start(argv, name=f"kafka-{node.node_id}", log_path=node.log_path)
        node.admin = _admin(f"127.0.0.1:{node.broker_port if node.guard else node.port}", node.guard)

    def _wait(self, is_so: Callable[[ClusterMetadata], bool], what: str, timeout_s: float) -> None:
        """Wait until every running node itself says so."""

        def says_so(admin: AdminClient) -> bool:
            seen = _metadata(admin)
            # Another cluster may answer, while ours ends because its port is taken.
            return seen is not None and seen.cluster_id == self._cluster_id and is_so(seen)

        def all_say_so() -> bool:
            return all(says_so(node.admin) for node in self._nodes.values() if node.admin is not None)

        try:
            wait_until(all_say_so, timeout_s, what, children=self._processes())
        except ProximaError as error:
            raise KafkaUnavailableError(str(error)) from None


def _admin(bootstrap: str, guard: Guard | None = None) -> AdminClient:
    """A client that neither prints that a broker is not there yet nor waits long to try again.

    Keep a reference to it: a temporary one is collected, and its futures never resolve.
    """
    return AdminClient(
        {
            **client_settings(bootstrap),
            "log_level": 0,
            "error_cb": lambda _: None,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 100,
            **(guard.administrator() if guard is not None else {}),
        }
    )


def _metadata(admin: AdminClient) -> ClusterMetadata | None:
    try:
        return admin.list_topics(timeout=1.0)
    except KafkaException:
        return None
