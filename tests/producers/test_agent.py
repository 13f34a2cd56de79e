"""The probe agent: paced, one batch a tick, strict about its own failures; and `proxima probe` on a real broker."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer

from infra.kafka.admin import create_topics
from infra.kafka.cluster import Broker
from infra.processes import ChildProcess, free_ports
from producers.agent import ProbeAgent
from producers.probes import Answer, Ended, Endpoint
from producers.probes.methods import METHODS, open_probes
from producers.publisher import Publisher
from schemas.codec import decode
from schemas.config import Probe, ProbeConfig, Target, load
from schemas.errors import ConfigError
from schemas.records import AgentHealth, Outcome, ProbeBatch
from schemas.validate import mistakes

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "infra/examples/probe.toml"


class Kept(Publisher):
    """A publisher that keeps what it is given: what is looked at here is what an agent says, not how it travels."""

    def __init__(self) -> None:
        super().__init__(f"127.0.0.1:{free_ports(1)[0]}", client_id="test")
        self.records: list[object] = []

    def publish(self, topic: str, key: str, record: object, *, droppable: bool | None = None) -> None:
        assert droppable is None
        assert key == "eu-west-1/a"
        assert topic == "probe-samples"
        self.records.append(record)

    @property
    def batches(self) -> list[ProbeBatch]:
        return [record for record in self.records if isinstance(record, ProbeBatch)]

    @property
    def healths(self) -> list[AgentHealth]:
        return [record for record in self.records if isinstance(record, AgentHealth)]


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.close()


@pytest.fixture
def port() -> Iterator[int]:
    """One that takes connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        yield server.getsockname()[1]


def settings(*targets: Target, **others: object) -> Probe:
    given = {"agent_id": "eu-west-1/a", "primary_region": "eu-west-1", "tick_ms": 200, "timeout_ms": 300}
    return Probe.model_validate({**given, "targets": targets, **others})


