"""The probe agent: paced, one batch a tick, strict about its own failures; and `proxima probe` on a real broker."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer

from infra.kafka.admin import create_topics
from infra.kafka.cluster import Broker
from infra.processes import ChildProcess, free_ports
from producers.agent import ProbeAgent
from producers.probes import Answer, Ended, Endpoint
from producers.probes.bandwidth import Bandwidth as BandwidthProbe
from producers.probes.icmp import IcmpEcho
from producers.probes.methods import METHODS, open_probes
from producers.publisher import Publisher
from producers.responder import Responder
from schemas.codec import decode
from schemas.config import Bandwidth, Probe, ProbeConfig, Respond, Target, load
from schemas.errors import ConfigError, ProbeError
from schemas.records import AgentHealth, BandwidthMeasurement, Outcome, ProbeBatch
from schemas.validate import mistakes

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "infra/examples/probe.toml"


def icmp_is_allowed() -> bool:
    async def open_one() -> None:
        IcmpEcho(1.0).close()

    try:
        asyncio.run(open_one())
    except ProbeError:
        return False
    return True


ICMP = icmp_is_allowed()


class Kept(Publisher):
    """A publisher that keeps what it is given: what is looked at here is what an agent says, not how it travels."""

    def __init__(self) -> None:
        super().__init__(f"127.0.0.1:{free_ports(1)[0]}", client_id="test")
        self.records: list[object] = []
        self.on_record: Callable[[], object] = lambda: None

    def publish(self, topic: str, key: str, record: object, *, droppable: bool | None = None) -> None:
        assert droppable is None
        assert key == "eu-west-1/a"
        assert topic == "probe-samples"
        self.records.append(record)
        self.on_record()

    @property
    def bandwidths(self) -> list[BandwidthMeasurement]:
        return [record for record in self.records if isinstance(record, BandwidthMeasurement)]

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
        opened = open_probes(agent_settings.methods, agent_settings.timeout_ms / 1000)
        await ProbeAgent(agent_settings, publisher, opened).run(stop)

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


_STOPPED = """
import sys
from collections import Counter
from schemas.records import Outcome
from tests.producers.test_agent import Kept, Target, run, settings

kept = Kept()
print("ready", flush=True)
targets = [Target(region=f"region-{n}", address="127.0.0.1", port=int(sys.argv[1])) for n in range(20)]
run(settings(*targets, probes_per_tick=5), kept, 2.5)
counts = Counter(Outcome(o) for batch in kept.batches for o in batch.outcome)
print(*(counts[outcome] for outcome in Outcome), max(h.stalled_ms for h in kept.healths))
kept.close()
"""


def test_a_stop_of_the_whole_process_is_told_and_is_no_loss(port: int) -> None:
    argv = [sys.executable, "-c", _STOPPED, str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(1.0)  # into the run
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)  # the stall itself
        process.send_signal(signal.SIGCONT)
        *counts, stalled_ms = map(float, process.stdout.readline().split())
    outcomes = dict(zip(Outcome, counts, strict=True))
    assert outcomes[Outcome.ANSWERED] > 100
    assert outcomes[Outcome.SUSPECT] > 10
    assert outcomes[Outcome.TIMED_OUT] == 0
    assert stalled_ms > 300


@pytest.mark.timed
@pytest.mark.skipif(not ICMP, reason="no ICMP socket here")
def test_three_thousand_targets_are_each_asked_once_a_tick_without_a_burst(kept: Kept) -> None:
    addresses = [f"127.{1 + n // 250}.0.{1 + n % 250}" for n in range(3000)]
    targets = [Target(region=f"region-{n}", address=address) for n, address in enumerate(addresses)]
    run(settings(*targets, methods=["icmp"], probes_per_tick=1, tick_ms=1000), kept, 2.5)
    for batch in kept.batches[:2]:
        columns = batch.columns()
        assert sorted(columns["target_index"].tolist()) == list(range(3000))
        assert set(columns["outcome"].tolist()) <= {Outcome.ANSWERED, Outcome.SUSPECT, Outcome.NOT_SENT}
        in_a_ms = np.bincount((columns["sent_offset_ms"]).astype(int))
        assert in_a_ms.max() <= 150
    first, second = (batch.columns() for batch in kept.batches[:2])
    assert (first["target_index"] == second["target_index"]).all()  # so a second lies between, for each
    assert (first["target_index"] != np.arange(3000)).any()


def test_bandwidth_is_measured_in_turns_and_published(kept: Kept) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        responder = Responder(Respond(bind="127.0.0.1", port=0))
        stop: asyncio.Future[None] = loop.create_future()

        def end(_: object = None) -> None:
            if not stop.done():
                stop.set_result(None)

        kept.on_record = lambda: end() if len(kept.bandwidths) >= 2 else None
        loop.call_later(20, end)
        targets = [Target(region=f"region-{n}", address="127.0.0.1", port=responder.port) for n in range(2)]
        given = settings(*targets, bandwidth=Bandwidth(every_s=1, port=responder.port))
        probe = BandwidthProbe(1.0)
        await ProbeAgent(given, kept, open_probes(["tcp-connect"], 0.3), probe).run(stop)
        responder.close()

    asyncio.run(main())
    assert {found.target_region for found in kept.bandwidths[:2]} == {"region-0", "region-1"}
    for found in kept.bandwidths:
        assert mistakes(found) == []
        assert 40_000 < found.bytes_sent <= 150_000


def test_a_broker_that_is_away_stops_no_probe(port: int) -> None:
    publisher = Publisher(f"127.0.0.1:{free_ports(1)[0]}", client_id="test")
    try:
        run(settings(Target(region="us-east-1", address="127.0.0.1", port=port), tick_ms=100), publisher, 1.05)
        stats = publisher.stats
    finally:
        publisher.close()
    assert stats.queued + stats.in_flight >= 8  # what is bounded there, and what goes first, is the publisher's to show


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
            for status in Path(f"/proc/{agent.pid}/task").glob("*/status"):
                fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
                assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0, fields["Name"]
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(15) == 0, agent.log_tail()
    finally:
        consumer.close()
