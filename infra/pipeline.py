"""A whole pipeline on this machine, as processes that die with us: what the demo shows, and the soak tests torment.

    Kafka (one node) and Redis     child processes, or those that the environment names
    worker: its three stages       a child process, which runs a child process a stage
    sink: redis                    a child process
    trace player                   a thread here: recorded networks of 12 primaries, two agents each
    observer                       a thread here: what comes out, counted and timed

Each asks the kernel to be killed when its parent dies, so `kill -9` of this process leaves nothing running either.
Logs are in a folder of this run in the user's cache; its data goes at the end, or at the start of the next run when
this one was killed.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from infra import redis
from infra.kafka.admin import admin_client, create_topics
from infra.kafka.cluster import BOOTSTRAP_VARIABLE, KafkaCluster, existing_or_started
from infra.observer import Observer
from infra.processes import ChildProcess, stop_all, wait_until
from producers.publisher import Publisher
from producers.trace import Fault, RecordedNetwork, TracePlayer
from schemas.errors import ProximaError
from schemas.topics import TOPICS, named

PREFIX_VARIABLE: Final = "PROXIMA_KAFKA__TOPIC_PREFIX"
STARTUP_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 8.0
# So much slower, a target is worse than the next best of nearly every primary that is played.
BROWNOUT_FACTOR: Final = 6.0
BROWNOUT_TIMEOUT_S: Final = 30.0
_RUNS_KEPT: Final = 5
_POLL_S: Final = 0.02


@dataclass(slots=True)
class Pipeline:
    """The parts of a demo, as long as they run."""

    bootstrap: str
    prefix: str
    redis_url: str
    worker: ChildProcess
    sink: ChildProcess
    player: TracePlayer
    observer: Observer
    brownout_s: float | None = None

    def check(self) -> None:
        """Raises ProximaError when a part has ended."""
        for child in (self.worker, self.sink):
            if not child.alive:
                what = f"{child.name} ended with code {child.returncode}:\n{child.log_tail()}"
                raise ProximaError(what, where=str(child.log_path))

    @property
    def missing(self) -> list[str]:
        """Primaries that nobody has said a target for yet."""
        return [p for p in self.player.network.primaries if self.observer.target(p) is None]

    @property
    def deciding_pid(self) -> int | None:
        """The process of the stage that decides."""
        try:
            stages = psutil.Process(self.worker.pid).children(recursive=True)
            return next((stage.pid for stage in stages if stage.cmdline()[-2:] == ["--stages", "decide"]), None)
        except psutil.Error:
            return None

    def brownout(self) -> str:
        """Slow the path to a target in use down until another takes its place; says in words what came of it."""
        primary = _closest_race(self.observer)
        target = self.observer.target(primary)
        if target is None:
            return "no primary has a target to lose"
        began = time.monotonic()
        self.player.inject(Fault(primary, target, "brownout", BROWNOUT_FACTOR, from_ms=time.time_ns() // 1_000_000))
        try:
            while time.monotonic() - began < BROWNOUT_TIMEOUT_S:
                instead = self.observer.target(primary)
                if instead not in (target, None):
                    self.brownout_s = time.monotonic() - began
                    return f"{primary} left {target} for {instead} after {self.brownout_s:.1f} s"
                self.check()
                time.sleep(_POLL_S)
        finally:
            self.player.clear()
        return f"{primary} stayed with {target} for {BROWNOUT_TIMEOUT_S:g} s"

    def figures(self, startup_s: float) -> dict[str, Any]:
        """What `demo --json` prints (contracts.md)."""
        observer = self.observer
        return {
            "startup_s": round(startup_s, 2),
            "primaries": len(self.player.network.primaries) - len(self.missing),
            "samples_in": self.player.samples_sent,
            "rankings_out": observer.rankings_out,
            "target_changes": observer.target_changes,
            "dead_letters": observer.dead_letters,
            "latency_ms": {"p50": observer.latency_ms(50), "p99": observer.latency_ms(99)},
            "brownout_s": round(self.brownout_s, 2) if self.brownout_s is not None else None,
        }


@contextmanager
def running(folder: Path, say: Callable[[str], None]) -> Iterator[Pipeline]:
    """A pipeline that has a target for every primary; `say` is told what has come about.

    Raises ProximaError: a part does not come up; it ends with the parts' logs.
    """
    with ExitStack() as stack:
        with ThreadPoolExecutor() as pool:
            starting = pool.submit(stack.enter_context, existing_or_started(data_dir=folder / "kafka", log_dir=folder))
            store = pool.submit(
                stack.enter_context, redis.existing_or_started(data_dir=folder / "redis", log_dir=folder)
            )
            network = pool.submit(RecordedNetwork)
            broker = starting.result()
            if isinstance(broker, KafkaCluster):
                # Its data goes anyway, so an orderly end would only take time.
                stack.callback(_kill, broker)
            say(f"Kafka at {broker.bootstrap}")
            prefix = _prefix(broker.bootstrap, stack)
            create_topics(broker.bootstrap, prefix=prefix)
        redis_url = store.result().url
        say("Redis, topics")
        environment = {
            BOOTSTRAP_VARIABLE: broker.bootstrap,
            PREFIX_VARIABLE: prefix,
            redis.URL_VARIABLE: redis_url,
            "OPENBLAS_NUM_THREADS": "1",
        }

        def child(name: str, *arguments: str) -> ChildProcess:
            command = [sys.executable, "-m", "infra.cli", name, *arguments]
            log_path = folder / f"{name}.log"
            started = ChildProcess.start(command, name=f"proxima {name}", log_path=log_path, env=environment)
            children.append(started)
            return started

        children: list[ChildProcess] = []
        stack.callback(stop_all, children, STOP_TIMEOUT_S)
        # First of all what takes longest to start.
        worker = child("worker", "--stages", "intake,decide,overview")
        publisher = stack.enter_context(Publisher(broker.bootstrap, client_id="demo", topic_prefix=prefix))
        player = TracePlayer(publisher, network.result())
        _configure(publisher, player)
        observer = stack.enter_context(Observer(broker.bootstrap, prefix))
        pipeline = Pipeline(broker.bootstrap, prefix, redis_url, worker, child("sink", "redis"), player, observer)
        say("configuration published, worker and sink start")
        # What is measured of a primary that nobody has configured yet would be a dead letter.
        primaries = set(player.network.primaries)
        wait_until(
            lambda: primaries <= observer.rankings.keys(), STARTUP_TIMEOUT_S, "every configuration", children=children
        )
        playing = threading.Thread(target=player.run, name="trace player", daemon=True)
        playing.start()
        stack.callback(playing.join)
        stack.callback(player.stop)
        say("configurations in force, agents play")
        wait_until(lambda: not pipeline.missing, STARTUP_TIMEOUT_S, "a target for every primary", children=children)
        say(f"a target for each of {len(player.network.primaries)} primaries")
        yield pipeline


def _configure(publisher: Publisher, player: TracePlayer) -> None:
    """What is to be decided: the regions, and for each primary where it may fail over to."""
    publisher.publish("failover-config", "regions", player.catalog())
    for configuration in player.configurations():
        publisher.publish("failover-config", configuration.primary_region, configuration)
    publisher.flush(STARTUP_TIMEOUT_S)


def _kill(cluster: KafkaCluster) -> None:
    for node in cluster.pids:
        cluster.kill(node)


def _prefix(bootstrap: str, stack: ExitStack) -> str:
    """What stands before the names of our topics: on a cluster of somebody's, a word that nobody else uses."""
    given = os.environ.get(PREFIX_VARIABLE)
    if given is not None or not os.environ.get(BOOTSTRAP_VARIABLE):
        return given or ""
    prefix = f"demo-{uuid.uuid4().hex[:8]}-"
    stack.callback(_delete_topics, bootstrap, prefix)
    return prefix