def run(agent_settings: Probe, publisher: Publisher, for_s: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[None] = loop.create_future()
        loop.call_later(for_s, stop.set_result, None)
        probes = open_probes(agent_settings.methods, agent_settings.timeout_ms / 1000)
        await ProbeAgent(agent_settings, publisher, probes).run(stop)

    asyncio.run(main())


def test_each_tick_asks_every_target_alike_and_evenly(kept: Kept, port: int) -> None:
    targets = [Target(region=f"region-{n}", address="127.0.0.1", port=port) for n in range(5)]
    run(settings(*targets, probes_per_tick=4), kept, 1.05)
    assert 4 <= len(kept.batches) <= 6
    for batch in kept.batches[:4]:
        assert mistakes(batch) == []
        columns = batch.columns()
        assert np.bincount(columns["target_index"]).tolist() == [4] * 5
        assert (np.diff(columns["sent_offset_ms"]) > 0).all()
        assert set(columns["outcome"].tolist()) <= {Outcome.ANSWERED, Outcome.SUSPECT}
    # This machine may be busy: single probes may be late, but lateness does not add up.
    sent_ms = np.median([batch.columns()["sent_offset_ms"] for batch in kept.batches[:4]], axis=0)
    assert sent_ms == pytest.approx(np.arange(20) * 10, abs=25)
    starts = [batch.started_at_ms for batch in kept.batches]
    assert np.median(np.diff(starts)) == pytest.approx(200, abs=20)
    assert abs(starts[0] - time.time() * 1000) < 10_000


def test_refused_and_unresolvable_targets_are_what_they_are(kept: Kept, port: int) -> None:
    refused, nowhere = free_ports(1)[0], "no-such-name.invalid"
    targets = [
        Target(region="answers", address="localhost", port=port),
        Target(region="refuses", address="127.0.0.1", port=refused),
        Target(region="nowhere", address=nowhere, port=port),
    ]
    run(settings(*targets), kept, 0.5)
    columns = kept.batches[0].columns()
    by_target = {
        kept.batches[0].targets[index]: Outcome(columns["outcome"][columns["target_index"] == index][0])
        for index in range(3)
    }
    assert by_target["refuses"] == Outcome.REFUSED
    assert by_target["nowhere"] == Outcome.NOT_SENT
    assert by_target["answers"] in (Outcome.ANSWERED, Outcome.SUSPECT)
    assert kept.healths[-1].not_sent == sum((b.columns()["outcome"] == Outcome.NOT_SENT).sum() for b in kept.batches)


class Stalling:
    """A method that holds the whole process up for a while, as a busy machine does."""

    method = "stalling"

    def __init__(self, timeout_s: float) -> None:
        assert timeout_s > 0.12

    def ask(self, endpoint: Endpoint, ended: Ended) -> None:
        asyncio.get_running_loop().call_soon(self._answer, endpoint, ended)

    def _answer(self, endpoint: Endpoint, ended: Ended) -> None:
        time.sleep(0.12)
        ended(Answer(Outcome.ANSWERED, 120.0 + endpoint.port))

    def close(self) -> None:
        pass


def test_what_was_under_way_during_a_stall_is_suspect_and_the_stall_is_told(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "stalling", Stalling)
    target = Target(region="us-east-1", address="127.0.0.1", port=1)
    run(settings(target, methods=["stalling"], probes_per_tick=1), kept, 0.5)
    outcomes = [o for batch in kept.batches for o in batch.columns()["outcome"].tolist()]
    assert outcomes
    assert set(outcomes) == {Outcome.SUSPECT}
    assert all(np.isnan(batch.columns()["rtt_ms"]).all() for batch in kept.batches)
    assert kept.healths[-1].stalled_ms > 50


def test_an_unknown_method_is_a_mistake_in_the_file(kept: Kept) -> None:
    target = Target(region="us-east-1", address="127.0.0.1", port=1)
    with pytest.raises(ConfigError, match="carrier-pigeon"):
        run(settings(target, methods=["carrier-pigeon"]), kept, 0.1)


def test_the_example_file_is_a_good_one() -> None:
    role = load(ProbeConfig, EXAMPLE, environment={})
    assert set(role.probe.methods) <= set(METHODS)
    assert role.probe.targets


@pytest.mark.kafka
def test_the_command_publishes_until_sigterm_and_leaves_nothing_behind(
    kafka: Broker, tmp_path: Path, port: int
) -> None:
    prefix = f"agent-{uuid.uuid4().hex[:8]}-"
    create_topics(kafka.bootstrap, prefix=prefix)
    file = tmp_path / "probe.toml"
    file.write_text(
        f'[kafka]\nbootstrap = "{kafka.bootstrap}"\ntopic_prefix = "{prefix}"\n'
        '[probe]\nagent_id = "eu-west-1/a"\nprimary_region = "eu-west-1"\ntick_ms = 200\n'
        f'[[probe.targets]]\nregion = "us-east-1"\naddress = "127.0.0.1"\nport = {port}\n'
    )
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": prefix, "auto.offset.reset": "earliest"})
    consumer.subscribe([prefix + "probe-samples"])
    argv = [sys.executable, "-c", "from infra.cli import main; main()", "probe", "--config", str(file)]
    try:
        with ChildProcess.start(argv, name="proxima probe", log_path=tmp_path / "log", cwd=REPOSITORY) as agent:
            batches = 0
            deadline = time.monotonic() + 60
            while batches < 3:
                assert agent.alive, agent.log_tail()
                assert time.monotonic() < deadline, agent.log_tail()
                message = consumer.poll(0.5)
                if message is not None and message.error() is None:
                    found = decode(bytes(message.value() or b""), ProbeBatch, AgentHealth)
                    batches += isinstance(found, ProbeBatch)
                    assert message.key() == b"eu-west-1/a"
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(15) == 0, agent.log_tail()
    finally:
        consumer.close()
