"""The fold of the whole network: the same bytes after any restart, one content a number, bad input stops nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from schemas.codec import decode, encode
from schemas.records import (
    DeadLetter,
    Directive,
    EngineChanged,
    GraphRoute,
    GraphUpdate,
    NetworkGraphNode,
    NetworkVerdict,
    OperatorDirective,
    Reason,
    Record,
    Region,
    Snapshot,
)
from streams.core.network_engine import NetworkEngine
from streams.core.planning import Network
from streams.folding import Output
from streams.journal import JournalRecord
from streams.network_fold import GRAPH, NetworkFold
from tests.pipeline import seed_from_environment
from tests.streams.core.story import T0
from tests.streams.core.test_network_scenarios import routes
from tests.streams.core.world import World, lost, new_network_fold


@cache
def told() -> World:
    """A story with everything in it: a death, a silent agent, routes, a failover, loads, what is shared."""
    regions = [Region(r, 50, 8 + i, providers=["net"] if r in "cd" else []) for i, r in enumerate("abcde")]
    world = World(regions, loads=dict.fromkeys("abc", 0.6))
    world.run(8, lost())
    world.route(routes("a", {"b": [64501], "c": [64501, 65000], "d": [64502]}))
    world.run(14, lost(("*", "a")), silent=["b/0"])
    world.configure(OperatorDirective("x", Directive.EXECUTED, world.now_ms + 9000, "ops", "power", "a", "b"), None)
    world.run(12, lost(("d", "*")))
    return world


def outputs_of(fold: NetworkFold, records: Iterator[JournalRecord] | list[JournalRecord]) -> list[list[Output]]:
    return [fold.apply(record) for record in records]


def test_the_story_here_is_worth_folding() -> None:
    verdicts = [v for p in "abcde" for v in told().verdicts[p]]
    assert {v.health for v in verdicts} >= {"UP", "DOWN", "UNKNOWN"}
    assert {f.kind for v in verdicts for f in v.faults} >= {"AGENT", "TARGET_ACCESS", "PRIMARY_ACCESS"}
    assert {s.kind for v in verdicts for s in v.shared} == {"provider", "transit"}
    assert any(a.taken_by for v in verdicts for a in v.allotments)
    assert any(v.executed_to for v in verdicts)


def test_from_any_snapshot_the_rest_of_the_journal_gives_the_same_bytes() -> None:
    journal, due = told().graph_journal, told().graph_outputs
    chance = random.Random(seed_from_environment("restarts of the network's fold"))
    whole = new_network_fold()
    cuts = sorted(chance.sample(range(1, len(journal)), 12))
    snapshots: list[Snapshot] = []
    for offset, record in enumerate(journal):
        assert whole.apply(record) == due[offset]
        snapshots += whole.snapshots() if offset in cuts else []
    for cut in cuts:
        kept = [s for s in snapshots if s.next_offset <= cut + 1]
        fold = new_network_fold()
        fold.restore(decode(encode(s), Snapshot) for s in chance.sample(kept, len(kept)))
        assert fold.next_offset == cut + 1
        assert outputs_of(fold, journal[cut + 1 :]) == due[cut + 1 :]


def test_a_round_that_was_not_finished_leaves_the_one_before_it_whole() -> None:
    journal, due = told().graph_journal, told().graph_outputs
    fold = new_network_fold()
    outputs_of(fold, journal[:200])
    first = fold.snapshots()
    outputs_of(fold, journal[200:260])
    second = fold.snapshots()
    assert not {s.key for s in first[:-1]} & {s.key for s in second[:-1]}
    assert second[-1].key == GRAPH
    again = new_network_fold()
    again.restore([*first, *second[:-1]])
    assert again.next_offset == 200
    assert outputs_of(again, journal[200:]) == due[200:]


def test_what_comes_twice_changes_nothing() -> None:
    """Decide's restart says again what it has said: the same updates, behind those that followed them."""
    journal, due = told().graph_journal, told().graph_outputs
    fold, chance, found = new_network_fold(), random.Random(seed_from_environment("repeats")), []
    offset = 0
    for number, record in enumerate(journal):
        repeats = [journal[number - 1 - chance.randrange(min(number, 20))]] if number and number % 3 == 0 else []
        made = fold.apply(replace(record, offset=offset))
        for extra in repeats:
            offset += 1
            made += fold.apply(replace(extra, offset=offset, appended_at_ms=record.appended_at_ms))
        offset += 1
        found.append(made)
    assert found == due


def test_numbers_only_grow_and_each_has_one_content() -> None:
    seen: dict[tuple[str, bytes], int] = {}
    for output in (o for outputs in told().graph_outputs for o in outputs):
        if output.topic in ("network-verdicts", "network-graph"):
            record = decode(output.value, NetworkVerdict, NetworkGraphNode)
            key = (output.topic, output.key)
            assert record.sequence > seen.get(key, -1)
            seen[key] = record.sequence


