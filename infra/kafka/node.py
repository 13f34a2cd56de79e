"""One node of a cluster of ours: its folder, and what its broker is told."""

from __future__ import annotations

import base64
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient

from infra.kafka.guard import Guard
from infra.kafka.jars import KafkaHome
from infra.processes import ChildProcess


@dataclass(slots=True)
class Node:
    """Where it listens, where its files are, and what runs of it."""

    node_id: int
    port: int
    controller_port: int
    broker_port: int  # of a guarded one, for brokers among themselves
    rack: str
    data_dir: Path
    config: Path
    log_path: Path
    process: ChildProcess | None = None
    guard: Guard | None = None
    # Made with the process and asked at its own port: the others still name a killed node for a session.
    admin: AdminClient | None = None

    def format(self, home: KafkaHome, cluster_id: str) -> None:
        """What `kafka-storage format` does to an empty folder, without its JVM (see jars.py); never to one in use."""
        identity = self.data_dir / "meta.properties"
        if identity.exists():
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(home.bootstrap_checkpoint, self.data_dir / "bootstrap.checkpoint")
        identity.write_text(
            f"version=1\ncluster.id={cluster_id}\nnode.id={self.node_id}\ndirectory.id={kafka_uuid()}\n"
        )

    def properties(self, nodes: Sequence[Node], overrides: Mapping[str, str]) -> str:
        """Its configuration file, beside these nodes, itself among them; `overrides` win over ours."""
        replicas = len(nodes)
        # Of three, two must have a record before it is confirmed: one may die and nothing is lost and all goes on.
        in_sync_min = min(2, replicas)
        voters = ",".join(f"{n.node_id}@127.0.0.1:{n.controller_port}" for n in nodes)
        guarded = self.guard.settings(self.port, self.broker_port, self.controller_port) if self.guard else {}
        settings: dict[str, str | int | Path] = {
            "process.roles": "broker,controller",
            "node.id": self.node_id,
            "broker.rack": self.rack,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": self.data_dir,
            # Topics are made from schemas/topics.py, with their settings; a typing error must not make another.
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync_min,
            # Internal topics: few partitions, as each costs a log on disk and time at a takeover.
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync_min,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync_min,
            "share.coordinator.state.topic.num.partitions": 4,
            # A group starts with its first member, and may notice a dead one soon.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 2000,
            # How soon the others notice a dead broker, and elect another controller.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            "controller.quorum.election.timeout.ms": 500,
            "controller.quorum.election.backoff.max.ms": 300,
            "controller.quorum.fetch.timeout.ms": 1000,
            "controller.quorum.request.timeout.ms": 1000,
            # By default the compactor alone takes a quarter of our heap.
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            **guarded,
            **overrides,
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())


def existing_cluster_id(nodes: Sequence[Node]) -> str | None:
    """The cluster's that these nodes were before; None: they are new."""
    for node in nodes:
        identity = node.data_dir / "meta.properties"
        for line in identity.read_text().splitlines() if identity.exists() else ():
            if line.startswith("cluster.id="):
                return line.partition("=")[2]
    return None


def kafka_uuid() -> str:
    """Kafka's way to write a UUID: base64, and no hyphen in front, where it would look like an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
