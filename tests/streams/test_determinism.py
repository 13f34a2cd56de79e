"""Same journal, same bytes: in another process, from any snapshot, with everything in it twice.

The journal here is made by intake's own Flush from a scripted network, seen by three agents, with a brown-out, outages,
silences, a region that flaps, an agent that loses its own network, metrics, directives and configurations that come and
go, so that models learn, targets move, some are ejected, and candidates are renumbered.
"""

from __future__ import annotations

import gc
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer

from schemas.codec import decode, encode
from schemas.records import (
    BandwidthMeasurement,
    Directive,
    DisruptionPrediction,
    EngineChanged,
    Event,
    FailoverConfiguration,
    FailoverRanking,
    HealthEndpoint,
    InjectedMetric,
    Observation,
    OperatorDirective,
    Outcome,
    Policy,
    ProbeBatch,
    ReadinessCheck,
    ReadinessReport,
    Record,
    Region,
    RegionCatalog,
    RegionReach,
    RouteChange,
    RouteEvent,
    Snapshot,
    Source,
    Tick,
)
from streams.core.panes import Flush
from streams.fold import SHARED, JournalFold
from streams.folding import Output
from streams.journal import JournalHeader, JournalRecord, append, write_header
from streams.parallel import ParallelReplay
from streams.replay import Replay
from tests.pipeline import seed_from_environment

_START_MS = 1_700_000_000_000
_TARGETS = ("near", "middle", "far")
_PRIMARIES = ("alpha", "beta")
_AGENTS = ("a", "b", "c")
_POLICY = Policy(
    prediction_horizon_ms=5000,
    prediction_every_ms=2000,
    fast_tau_ms=3000,
    slow_tau_ms=10_000,
    stale_after_ms=4000,
    must_be_healthy=["c"],
    failback_delay_ms=5000,
    ejection_base_ms=4000,
    ejection_max_ms=12_000,
    ejection_forgive_ms=60_000,
    dwell_ms=4000,
    dwell_min_ms=2000,
    readiness_stale_after_ms=9000,
    readiness_forget_ms=40_000,
)
_SECONDS = 240


def test_another_process_with_another_hash_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("wb") as out:
        write_header(out, JournalHeader("observations", "id", 1))
        for record in journal():
            append(out, record)
    digests = {_replayed_elsewhere(path, hash_seed) for hash_seed in ("0", "4242")}
    assert len(digests) == 1
    assert digests == {_digest(outputs for _, outputs in unbroken())}


# Trust takes hours, or a liar: `core/test_foresight.py` and `core/test_trust.py` tell of it.
_OF_TRUST = {Event.PREDICTION_WARMED, Event.PREDICTION_TRUSTED, Event.PREDICTION_DISTRUSTED, Event.SOURCE_OVER_RATE,
             Event.SOURCE_DISTRUSTED}  # fmt: skip


def test_the_journal_here_is_worth_folding() -> None:
    outputs = [out for _, made in unbroken() for out in made]
    rankings = [decode(o.value, FailoverRanking) for o in outputs if o.topic == "failover-rankings"]
    predictions = [decode(o.value, DisruptionPrediction) for o in outputs if o.topic == "disruption-predictions"]
    assert {e for r in rankings for e in r.events} >= set(Event) - {Event.GAP, Event.ADVICE_CHANGED} - _OF_TRUST
    assert {c.ineligible_reason for r in rankings for c in r.candidates} >= {
        "DOWN", "DRAINED", "EJECTED", "NO_DATA", "STALE", "VETOED", None, "NOT_READY: http: answered 500",
    }  # fmt: skip
    assert 0.9 in {c.readiness for r in rankings for c in r.candidates}
    assert {d.kind for r in rankings for d in r.directives} == {Directive.PIN, Directive.DRAIN, Directive.FREEZE}
    assert any(c.waits for r in rankings for c in r.candidates)
    assert any(r.suspect_agents for r in rankings)
    assert all(any(f"{word} by ops" in r.reason for r in rankings) for word in ("pinned", "frozen"))
    assert {o.topic for o in outputs} == {
        "failover-rankings", "path-weights", "disruption-predictions", "prediction-scorecards", "readiness-requests",
        "dead-letters", "graph-updates",
    }  # fmt: skip
    assert max(p.labels_learnt for p in predictions) > 100
    assert len({p.probability for prediction in predictions for p in prediction.paths}) > 50


