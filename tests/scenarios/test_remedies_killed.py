"""Kill -9 in the middle of an action: it is not lost, and repeating it has no further effect.

The loop is closed without a network: probes say what a path is like, and the path is better while a provider's circuit
has more bandwidth. The provider takes a while for each request, and that is when worker and actuator are killed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from infra.kafka.cluster import Broker
from infra.kafka.reader import BEGINNING, TopicReader
from infra.processes import ChildProcess, wait_until
from producers.publisher import Publisher
from schemas.codec import decode, encode
from schemas.records import (
    ActionResult,
    DeadLetter,
    FailoverConfiguration,
    Outcome,
    PathAction,
    ProbeBatch,
    Region,
    RegionCatalog,
    Remedy,
    RemedyLimits,
    RemedyReport,
)
from tests.pipeline import Pipeline
from tests.sinks.actuators.providers import Simulator, simulator

MORE_BPS: Final = 4_000_000_000
REMEDY: Final = Remedy("more", "us", "BANDWIDTH", "carrier", value=float(MORE_BPS))
LIMITS: Final = RemedyLimits(act_within_ms=60_000)
PROBES: Final = 10


class MeasuredPath:
    """What is measured: 60 ms, from `degrade` on 180 ms, and 65 ms while the circuit has more."""

    def __init__(self, provider: Simulator) -> None:
        self._provider = provider
        self.is_degraded = False

    @property
    def rtt_ms(self) -> float:
        if not self.is_degraded:
            return 60.0
        return 65.0 if MORE_BPS in self._provider.seen()["circuits"].values() else 180.0

    @contextmanager
    def probed(self, pipeline: Pipeline) -> Iterator[None]:
        """Every second, in the background."""
        ending = threading.Event()
        with Publisher(pipeline.bootstrap, client_id="probes", topic_prefix=pipeline.prefix) as publisher:

            def probe() -> None:
                while not ending.wait(1.0):
                    publisher.publish("probe-samples", "eu/a", _batch(self.rtt_ms))

            thread = threading.Thread(target=probe)
            thread.start()
            try:
                yield
            finally:
                ending.set()
                thread.join()


def _batch(rtt_ms: float) -> ProbeBatch:
    return ProbeBatch.of(
        agent_id="eu/a", primary_region="eu", started_at_ms=time.time_ns() // 1_000_000 - 1000, targets=["us"],
        methods=["icmp"], target_index=[0] * PROBES, method_index=[0] * PROBES,
        sent_offset_ms=[50.0 * i for i in range(PROBES)], rtt_ms=[rtt_ms] * PROBES,
        outcome=[Outcome.ANSWERED] * PROBES, code=[0] * PROBES,
    )  # fmt: skip


def _configure(pipeline: Pipeline) -> None:
    with Publisher(pipeline.bootstrap, client_id="test", topic_prefix=pipeline.prefix) as publisher:
        regions = [Region(r, 0, 0) for r in ("eu", "us")]
        publisher.publish("failover-config", "regions", RegionCatalog(1, regions))
        configuration = FailoverConfiguration("eu", ["us"], 1, remedies=[REMEDY], remedy_limits=LIMITS)
        publisher.publish("failover-config", "eu", configuration)


def _actuators(pipeline: Pipeline, provider: Simulator, folder: Path) -> ChildProcess:
    config = folder / "actuators.toml"
    config.write_text(
        f'[actuators]\nname = "carrier"\nlog = "{folder}/actions.sqlite"\ndry_run = false\n'
        f'[[providers]]\nname = "carrier"\nurl = "{provider.url}"\ntoken_file = "{provider.token_file}"\n'
        "timeout_ms = 8000\n"
        '[[providers.tasks]]\nprimary = "eu"\nremedy = "more"\ncircuit = "C-1"\nusual_bps = 1_000_000_000\n'
        "value_max = 10_000_000_000\n"
    )
    argv = [sys.executable, "-m", "infra.cli", "sink", "actuators", "--config", str(config)]
    env = {"PROXIMA_KAFKA__BOOTSTRAP": pipeline.bootstrap, "PROXIMA_KAFKA__TOPIC_PREFIX": pipeline.prefix}
    return ChildProcess.start(argv, name="actuators", log_path=folder / "actuators.log", env=env)


def _results(pipeline: Pipeline) -> list[ActionResult]:
    return [decode(r.value, ActionResult) for r in pipeline.read("action-results")]


def _said(pipeline: Pipeline) -> list[tuple[bytes, PathAction | RemedyReport]]:
    return [(r.value, decode(r.value, PathAction, RemedyReport)) for r in pipeline.read("path-actions")]


@pytest.mark.kafka
@pytest.mark.soak
def test_an_action_survives_kill_9_of_worker_and_actuator_and_is_done_once(kafka: Broker, tmp_path: Path) -> None:
    with simulator(tmp_path) as provider, Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        _configure(pipeline)
        pipeline.start("intake", "decide", "overview")
        path = MeasuredPath(provider)
        first = _actuators(pipeline, provider, tmp_path)
        with path.probed(pipeline):
            wait_until(lambda: len(pipeline.read("failover-rankings")) > 3, 60, "rankings", poll_s=0.5)
            time_to_learn_s = time.monotonic() + 5
            wait_until(lambda: time.monotonic() > time_to_learn_s, 20, "the path's usual latency", poll_s=0.5)
            provider.behaves("slow")
            path.is_degraded = True
            wait_until(
                lambda: "PUT" in [r["method"] for r in provider.seen()["requests"]], 40, "the order", poll_s=0.05
            )
            # Ordered, and not answered: now everybody who knows of it dies.
            first.kill()
            for stage in ("intake", "decide", "overview"):
                pipeline.kill(stage)
            assert [r.outcome for r in _results(pipeline)] == ["STARTED"]
            provider.behaves("honest")
            pipeline.start("intake", "decide", "overview")
            with _actuators(pipeline, provider, tmp_path):
                wait_until(lambda: "VERIFIED" in _events(pipeline), 90, "the remedy to be verified", poll_s=0.5)
        seen = provider.seen()
        assert seen["circuits"] == {"C-1": MORE_BPS}
        (action,) = {s.action_id: s for _, s in _said(pipeline) if isinstance(s, PathAction)}.values()
        assert list(seen["orders"]) == [action.action_id]
        outcomes = Counter(r.outcome for r in _results(pipeline) if r.action_id == action.action_id)
        assert outcomes["APPLIED"] == 1
        assert set(outcomes) == {"STARTED", "APPLIED"}
        contents: dict[int, set[bytes]] = {}
        for value, said in _said(pipeline):
            contents.setdefault(said.sequence, set()).add(value)
        assert all(len(values) == 1 for values in contents.values()), "no number got a second content"


def _is_ordered(provider: Simulator) -> bool:
    return any(request["method"] == "PUT" for request in provider.seen()["requests"])


def _events(pipeline: Pipeline) -> list[str]:
    return [s.event for _, s in _said(pipeline) if isinstance(s, RemedyReport)]


@pytest.mark.kafka
def test_results_that_nobody_asked_for_are_dead_letters_and_move_nothing(kafka: Broker, tmp_path: Path) -> None:
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        _configure(pipeline)
        pipeline.start("intake", "decide", "overview")
        forged = ActionResult("0" * 32, "eu", "more", "carrier", "APPLY", "APPLIED", "done, trust me", "CLOSED", 1)
        with Publisher(pipeline.bootstrap, client_id="liar", topic_prefix=pipeline.prefix) as publisher:
            for key in ("eu", "us"):  # of the primary, and another's
                publisher.publish_raw("action-results", key.encode(), encode(forged))
            publisher.publish_raw("action-results", b"eu", b'{"outcome": "APPLIED"}')
        letters = named_letters(pipeline, 3)
        assert {(d.reason, d.found_by) for d in letters} == {
            ("UNASKED", "overview"), ("WRONG_RECORD", "intake"), ("OUT_OF_RANGE", "intake"),
        }  # fmt: skip
        assert _said(pipeline) == []


def named_letters(pipeline: Pipeline, count: int) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    with TopicReader(pipeline.bootstrap, {f"{pipeline.prefix}dead-letters": BEGINNING}) as reader:
        deadline_s = time.monotonic() + 60
        while len(found) < count:
            assert time.monotonic() < deadline_s, [json.dumps(d.detail) for d in found]
            record = reader.poll(0.5)
            if record is not None and record.value is not None:
                found.append(decode(record.value, DeadLetter))
    return found