def test_another_engine_version_is_silent_until_the_journal_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = told().graph_journal
    before = new_network_fold()
    outputs_of(before, journal[:150])
    kept = before.snapshots()
    reached = {o.key: decode(o.value, NetworkVerdict).sequence for made in outputs_of(before, journal[150:220])
               for o in made if o.topic == "network-verdicts"}  # fmt: skip
    monkeypatch.setattr(NetworkFold, "version", "another")
    runs = []
    for kill_at in (None, 230):
        fold = new_network_fold()
        fold.restore(kept)
        assert fold.awaits_engine_change
        change = JournalRecord(0, 220, journal[220].appended_at_ms, None, encode(EngineChanged("another", {})))
        rest = [*journal[150:220], change, *(replace(r, offset=r.offset + 1) for r in journal[220:])]
        made = []
        for record in rest:
            made.append(fold.apply(record))
            if record.offset == kill_at:
                snapshots = fold.snapshots()
                fold = new_network_fold()
                fold.restore(snapshots)
        assert not any(made[:71]), "nothing before it is said"
        runs.append(made)
    assert runs[0] == runs[1]
    later = [decode(o.value, NetworkVerdict) for made in runs[0] for o in made if o.topic == "network-verdicts"]
    first = {v.primary_region.encode(): v.sequence for v in reversed(later)}
    assert first.keys() == {b"abcde"[i : i + 1] for i in range(5)}
    assert all(first[key] > reached[key] for key in reached)


def test_bad_input_becomes_dead_letters_and_stops_nothing() -> None:
    update = GraphUpdate(
        "a", 1 << 50, 0, ["b", "c"], [], [],
        **GraphUpdate.packed(**{n: [1.0, 1.0] for n in GraphUpdate.COLUMNS if n != "state"}, state=[1, 1]),
    )  # fmt: skip
    bad: list[tuple[bytes, str]] = [
        (b"", Reason.MALFORMED),
        (b"\xc3\x01garbage of some length", Reason.UNKNOWN_SCHEMA),
        (encode(replace(update, latency_ms=b"123")), Reason.OUT_OF_RANGE),
        (encode(replace(update, targets=["b", "NO REGION"])), Reason.OUT_OF_RANGE),
        (encode(replace(update, primary_region="")), Reason.OUT_OF_RANGE),
        (encode(replace(update, says_routes=True, routes=[GraphRoute("no region!", [1])])), Reason.OUT_OF_RANGE),
        (encode(told().verdicts["a"][0]), Reason.WRONG_RECORD),
    ]
    journal, due = told().graph_journal, told().graph_outputs
    fold, found, letters, offset = new_network_fold(), [], [], 0
    for number, record in enumerate(journal):
        found.append(fold.apply(replace(record, offset=offset)))
        offset += 1
        if number % 20 == 0:
            value, reason = bad[number // 20 % len(bad)]
            made = fold.apply(JournalRecord(0, offset, record.appended_at_ms, b"x", value))
            offset += 1
            assert [o.topic for o in made] == ["dead-letters"]
            letters.append((decode(made[0].value, DeadLetter), reason, value))
    assert found == due
    assert all(letter.reason == reason and letter.found_by == "overview" for letter, reason, _ in letters)
    assert all(letter.original == value for letter, _, value in letters)


class _Breaks:
    """A planner that raises on one directive, and at one tick."""

    name = "breaks"

    def take(self, record: Record, key: str, now_ms: int) -> None:  # noqa: ARG002 - a protocol's
        if isinstance(record, OperatorDirective):
            raise RuntimeError("a bug")

    def step(self, now_ms: int, network: Network) -> list[Record]:  # noqa: ARG002
        if now_ms == T0 + 7600:
            raise RuntimeError("another bug")
        return []

    def save(self) -> dict[str, Any]:
        return {}

    def load(self, state: Any) -> None: ...


def test_a_planner_that_raises_costs_one_record_or_tick_and_a_dead_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine(NetworkEngine):
        def __init__(self) -> None:
            super().__init__([_Breaks])

    fold = NetworkFold(
        engine=Engine, topic="graph-updates", topic_id="graph-1", partition=0, tick_ms=1000, phase_ms=600
    )
    outputs = [o for made in outputs_of(fold, told().graph_journal) for o in made]
    letters = [decode(o.value, DeadLetter) for o in outputs if o.topic == "dead-letters"]
    assert [letter.reason for letter in letters] == [Reason.FOLD_ERROR] * 2
    assert "another bug" in letters[0].detail
    assert "a bug" in letters[1].detail
    assert fold.dead_letters == 2
    nodes = [o for o in outputs if o.topic == "network-graph"]
    assert nodes, "and on it goes"