def _delete_topics(bootstrap: str, prefix: str) -> None:
    admin = admin_client(bootstrap)
    for future in admin.delete_topics([named(prefix, topic) for topic in TOPICS]).values():
        # A cluster that is gone, or does not let us: we are on our way out, and the names say whose they are.
        with suppress(TimeoutError):
            future.exception(timeout=STOP_TIMEOUT_S)


@contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for this run's logs and data, named by time and process; the data goes at the end, logs stay a while."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxima" / "run"
    base.mkdir(parents=True, exist_ok=True)
    others = sorted(base.iterdir())
    for number, other in enumerate(others):
        pid = other.name.rpartition("-")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            _forget(other, everything=number < len(others) - _RUNS_KEPT)
    folder = base / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        _forget(folder, everything=False)


def _forget(folder: Path, *, everything: bool) -> None:
    for gone in (folder,) if everything else (folder / "kafka", folder / "redis"):
        shutil.rmtree(gone, ignore_errors=True)


def _closest_race(observer: Observer) -> str:
    """The primary whose second choice is nearest to its target without being ahead: what happens there is said soonest.

    A second choice that is ahead is about to become the target anyway.
    """

    def race(primary: str) -> float:
        ranking = observer.rankings[primary]
        scores = {c.region_id: c.score for c in ranking.candidates if c.eligible}
        mine = scores.pop(ranking.target_region or "", 0.0)
        best = max(scores.values(), default=0.0)
        return best / mine if 0 < best < mine else 0.0

    return max(sorted(observer.rankings), key=race)