@pytest.mark.parametrize("every", [1, 7, 50])
def test_a_fold_restored_at_every_so_many_records_makes_the_same_bytes(every: int) -> None:
    records = journal()
    fold = new_fold()
    for number, (record, expected) in enumerate(zip(records, unbroken(), strict=False)):
        if number % every == 0:
            saved = _through_kafka(fold.snapshots())
            fold = new_fold()
            fold.restore(random.Random(number).sample(saved, len(saved)))
        assert (record.offset, fold.apply(record)) == expected


def test_a_fold_restored_from_a_round_that_a_kill_tore_makes_the_same_bytes() -> None:
    """Each primary's snapshot may be of another round than the partition's own, which is never the newer."""
    chance = random.Random(seed_from_environment("torn rounds"))
    records = journal()
    for _ in range(4):
        cuts = sorted(chance.sample(range(60, len(records)), 2))
        rounds = _rounds_at(records, cuts)
        of_primary = {p: chance.choice(cuts) for p in _PRIMARIES}
        fold = new_fold()
        fold.restore(
            [s for s in rounds[cuts[0]] if s.key == SHARED]
            + [s for cut in cuts for s in rounds[cut] if s.key != SHARED and cut <= of_primary[s.key]]
        )
        assert fold.next_offset == records[cuts[0]].offset
        for record, (_, expected) in zip(records[cuts[0] :], unbroken()[cuts[0] :], strict=True):
            due = [o for o in expected if record.offset >= records[_cut_of(o, of_primary, cuts[0])].offset]
            made = fold.apply(record)
            assert _without_letters(made) == _without_letters(due)


@pytest.mark.parametrize("processes", [1, 3])
def test_several_processes_make_of_a_journal_what_one_does_in_the_same_order(processes: int) -> None:
    other = [replace(r, partition=r.partition + 5) for r in journal()[:300]]
    records = sorted([*journal()[:300], *other], key=lambda r: (r.appended_at_ms, r.offset, r.partition))
    alone = list(Replay(topic_id="id").each(records))
    topics = [
        "failover-rankings", "path-weights", "disruption-predictions", "prediction-scorecards", "readiness-requests",
        "graph-updates",
        "dead-letters",
    ]  # fmt: skip
    with ParallelReplay(Replay(topic_id="id"), processes, topics) as replay:
        assert list(replay.each(records)) == alone
        assert replay.records == len(records)


def test_processes_that_fold_leave_alone_the_kafka_clients_that_their_parent_has_yet_to_collect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apply_all = Replay.apply_all

    def collect_first(self: Replay, records: Sequence[JournalRecord]) -> list[list[Output]]:
        gc.collect()
        return apply_all(self, records)

    gc.disable()
    try:
        consumer = Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "nobody", "log_level": 0})
        consumer.subscribe(["nothing"])
        ring: list[object] = [consumer]
        ring.append(ring)
        del consumer, ring
        monkeypatch.setattr(Replay, "apply_all", collect_first)
        with ParallelReplay(Replay(topic_id="id"), 1, ["failover-rankings"]) as replay:
            assert len(list(replay.each(journal()[:100]))) == 100
    finally:
        gc.enable()


def test_everything_twice_in_the_journal_changes_nothing() -> None:
    """What a restarted intake sends again: the last flushes, the same, anywhere behind their first copies."""
    chance = random.Random(seed_from_environment("duplicates"))
    fold, again = new_fold(), new_fold()
    seen: list[JournalRecord] = []
    made: list[bytes] = []
    for record in journal():
        fold.apply(record)
        seen.append(record)
        copies = chance.sample(seen[-30:], min(len(seen), chance.randrange(4)))
        for copy in (record, *sorted(copies, key=lambda r: r.offset)):
            shifted = replace(copy, offset=again.next_offset or 0, appended_at_ms=record.appended_at_ms)
            made += [o.value for o in again.apply(shifted) if o.topic != "dead-letters"]
    assert made == [o.value for _, outputs in unbroken() for o in outputs if o.topic != "dead-letters"]


