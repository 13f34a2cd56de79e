"""The trace player: recorded networks, played by the clock, deterministic, with faults laid over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.processes import free_ports, wait_until
from producers.publisher import Publisher
from producers.trace import Agent, Fault, RecordedNetwork, TracePlayer, baseline_ms, last_answered
from producers.traces import cloud_rtt_ms
from schemas.errors import ConfigError
from schemas.records import Array, Outcome, ProbeBatch
from schemas.validate import mistakes

NETWORK = RecordedNetwork()
LONDON_FROM_IRELAND = ("eu-west-1", "eu-west-2")

agents = st.sampled_from(NETWORK.agents)
steps = st.floats(0, 1e6, allow_nan=False)


def columns(batch: ProbeBatch, target: str) -> dict[str, Array]:
    """The columns of a batch's probes to one target."""
    found = batch.columns()
    mine = found["target_index"] == batch.targets.index(target)
    return {name: column[mine] for name, column in found.items()}


def agent_of(network: RecordedNetwork, primary: str) -> Agent:
    return next(agent for agent in network.agents if agent.primary_region == primary)


@given(agents, steps, st.integers(0, 2**48))
def test_every_batch_is_a_good_record_with_every_target_asked_alike(agent: Agent, step: float, now_ms: int) -> None:
    batch = NETWORK.batch(agent, step, now_ms)
    found = batch.columns()
    assert mistakes(batch) == []
    assert batch.started_at_ms == now_ms
    assert np.bincount(found["target_index"]).tolist() == [NETWORK.probes_per_tick] * len(agent.targets)
    assert (found["sent_offset_ms"] < NETWORK.tick_ms).all()
    answered = found["outcome"] == Outcome.ANSWERED
    assert (found["outcome"][~answered] == Outcome.TIMED_OUT).all()
    assert (found["rtt_ms"][answered] > 0).all()
    assert np.isnan(found["rtt_ms"][~answered]).all()


@given(agents, steps)
def test_the_same_step_is_the_same_batch_in_every_process(agent: Agent, step: float) -> None:
    assert NETWORK.batch(agent, step, 1) == RecordedNetwork(primaries=12).batch(agent, step, 1)


def test_fewer_primaries_do_not_change_the_network_of_those_that_stay() -> None:
    few = RecordedNetwork(primaries=2)
    for agent in few.agents:
        assert few.batch(agent, 17, 1) == NETWORK.batch(agent, 17, 1)


def test_another_seed_is_another_network() -> None:
    agent = NETWORK.agents[0]
    assert RecordedNetwork(seed=2).batch(agent, 17, 1) != NETWORK.batch(agent, 17, 1)


def test_both_ends_of_a_path_see_the_same() -> None:
    def moves(primary: str, target: str) -> set[float]:
        mean_ms = cloud_rtt_ms()[primary, target]
        batches = (NETWORK.batch(agent_of(NETWORK, primary), step, 1) for step in range(100))
        return {round(float(rtt) / mean_ms, 4) for batch in batches for rtt in columns(batch, target)["rtt_ms"]}

    one, other = moves("eu-west-1", "us-east-1"), moves("us-east-1", "eu-west-1")
    assert len(one) > 50
    assert len(one ^ other) <= 4  # at the edges: their probes do not leave at the same moment


def test_a_path_takes_about_what_was_measured_between_its_regions() -> None:
    for agent in NETWORK.agents[::2]:
        batches = [NETWORK.batch(agent, step, 1) for step in range(0, 4000, 20)]
        for target in agent.targets:
            typical_ms = np.nanmedian(np.concatenate([columns(b, target)["rtt_ms"] for b in batches]))
            assert typical_ms == pytest.approx(cloud_rtt_ms()[agent.primary_region, target], rel=0.2)


def test_probes_of_all_agents_of_a_primary_lie_evenly_in_the_tick() -> None:
    mine = [agent for agent in NETWORK.agents if agent.primary_region == "eu-west-1"]
    sent = np.concatenate([columns(NETWORK.batch(a, 0, 1), "eu-west-2")["sent_offset_ms"] for a in mine])
    assert np.diff(np.sort(sent)) == pytest.approx([250.0] * 3)


def test_an_isolated_recorded_loss_is_one_lost_probe_and_a_run_of_losses_loses_all() -> None:
    lost = [
        sum(
            np.isnan(columns(NETWORK.batch(agent, step, 1), target)["rtt_ms"]).sum()
            for agent in NETWORK.agents
            if agent.primary_region == primary
        )
        for primary in NETWORK.primaries
        for target in agent_of(NETWORK, primary).targets
        for step in range(100)
    ]
    share_of_recorded = np.mean(lost) / 4
    assert 1 in lost
    assert share_of_recorded < 0.01


@given(st.lists(st.one_of(st.floats(1, 500, width=32), st.just(float("nan"))), min_size=1, max_size=50))
def test_a_lost_step_is_held_at_the_answer_before_it(values: list[float]) -> None:
    series = np.array(values, np.float32)
    if np.isnan(series).all():
        return
    held = last_answered(series)
    for at, value in enumerate(series):
        before = [v for v in series[: at + 1] if not np.isnan(v)] or [series[~np.isnan(series)][0]]
        assert held[at] == (before[-1] if np.isnan(value) else value)


