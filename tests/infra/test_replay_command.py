"""History again: from any moment, at any speed, under another policy, and on into the present."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.cli._options import moment
from infra.configuration import read_policy
from infra.history import nearest_round
from infra.kafka.cluster import Broker
from infra.kafka.reader import TopicReader, offsets_at
from infra.processes import wait_until
from schemas.codec import decode, encode
from schemas.records import (
    FailoverConfiguration,
    FailoverRanking,
    Observation,
    Outcome,
    Policy,
    ProbeBatch,
    Snapshot,
    Source,
    Tick,
)
from streams.core.state import to_scalars
from streams.fold import SHARED
from tests.infra.commands import PROXIMA, environment, fails, lines, proxima, running, succeeds
from tests.infra.conftest import Topics
from tests.pipeline import TARGETS, Pipeline

EXAMPLE = Path(__file__).parents[2] / "infra" / "examples" / "policy.toml"
PRIMARIES = ("alpha", "beta")
QUICK = Policy(dwell_ms=1000, dwell_min_ms=1000, heartbeat_ms=2000)
STEADY = "dwell_ms = 86_400_000\nheartbeat_ms = 2000\n"  # a policy that never leaves a target that lives


class Past:
    """A pipeline that ran for some seconds: the target of both primaries moved once, from near to another."""

    def __init__(self, topics: Topics, rankings: list[FailoverRanking]) -> None:
        self.topics, self.rankings = topics, rankings
        self.env = topics.environment
        self.first_ms, self.last_ms = rankings[0].decided_at_ms, rankings[-1].decided_at_ms

    def replayed(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """Rankings that a replay of the topic prints, in order of time."""
        found = [line["record"] for line in lines("replay", "observations", *arguments, **self.env)]
        return sorted(found, key=lambda r: (r["decided_at_ms"], r["primary_region"], r["sequence"]))


@pytest.fixture(scope="module")
def past(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    intervals = {"DECIDE__CHECKPOINT_EVERY_MS": 1000, "DECIDE__SNAPSHOT_EVERY_MS": 300}
    with Pipeline(kafka.bootstrap, tmp_path_factory.mktemp("past"), **intervals) as pipeline:
        pipeline.start()
        pipeline.configure(PRIMARIES)
        producer = pipeline.producer()
        for primary in PRIMARIES:
            quick = encode(FailoverConfiguration(primary, list(TARGETS), 2, based_on=1, policy=QUICK))
            producer.produce(f"{pipeline.prefix}failover-config", key=primary, value=quick)
        for near_ms, seconds in ((20.0, 5), (500.0, 7)):
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s:
                for primary in PRIMARIES:
                    batch = encode(_batch(primary, near_ms))
                    producer.produce(f"{pipeline.prefix}probe-samples", key=f"agent-{primary}", value=batch)
                producer.flush(10)
                threading.Event().wait(0.2)  # the pace of the agents
        pipeline.settle()
        pipeline.stop()
        rankings = [decode(r.value, FailoverRanking) for r in pipeline.read("failover-rankings")]
        rankings.sort(key=lambda r: (r.decided_at_ms, r.primary_region, r.sequence))
        yield Past(Topics(kafka.bootstrap, pipeline.prefix), rankings)


def _batch(primary: str, near_ms: float) -> ProbeBatch:
    rtt_ms = np.repeat([near_ms, 60.0, 100.0], 3) + np.arange(9) / 10
    return ProbeBatch.of(
        agent_id=f"agent-{primary}", primary_region=primary, started_at_ms=time.time_ns() // 1_000_000 - 200,
        targets=list(TARGETS), methods=["icmp"], target_index=np.repeat([0, 1, 2], 3), method_index=[0] * 9,
        sent_offset_ms=np.linspace(0, 180, 9), rtt_ms=rtt_ms, outcome=[Outcome.ANSWERED] * 9, code=[0] * 9,
    )  # fmt: skip


def plain(rankings: list[FailoverRanking]) -> list[tuple[str, int, str]]:
    return [(r.primary_region, r.sequence, r.decision_id) for r in rankings]


def shown(records: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    return [(r["primary_region"], r["sequence"], r["decision_id"]) for r in records]


def folded(stderr: str) -> int:
    found = re.search(r"(\d+) records folded", stderr)
    assert found is not None, stderr
    return int(found[1])


# -- what was


@pytest.mark.kafka
def test_the_whole_journal_gives_every_decision_again(past: Past) -> None:
    assert {r.target_region for r in past.rankings} >= {"near", "middle"}, "the target moved"
    assert shown(past.replayed()) == plain(past.rankings)


@pytest.mark.kafka
def test_from_a_moment_on_it_begins_at_a_checkpoint_and_gives_the_same_decisions(past: Past) -> None:
    from_ms = (past.first_ms + past.last_ms) // 2
    due = [r for r in past.rankings if r.decided_at_ms >= from_ms]
    assert 0 < len(due) < len(past.rankings)
    assert shown(past.replayed("--from", str(from_ms))) == plain(due)
    some = proxima("replay", "observations", "--from", str(from_ms), **past.env)
    assert "begins at checkpoints of 2" in some.stderr
    assert "no checkpoint" not in some.stderr
    assert folded(some.stderr) < folded(proxima("replay", "observations", **past.env).stderr)
    assert all(json.loads(line) for line in some.stdout.splitlines())


@pytest.mark.kafka
def test_up_to_a_moment(past: Past) -> None:
    third_ms = (past.last_ms - past.first_ms) // 3
    from_ms, to_ms = past.first_ms + third_ms, past.first_ms + 2 * third_ms
    due = [r for r in past.rankings if from_ms <= r.decided_at_ms < to_ms]
    assert due
    assert shown(past.replayed("--from", str(from_ms), "--to", str(to_ms))) == plain(due)
    to_only = past.replayed("--to", str(to_ms))
    assert shown(to_only) == plain([r for r in past.rankings if r.decided_at_ms < to_ms])


@pytest.mark.kafka
def test_before_the_first_checkpoint_it_says_so_and_begins_at_the_beginning(past: Past) -> None:
    from_ms = past.first_ms  # decided at once, before any round
    done = proxima("replay", "observations", "--from", str(from_ms - 60_000), **past.env)
    assert done.stderr.count("\n") == 1, "nothing was before: that is the beginning, and nothing to say"
    journal = f"{past.topics.prefix}observations"
    begun = offsets_at(past.topics.bootstrap, journal, from_ms - 1)
    done = proxima("replay", "observations", "--from", str(from_ms), **past.env)
    if any(begun.values()):
        assert "no checkpoint at or before 2" in done.stderr
    records = [json.loads(line)["record"] for line in done.stdout.splitlines()]
    records.sort(key=lambda r: (r["decided_at_ms"], r["primary_region"], r["sequence"]))
    assert shown(records) == plain(past.rankings)


@pytest.mark.kafka
def test_a_file_gives_the_same_stretch_without_a_broker(past: Past, tmp_path: Path) -> None:
    path = tmp_path / "past.journal"
    succeeds("tail", "observations", "--from-beginning", "--to-end", "--raw", "--output", path, **past.env)
    third_ms = (past.last_ms - past.first_ms) // 3
    from_ms, to_ms = past.first_ms + third_ms, past.first_ms + 2 * third_ms
    found = [f["record"] for f in lines("replay", path, "--from", str(from_ms), "--to", str(to_ms))]
    due = [r for r in past.rankings if from_ms <= r.decided_at_ms < to_ms]
    assert sorted(shown(found)) == sorted(plain(due))


@pytest.mark.kafka
def test_a_stretch_at_a_speed_takes_its_time_from_its_beginning_on(past: Past) -> None:
    started_s = time.monotonic()
    found = past.replayed("--from", str(past.last_ms - 4000), "--to", str(past.last_ms), "--speed", "2")
    assert shown(found) == plain([r for r in past.rankings if past.last_ms - 4000 <= r.decided_at_ms < past.last_ms])
    assert 1.5 < time.monotonic() - started_s < 30


@pytest.mark.kafka
def test_on_a_terminal_it_shows_how_far_it_is_and_nothing_of_it_gets_among_the_decisions(past: Past) -> None:
    ours, its = pty.openpty()
    try:
        argv = [*PROXIMA, "replay", "observations"]
        done = subprocess.run(argv, env=environment(**past.env, TERM="xterm"), stdout=subprocess.PIPE, stderr=its,
                              text=True, timeout=60, check=False)  # fmt: skip
        told = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(its)
    assert done.returncode == 0
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == len(past.rankings)
    assert "folding" in told
    assert "failover-rankings" not in told
    assert "records folded" in told


# -- what would have been


@pytest.fixture
def steady(tmp_path: Path) -> Path:
    path = tmp_path / "steady.toml"
    path.write_text(STEADY)
    return path


@pytest.mark.kafka
def test_under_another_policy_other_targets_are_chosen(past: Past, steady: Path) -> None:
    found = past.replayed("--policy", steady)
    assert {r["target_region"] for r in found if r["target_region"] is not None} == {"near"}
    assert {r["config_version"] for r in found} == {1, 2}, "the configurations are the journal's"
    # Also when it begins in the middle, with snapshots that hold the configuration's own policy.
    moved_ms = next(r.decided_at_ms for r in past.rankings if r.target_region == "middle")
    later = past.replayed("--from", str(moved_ms - 1500), "--policy", steady)
    assert later
    assert {r["target_region"] for r in later} == {"near"}


@pytest.mark.kafka
def test_beside_the_real_one_it_says_where_they_differ(past: Past, steady: Path) -> None:
    command = ("replay", "observations", "--policy", steady, "--beside")
    *turns, totals = lines(*command, "--json", **past.env)
    apart = {t["primary_region"]: t for t in turns if t["target_region"] == "near" and not t["agree"]}
    assert apart.keys() == set(PRIMARIES)
    for primary, turn in apart.items():
        moved = next(r for r in past.rankings if r.primary_region == primary and r.target_region not in (None, "near"))
        assert (turn["at_ms"], turn["real_target_region"]) == (moved.decided_at_ms, moved.target_region)
    assert totals["type"] == "totals"
    assert totals["primaries"] == 2
    assert totals["differences"] >= 2
    assert 0 < totals["differing_ratio"] < 1
    text = succeeds(*command, **past.env).splitlines()
    assert any("it would choose near, and middle is in force (difference 1, " in line for line in text)
    assert text[-1].startswith("2 primaries compared over ")


@pytest.mark.kafka
def test_a_shadow_is_published_under_a_prefix(past: Past, steady: Path) -> None:
    prefix = f"{past.topics.prefix}b-"
    succeeds("replay", "observations", "--policy", steady, "--to-kafka", prefix, **past.env)
    found = lines("tail", "failover-rankings", "--from-beginning", "--to-end", "--prefix", prefix, **past.env)
    assert {f["record"]["target_region"] for f in found} - {None} == {"near"}


# -- on into the present


@pytest.mark.kafka
def test_it_follows_the_live_journal_until_ctrl_c(past: Past, tmp_path: Path) -> None:
    log = tmp_path / "log"
    follow = ("replay", "observations", "--from", str(past.last_ms), "--follow")
    with running(*follow, log_path=log, **past.env) as command:
        wait_until(lambda: str(past.last_ms) in log.read_text(), 30, "history", children=[command])
        new = FailoverConfiguration("gamma", ["near"], 1)
        source = Source("failover-config", "another", 0, 0, 1)
        past.topics.publish("observations", encode(Observation("gamma", source, encode(new))), key="gamma")
        wait_until(lambda: '"gamma"' in log.read_text(), 30, "the present", children=[command])
        command.send_signal(signal.SIGINT)
        assert command.wait(20) == 130
    assert "Traceback" not in log.read_text()
    assert "records folded" in log.read_text()


@pytest.mark.kafka
def test_a_shadow_policy_beside_the_live_journal_sums_up_when_it_ends(past: Past, steady: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    shadow = ("replay", "observations", "--follow", "--policy", steady)
    with running(*shadow, log_path=log, **past.env) as command:
        wait_until(
            lambda: all(f"{p}: it would choose near" in log.read_text() for p in PRIMARIES), 30, "a difference each",
            children=[command],
        )  # fmt: skip
        command.send_signal(signal.SIGINT)
        assert command.wait(20) == 130
    assert "2 primaries compared over" in log.read_text()
    assert "Traceback" not in log.read_text()


# -- usage


@pytest.mark.parametrize(
    "arguments",
    [["mine.journal", "--follow"], ["mine.journal", "--beside"], ["observations", "--follow", "--to", "now"],
     ["observations", "--follow", "--speed", "2"], ["observations", "--from", "yesterday"],
     ["observations", "--from", "-1h", "--to", "-2h"], ["observations", "--topic", "mars"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage(arguments: list[str]) -> None:
    assert "Error: " in fails(2, "replay", *arguments)


def test_a_policy_with_mistakes_is_told_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("dwell = 1\nmargin_ratio = -1\n")
    assert "2 mistakes" in fails(1, "replay", "observations", "--policy", path)


def test_the_example_policy_has_no_mistake_and_is_not_the_default() -> None:
    assert read_policy(EXAMPLE) != Policy()


def test_no_time_is_no_moment() -> None:
    assert moment(None, "--from") is None


# -- checkpoints that are whole


def snapshot(key: str, next_offset: int, clock_ms: int = 0) -> Snapshot:
    return Snapshot(key, "1", "id", 0, next_offset, to_scalars({"clock_ms": clock_ms}), [])


ROUNDS = [
    snapshot("a", 10), snapshot(SHARED, 10, 100),
    snapshot("a", 20), snapshot("b", 20), snapshot(SHARED, 20, 200),
    snapshot("a", 30), snapshot("b", 30), snapshot(SHARED, 30, 300),
]  # fmt: skip


@pytest.mark.parametrize(
    ("at_ms", "expected"), [(100, []), (101, ROUNDS[:2]), (300, ROUNDS[2:5]), (301, ROUNDS[5:]), (9999, ROUNDS[5:])]
)
def test_the_nearest_round_before_a_moment_is_used_for_one_at_it_may_hold_what_it_decided(
    at_ms: int, expected: list[Snapshot]
) -> None:
    assert nearest_round(ROUNDS, at_ms, 0, whole=True) == expected


def test_a_round_whose_beginning_was_not_read_is_not_used() -> None:
    assert nearest_round(ROUNDS[3:5], 9999, 0, whole=False) == []
    assert nearest_round(ROUNDS[3:], 9999, 0, whole=False) == ROUNDS[5:]


def test_a_round_that_another_writer_broke_is_not_used() -> None:
    zombies = [*ROUNDS[:5], snapshot("a", 30), snapshot("b", 15), snapshot(SHARED, 30, 300)]
    assert nearest_round(zombies, 9999, 0, whole=True) == ROUNDS[2:5]


def test_a_round_before_what_the_journal_still_has_is_not_used() -> None:
    assert nearest_round(ROUNDS, 300, 21, whole=True) == []
    assert nearest_round(ROUNDS, 301, 21, whole=True) == ROUNDS[5:]


# -- offsets


@pytest.mark.kafka
def test_a_moment_is_an_offset_and_an_end_is_an_end(topics: Topics) -> None:
    topics.publish("observations", *(Tick(str(n)) for n in range(3)), key="alpha")
    wait_until(lambda: time.time_ns() // 1_000_000 > after_ms(topics), 5, "the next millisecond")
    topics.publish("observations", *(Tick(str(n)) for n in range(3, 6)), key="alpha")
    name = f"{topics.prefix}observations"
    assert offsets_at(topics.bootstrap, name, 0)[4] == 0
    assert offsets_at(topics.bootstrap, name, 1 << 60)[4] == 6
    assert offsets_at(topics.bootstrap, name, 0)[5] == 0
    assert offsets_at(topics.bootstrap, name, 0, [4]) == {4: 0}
    with TopicReader(topics.bootstrap, {name: {4: 1}}, {name: {4: 4}}) as reader:
        found = []
        while not reader.at_end:
            if (r := reader.poll(20)) is not None:
                found.append(r.offset)
        assert found == [1, 2, 3]
        assert [reader.poll(0.1) for _ in range(5)] == [None] * 5
    with TopicReader(topics.bootstrap, {name: {4: 4}}, {name: {4: 4}}) as reader:
        assert reader.at_end


def after_ms(topics: Topics) -> int:
    printed = lines("tail", "observations", "--from-beginning", "--limit", "3", **topics.environment)
    return max(int(f["appended_at_ms"]) for f in printed)