def test_parts_of_a_flush_count_only_in_their_order() -> None:
    fold = new_fold()
    for record in journal()[:60]:
        fold.apply(record)
    first = fold.next_offset or 0
    at_ms = journal()[59].appended_at_ms
    metric = [InjectedMetric("alpha", "far", "latency_ms", 100.0 + i, f"part-{i}", at_ms) for i in range(3)]

    def part(number: int, offset: int) -> JournalRecord:
        source = Source("injected-metrics", "parts", 0, 10, 20, at_ms, part=number, parts=3)
        return _record(offset, at_ms, Observation("alpha", source, encode(metric[number])))

    for offset, number in enumerate([1, 0, 2, 1, 0, 2, 2], start=first):
        fold.apply(part(number, offset))
    sources = [key.rpartition(" ")[2] for key in fold.engines["alpha"].save()[0]["injected"]]
    assert [s for s in sources if s.startswith("part")] == ["part-0", "part-1", "part-2"]


def test_another_engine_version_is_silent_until_the_journal_says_so_and_goes_on_above_the_numbers_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = journal()
    cut, change = 200, 260
    before = new_fold()
    for record in records[:cut]:
        before.apply(record)
    saved = _through_kafka(before.snapshots())
    for record in records[cut:change]:
        before.apply(record)  # the old version went on until here, after its last round
    reached = {p: e._state.sequence for p, e in before.engines.items()}

    monkeypatch.setattr(JournalFold, "version", "another")
    runs = []
    for kill_at in (None, change + 20, change - 20):
        fold = new_fold()
        fold.restore(saved)
        assert fold.awaits_engine_change
        made: dict[int, list[Output]] = {}
        offset, at_ms = records[change].offset, records[change].appended_at_ms
        changed = _record(offset, at_ms, EngineChanged("another", reached))
        later = [replace(r, offset=r.offset + 1) for r in records[change:]]
        for number, record in enumerate([*records[cut:change], changed, *later], start=cut):
            if number == kill_at:
                again = new_fold()
                again.restore(_through_kafka(fold.snapshots()))
                fold = again
            made[number] = [o for o in fold.apply(record) if o.topic != "dead-letters"]
        assert not any(made[n] for n in range(cut, change))
        assert not fold.awaits_engine_change
        runs.append(made)
    assert runs[0] == runs[1] == runs[2]
    sequences: dict[str, list[int]] = defaultdict(list)
    for outputs in runs[0].values():
        for out in outputs:
            if out.topic == "failover-rankings":
                sequences[out.key.decode()].append(decode(out.value, FailoverRanking).sequence)
    for primary, numbers in sequences.items():
        assert numbers == list(range(reached[primary] + 1, reached[primary] + 1 + len(numbers)))
    assert sequences.keys() == reached.keys()


def test_records_gone_from_the_broker_are_said_as_a_gap_and_above_the_numbers_reached_with_them() -> None:
    fold = new_fold()
    records = journal()
    for record in records[:200]:
        fold.apply(record)
    sequence = fold.engines["alpha"]._state.sequence
    fold.gap(records[230].offset, {"alpha": sequence + 4})
    assert [o for r in records[200:230] for o in fold.apply(r)] == []
    rankings = [decode(o.value, FailoverRanking) for r in records[230:260] for o in fold.apply(r) if _is_alphas(o)]
    assert Event.GAP in rankings[0].events
    assert rankings[0].sequence == sequence + 5


# -- the journal ------------------------------------------------------------------------------------------------------


def new_fold() -> JournalFold:
    return JournalFold(topic="observations", topic_id="id", partition=0, tick_ms=1000, phase_ms=300)


@cache
def unbroken() -> list[tuple[int, list[Output]]]:
    """What each record makes us publish when nothing ever stops."""
    fold = new_fold()
    return [(record.offset, fold.apply(record)) for record in journal()]


@cache
def journal() -> list[JournalRecord]:
    """One partition with two primaries, about four minutes."""
    script = _Script(random.Random(5))
    for second in range(_SECONDS):
        script.second(second)
    return script.records