@given(st.floats(1, 500), st.floats(1.1, 10), st.integers(400, 2000))
def test_a_path_that_stays_slow_for_a_day_has_become_that_path(usual_ms: float, factor: float, steps: int) -> None:
    slowed = np.where(np.arange(2 * steps) < steps, usual_ms, factor * usual_ms)
    baseline = baseline_ms(slowed)
    assert baseline[steps - 1] == pytest.approx(usual_ms)
    assert baseline[steps + 120] == pytest.approx(usual_ms)
    assert baseline[min(steps + 400, 2 * steps - 1)] == pytest.approx(factor * usual_ms)


@given(agents, steps, st.floats(1.0, 5.0))
def test_a_brownout_slows_its_own_path_and_no_other(agent: Agent, step: float, factor: float) -> None:
    fault = Fault(agent.primary_region, agent.targets[0], "brownout", factor)
    before, after = NETWORK.batch(agent, step, 1), NETWORK.batch(agent, step, 1, (fault,))
    for target in agent.targets:
        was, is_now = columns(before, target)["rtt_ms"], columns(after, target)["rtt_ms"]
        if target != fault.target:
            assert np.array_equal(was, is_now, equal_nan=True)
        else:
            kept = ~np.isnan(is_now)
            assert is_now[kept] == pytest.approx(factor * was[kept], rel=1e-5)
            assert (factor * was[~kept & ~np.isnan(was)] >= 1999).all()


@given(agents, steps)
def test_a_path_that_is_down_answers_nobody_and_has_no_bandwidth(agent: Agent, step: float) -> None:
    fault = Fault(agent.primary_region, agent.targets[0], "down")
    batch = NETWORK.batch(agent, step, 1, (fault,))
    assert (columns(batch, fault.target)["outcome"] == Outcome.TIMED_OUT).all()
    assert fault.target not in {m.target_region for m in NETWORK.bandwidth(agent, 1, (fault,))}


def test_a_fault_begins_and_ends_within_a_tick() -> None:
    agent = agent_of(NETWORK, "eu-west-1")
    now_ms = 1_795_000_000_123
    fault = Fault(*LONDON_FROM_IRELAND, "down", from_ms=now_ms + 300, until_ms=now_ms + 700)
    ticks = (now_ms - 1000, now_ms, now_ms + 1000)
    found = [columns(NETWORK.batch(agent, 0, tick_ms, (fault,)), "eu-west-2") for tick_ms in ticks]
    down = [bool(o == Outcome.TIMED_OUT) for batch in found for o in batch["outcome"]]
    assert down == [300 <= at < 700 for at in (-1000, -500, 0, 500, 1000, 1500)]


def test_configurations_and_catalogue_are_good_records_nearest_first() -> None:
    assert mistakes(NETWORK.catalog()) == []
    assert len(NETWORK.catalog().regions) == 21
    by_id = {region.region_id: region for region in NETWORK.catalog().regions}
    assert by_id["us-east-1"].capacity_ratio == 1.0
    assert by_id["us-west-1"].capacity_ratio == by_id["af-south-1"].capacity_ratio == pytest.approx(2 / 3)
    configurations = NETWORK.configurations()
    assert len(configurations) == 12
    for configuration in configurations:
        assert mistakes(configuration) == []
        rtts = [cloud_rtt_ms()[configuration.primary_region, r] for r in configuration.potential_failover_regions]
        assert rtts == sorted(rtts)
        assert len(rtts) == 11


def test_bandwidth_is_a_good_record_for_each_path() -> None:
    for agent in NETWORK.agents:
        found = NETWORK.bandwidth(agent, 1)
        assert [m.target_region for m in found] == list(agent.targets)
        assert all(mistakes(m) == [] for m in found)


@pytest.mark.parametrize(("primaries", "candidates"), [(0, 11), (22, 11), (3, 0), (3, 21)])
def test_a_network_larger_than_was_measured_is_refused(primaries: int, candidates: int) -> None:
    with pytest.raises(ConfigError, match="21 regions"):
        RecordedNetwork(primaries=primaries, candidates=candidates)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """One without a broker: its queue takes what is played."""
    made = Publisher(f"127.0.0.1:{free_ports(1)[0]}", client_id="test")
    yield made
    made.close()


def test_a_player_sends_one_batch_an_agent_and_tick_by_the_clock(publisher: Publisher) -> None:
    network = RecordedNetwork(primaries=3, tick_ms=100)
    player = TracePlayer(publisher, network)
    player.run(until=time.monotonic() + 1.05)
    # The first tick's batches leave when it is over, those of the last primary two thirds of a tick later.
    ticks = player.samples_sent / (2 * 11 * len(network.agents))
    assert ticks == pytest.approx(10 - player.ticks_skipped, abs=1)


def test_a_fault_may_come_from_another_thread_and_replaces_the_one_before(publisher: Publisher) -> None:
    player = TracePlayer(publisher, RecordedNetwork(primaries=1, tick_ms=50))
    thread = threading.Thread(target=player.run)
    thread.start()
    wait_until(lambda: player.samples_sent > 0, 10, "the first batch")
    player.inject(Fault(*LONDON_FROM_IRELAND, "down"))
    player.inject(Fault(*LONDON_FROM_IRELAND, "brownout"))
    player.inject(Fault("eu-west-1", "eu-south-1", "down"))
    assert {(f.target, f.kind) for f in player.faults} == {("eu-west-2", "brownout"), ("eu-south-1", "down")}
    player.clear()
    assert player.faults == ()
    player.stop()
    thread.join(5)
    assert not thread.is_alive()
