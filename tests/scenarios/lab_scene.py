"""A lab with everything that measures and decides: agents and route monitors in it, Kafka and the worker beside it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.kafka.admin import create_topics
from infra.kafka.cluster import Broker
from infra.kafka.reader import NOW, TopicReader
from infra.lab.lab import Lab
from infra.lab.spec import LabSpec
from infra.processes import ChildProcess
from producers.publisher import Publisher
from schemas.codec import decode
from schemas.records import FailoverConfiguration, FailoverRanking, Policy, RegionCatalog, Remedy, RemedyLimits

# Of each home, the candidates and the addresses that stand for them.
Paths = Mapping[str, Mapping[str, str]]


@contextmanager
def deciding(
    kafka: Broker,
    folder: Path,
    spec: LabSpec,
    paths: Paths,
    policy: Policy,
    *,
    probes_per_tick: int = 4,
    timeout_ms: int = 1000,
    routers: bool = True,
    remedies: Sequence[Remedy] = (),
    limits: RemedyLimits | None = None,
    topics: Sequence[str] = ("failover-rankings",),
    prepare: Callable[[Lab], None] = lambda _: None,
) -> Iterator[tuple[Lab, TopicReader]]:
    """The lab, with the rankings that are decided in it from now on; all candidates have the same weight.

    Without routers there are no route monitors either, and a home reaches what it has a link to. `remedies` and
    `limits` are every home's; `prepare` is called before anybody measures.
    """
    prefix = prefix_of(spec)
    create_topics(kafka.bootstrap, prefix=prefix)
    env = {"PROXIMA_KAFKA__BOOTSTRAP": kafka.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": prefix}
    argv = [sys.executable, "-m", "infra.cli", "worker"]
    with (
        ChildProcess.start(argv, name="worker", log_path=folder / "worker.log", env=env),
        Lab.start(spec, routers=routers) as lab,
        TopicReader(kafka.bootstrap, {f"{prefix}{topic}": NOW for topic in topics}) as reader,
    ):
        _configure(kafka.bootstrap, prefix, spec, paths, policy, remedies=remedies, limits=limits or RemedyLimits())
        lab.open_doors([int(kafka.bootstrap.rsplit(":", 1)[1])])
        if routers:
            lab.wait_for_routes()
        prepare(lab)
        for home, candidates in paths.items():
            probing = f"probes_per_tick = {probes_per_tick}\ntimeout_ms = {timeout_ms}\n"
            _watch(lab, home, candidates, folder, env, probing=probing, routers=routers)
        yield lab, reader


def rankings(reader: TopicReader, timeout_s: float, what: str) -> Iterator[FailoverRanking]:
    """Every ranking as it comes; fails when `what` was waited for so long."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        assert time.monotonic() < deadline_s, f"waited {timeout_s:g} s for {what}"
        record = reader.poll(0.2)
        if record is not None and record.value is not None:
            yield decode(record.value, FailoverRanking)


def prefix_of(spec: LabSpec) -> str:
    """Of the topics of a lab."""
    return f"lab-{spec.name}-{os.getpid()}-"


def _configure(
    bootstrap: str,
    prefix: str,
    spec: LabSpec,
    paths: Paths,
    policy: Policy,
    *,
    remedies: Sequence[Remedy],
    limits: RemedyLimits,
) -> None:
    with Publisher(bootstrap, client_id="lab", topic_prefix=prefix) as publisher:
        publisher.publish("failover-config", "regions", RegionCatalog(1, spec.catalogue()))
        for home, candidates in paths.items():
            weights = dict.fromkeys(candidates, 1.0)
            configuration = FailoverConfiguration(
                home, list(candidates), 1, weights=weights, policy=policy, remedies=list(remedies), remedy_limits=limits
            )
            publisher.publish("failover-config", home, configuration)
        publisher.flush(30)


def _watch(
    lab: Lab,
    home: str,
    candidates: Mapping[str, str],
    folder: Path,
    env: Mapping[str, str],
    *,
    probing: str,
    routers: bool,
) -> None:
    """A probe agent, and a route monitor, in a region."""
    targets = "".join(
        f'[[probe.targets]]\nregion = "{region}"\naddress = "{address}"\nport = 443\n'
        for region, address in candidates.items()
    )
    about = f'agent_id = "{home}/%s"\nprimary_region = "{home}"\n'
    files = {"probe": f'[probe]\n{about % "a"}methods = ["icmp"]\n{probing}{targets}'}
    if routers:
        files["routes"] = f"[routes]\n{about % 'routes'}"
    for command, text in files.items():
        config = folder / f"{home}.{command}.toml"
        config.write_text(text)
        argv = [sys.executable, "-m", "infra.cli", command, "--config", str(config)]
        lab.run(home, argv, name=f"{command}-{home}", env=env)