class _Script:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.records: list[JournalRecord] = []
        self._offsets: dict[str, int] = defaultdict(int)
        self._now_ms = _START_MS
        places = {"alpha": (0, 0), "beta": (3, 3), "near": (5, 5), "middle": (15, 15), "far": (-20, 40)}
        health = [HealthEndpoint("tcp://192.0.2.1:443")]
        regions = [Region(name, *place, health=health) for name, place in places.items()]
        self._say("failover-config", None, RegionCatalog(1, regions))
        for primary in _PRIMARIES:
            self._configure(primary, _TARGETS, 1, 0)

    def second(self, number: int) -> None:
        self._now_ms = _START_MS + 1000 * number + self._chance.randrange(100)
        if 150 <= number < 158:
            return  # nothing reached us at all
        if 100 <= number < 110:  # the agents are silent, and only the metronome goes on
            self._append(self._now_ms, Tick("worker-1"))
            return
        self._flush(number)
        if number % 3 == 0:
            value = self._chance.uniform(10, 200)
            self._say(
                "injected-metrics", "alpha", InjectedMetric("alpha", "far", "latency_ms", value, "log", self._now_ms)
            )
        if number % 40 == 20:
            healthy = float(number % 80 == 20)
            metric = InjectedMetric("beta", "near", "healthy", healthy, "probe", self._now_ms, 15_000)
            self._say("injected-metrics", "beta", metric)
        if number % 10 == 0:
            self._say(
                "injected-metrics", "alpha", InjectedMetric("alpha", "nowhere", "latency_ms", 5.0, "log", self._now_ms)
            )
            measured = BandwidthMeasurement("a", "alpha", "middle", self._now_ms, 1e9 + number, 0.1, 1000)
            self._say("probe-samples", "alpha", measured)
        if number % 30 == 25:
            routes = [RegionReach("middle", number % 4), RegionReach("near", number % 60 // 30)]
            told = RouteChange.WITHDRAWN if number % 60 == 25 else RouteChange.REACHABLE
            event = RouteEvent("bmp", "alpha", self._now_ms, told, "r", "192.0.2.1", 65_001, regions=routes)
            self._say("bgp-events", "alpha", event)
        if number % 12 == 4:
            check = ReadinessCheck("http", number % 36 != 16, "answered 500")
            report = ReadinessReport("beta", "near", f"p-{number % 2}", self._now_ms, [check])
            self._say("readiness-reports", "beta", report)
        self._direct(number)
        if number == 60:
            self._configure("alpha", ("middle", "far", "near"), 2, 1)
        if number == 70:
            self._configure("alpha", ("far",), 4, 3)  # based on a version that never was
        if number == 130:
            self._configure("alpha", ("far", "near"), 3, 2)
        if number == 180:
            self._configure("alpha", _TARGETS, 5, 3)
        if number == 200:
            self._say("failover-config", None, RegionCatalog(2, [Region("alpha", 0, 0), Region("far", 1, 1, "", 0.5)]))

    def _direct(self, number: int) -> None:
        """Operators at work: a pin, the same again, a drain everywhere, a freeze, and some that do not count."""
        pin, drain, freeze = Directive.PIN, Directive.DRAIN, Directive.FREEZE
        told: dict[int, list[tuple[str, str, int, str | None, str | None]]] = {
            40: [("pin", pin, 55, "alpha", "far")],
            44: [("pin", pin, 55, "alpha", "far"), ("stranger", pin, 60, "alpha", "nowhere")],
            82: [("drain", drain, 95, None, "near")],
            86: [("over", freeze, 80, "alpha", None)],
            162: [("freeze", freeze, 190, "beta", None), ("elsewhere", pin, 230, "gamma", "far")],
            176: [("freeze", freeze, 170, "beta", None)],
            210: [("pin", pin, 222, "beta", "near"), ("pin-2", pin, 218, "beta", "middle")],
        }
        for directive_id, kind, until, primary, region in told.get(number, []):
            expires_at_ms = _START_MS + 1000 * until
            directive = OperatorDirective(directive_id, kind, expires_at_ms, "ops", "a drill", primary, region)
            self._say("failover-config", None, directive)

    def _configure(self, primary: str, targets: Sequence[str], version: int, based_on: int) -> None:
        weights = {targets[0]: 0.9} if version > 1 else {}
        self._say(
            "failover-config",
            primary,
            FailoverConfiguration(primary, list(targets), version, weights, based_on, "", _POLICY),
        )

    def _flush(self, number: int) -> None:
        flush = Flush(pane_ms=1000, ahead_ms_max=5000, lateness_ms_max=3_600_000)
        first = self._offsets["probe-samples"]
        for primary in _PRIMARIES:
            for agent in _AGENTS:
                flush.add(self._batch(primary, agent, number), self._offsets["probe-samples"], self._now_ms)
                self._offsets["probe-samples"] += 1
        panes, rejected = flush.condense()
        assert not rejected
        for part, (primary, body) in enumerate(panes.items()):
            source = Source(
                "probe-samples", "samples", 0, first, self._offsets["probe-samples"], self._now_ms, part, len(panes)
            )
            self._append(self._now_ms + 5, Observation(primary, source, encode(body)))

    def _batch(self, primary: str, agent: str, number: int) -> ProbeBatch:
        samples = 12
        target = np.arange(samples) % 3
        generator = np.random.default_rng(self._chance.randrange(1 << 32))
        rtt = np.array([20.0, 60.0, 110.0])[target] * generator.lognormal(0, 0.05, samples)
        slow = 15 < number % 45 < 24  # a brown-out of one, and soon an outage of another
        rtt[target == 0] *= 4 if slow else 1
        lost = (target == 1) & (30 < number % 70 < 40) | (generator.random(samples) < 0.03)
        lost |= (target == 0) & (112 <= number < 150) & (number % 12 < 5)  # it flaps, and is ejected
        lost |= (target == 2) & (agent == "c") & (190 <= number < 200)  # who must reach it cannot
        lost |= (agent == "b") & (70 <= number < 78)  # whose own network is gone
        return ProbeBatch.of(
            agent_id=agent,
            primary_region=primary,
            started_at_ms=self._now_ms - 1000 - (5000 if agent == "b" and number % 20 == 0 else 0),
            targets=list(_TARGETS),
            methods=["icmp"],
            target_index=target,
            method_index=np.zeros(samples),
            sent_offset_ms=np.arange(samples) * 80.0,
            rtt_ms=np.where(lost, np.nan, rtt),
            outcome=lost * int(Outcome.TIMED_OUT),
            code=np.zeros(samples),
        )

    def _say(self, topic: str, primary: str | None, body: Record) -> None:
        offset = self._offsets[topic]
        self._offsets[topic] += 1
        source_id = "samples" if topic == "probe-samples" else topic
        self._append(
            self._now_ms,
            Observation(primary, Source(topic, source_id, 0, offset, offset + 1, self._now_ms), encode(body)),
        )

    def _append(self, at_ms: int, content: Observation | Tick) -> None:
        self.records.append(_record(len(self.records) + 100, at_ms, content))


def _record(offset: int, at_ms: int, content: Record) -> JournalRecord:
    return JournalRecord(0, offset, at_ms, None, encode(content))


# -- comparisons ------------------------------------------------------------------------------------------------------

_ELSEWHERE = """
import hashlib, sys
from pathlib import Path
from streams.journal import read
from streams.replay import Replay
digest = hashlib.sha256()
for made in Replay(topic_id="id").run(read(Path(sys.argv[1]))):
    digest.update(made.output.topic.encode() + made.output.key + made.output.value)
print(digest.hexdigest())
"""


def _replayed_elsewhere(path: Path, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, path],
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _digest(outputs: Iterator[list[Output]]) -> str:
    import hashlib  # noqa: PLC0415 - beside its like in _ELSEWHERE

    digest = hashlib.sha256()
    for made in outputs:
        for output in made:
            digest.update(output.topic.encode() + output.key + output.value)
    return digest.hexdigest()


def _through_kafka(snapshots: list[Snapshot]) -> list[Snapshot]:
    return [decode(encode(s), Snapshot) for s in snapshots]


def _rounds_at(records: Sequence[JournalRecord], cuts: Sequence[int]) -> dict[int, list[Snapshot]]:
    fold, found = new_fold(), {}
    for number, record in enumerate(records):
        if number in cuts:
            found[number] = _through_kafka(fold.snapshots())
        fold.apply(record)
    return found


def _cut_of(output: Output, of_primary: dict[str, int], otherwise: int) -> int:
    return of_primary.get(output.key.decode(), otherwise)


def _without_letters(outputs: Sequence[Output]) -> list[Any]:
    """A dead letter is said again or not when it was said before the kill: readers drop it by its source."""
    return [o for o in outputs if o.topic != "dead-letters"]


def _is_alphas(output: Output) -> bool:
    return output.topic == "failover-rankings" and output.key == b"alpha"
