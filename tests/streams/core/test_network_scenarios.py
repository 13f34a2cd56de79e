"""What decide and overview make of it together: a primary that dies, observers that are blind, risks and loads."""

from __future__ import annotations

import pytest

from schemas.records import (
    Advice,
    Directive,
    Event,
    FaultKind,
    Health,
    InjectedMetric,
    OperatorDirective,
    Outcome,
    Region,
    RegionReach,
    Route,
    RouteChange,
    RouteEvent,
)
from tests.streams.core.world import Network, World, lost, policy

REGIONS = ("a", "b", "c", "d", "e")
ALL_WELL = lost()


def told(world: World, primary: str) -> tuple[str, str]:
    return world.last(primary).advice, world.verdict(primary).health


# -- a primary's health


def test_a_region_that_dies_is_left_within_four_seconds_and_who_saw_it_is_said() -> None:
    world = World(REGIONS)
    world.run(15, ALL_WELL)
    assert told(world, "a") == (Advice.HOLD, Health.UP)
    dead = lost(("*", "a"))
    assert world.seconds_until(lambda: world.last("a").advice == Advice.FAIL_OVER, dead) <= 4
    assert "; a is DOWN: b, c and d get no answer (3 of 4 observers)" in world.last("a").reason
    world.run(11, dead)
    assert "; a is DOWN: b, c, d and e get no answer (4 of 4 observers)" in world.last("a").reason
    assert {o.region_id: o.sees for o in world.verdict("a").observers} == dict.fromkeys("bcde", Health.DOWN)
    assert world.letters == []


def test_a_minority_that_cannot_reach_a_primary_moves_nothing() -> None:
    world = World(REGIONS)
    world.run(15, ALL_WELL)
    world.run(15, lost(("b", "a")))
    assert told(world, "a") == (Advice.HOLD, Health.UP)


def test_what_a_single_observer_sees_is_a_suspicion_and_no_verdict() -> None:
    world = World(REGIONS, primaries=("a", "b"))
    world.run(15, ALL_WELL)
    world.run(10, lost(("b", "a")))
    assert told(world, "a") == (Advice.PREPARE, Health.DEGRADED)


@pytest.mark.parametrize("blind", ["bcd", "bcde"])
def test_observers_that_lost_their_own_connection_are_no_evidence(blind: str) -> None:
    world = World(REGIONS)
    world.run(15, ALL_WELL)
    world.run(15, lost(*((observer, "*") for observer in blind)))
    assert Advice.FAIL_OVER not in {r.advice for r in world.rankings["a"]}
    assert Health.DOWN not in {v.health for v in world.verdicts["a"]}


def test_a_primary_that_all_find_worse_than_usual_asks_to_prepare() -> None:
    def slow(_: str, target: str, __: int) -> float:
        return 80.0 if target == "a" else 20.0

    world = World(REGIONS)
    world.run(30, ALL_WELL)
    assert world.seconds_until(lambda: told(world, "a") == (Advice.PREPARE, Health.DEGRADED), slow) <= 12
    assert "a is DEGRADED" in world.last("a").reason


def test_a_primary_that_is_back_is_up_again_after_three_ticks() -> None:
    world = World(REGIONS)
    world.run(15, ALL_WELL)
    world.run(8, lost(("*", "a")))
    assert told(world, "a")[0] == Advice.FAIL_OVER
    assert world.seconds_until(lambda: told(world, "a") == (Advice.HOLD, Health.UP), ALL_WELL) <= 12


def test_when_the_overview_is_silent_its_last_word_counts_no_longer_than_it_said() -> None:
    world = World(REGIONS)
    world.run(15, ALL_WELL)
    world.run(8, lost(("*", "a")))
    world.overview.engine.muted = True
    assert world.seconds_until(lambda: world.last("a").advice == Advice.HOLD, lost(("*", "a"))) in range(20, 35)


def test_a_dead_agent_is_the_agents_fault_and_no_regions() -> None:
    world = World(REGIONS)
    world.run(20, ALL_WELL)
    world.run(20, ALL_WELL, silent=["b/1"])
    [fault] = world.verdict("b").faults
    assert (fault.kind, fault.name, fault.regions) == (FaultKind.AGENT, "b/1", ["b"])
    assert all(v.health in (Health.UP, Health.UNKNOWN) for p in REGIONS for v in world.verdicts[p])


# -- failovers that have happened, and capacity


def executed(world: World, primary: str, region: str, *, until_s: int = 1000) -> None:
    directive = OperatorDirective(
        f"x-{primary}", Directive.EXECUTED, world.now_ms + until_s * 1000, "ops", "power", primary, region
    )
    world.configure(directive, None)


def unwell(world: World, source: str, value: float = 0.0) -> InjectedMetric:
    """What a source says of the health of a."""
    return InjectedMetric("a", None, "healthy", value, source, world.now_ms)


def says_every_ten_seconds(world: World, source: str, network: Network, seconds: int) -> list[Advice]:
    """The advice of each second while it is said that a is not healthy."""
    found = []
    for second in range(seconds):
        if second % 10 == 0:
            world.inject(unwell(world, source))
        world.run(1, network)
        found.append(Advice(world.last("a").advice))
    return found


def test_against_observers_who_reach_a_primary_a_source_asks_to_prepare_by_name_until_it_is_not_believed() -> None:
    world = World("abc")
    world.run(15, ALL_WELL)
    assert told(world, "a") == (Advice.HOLD, Health.UP)
    known = len(world.rankings["a"])
    advised = says_every_ten_seconds(world, "liar", ALL_WELL, 100)
    assert advised[0] == Advice.PREPARE, "the network sees no applications, so a word of one who does is worth a look"
    assert advised[70] == Advice.PREPARE
    assert set(advised[90:]) == {Advice.HOLD}
    said = world.rankings["a"][known:]
    assert Event.SOURCE_DISTRUSTED in {e for ranking in said for e in ranking.events}
    assert all("a is not healthy, as liar said" in r.reason for r in said if r.advice == Advice.PREPARE)
    assert all("liar" not in r.reason for r in said if r.advice == Advice.HOLD)
    world.inject(unwell(world, "load-balancer"))
    world.run(1, ALL_WELL)
    assert world.last("a").advice == Advice.PREPARE, "another source has a standing of its own"
    assert "as load-balancer said" in world.last("a").reason
    assert {c.region_id for c in world.last("a").candidates if not c.eligible} == set()


def test_where_no_observer_can_say_how_a_primary_is_a_source_is_heard_as_long_as_it_says_so() -> None:
    world = World("abc", primaries="a")
    world.run(15, ALL_WELL)
    assert set(says_every_ten_seconds(world, "load-balancer", ALL_WELL, 100)) == {Advice.PREPARE}


def test_a_source_that_says_of_a_dead_primary_what_observers_see_keeps_its_standing() -> None:
    world = World("abc")
    world.run(15, ALL_WELL)
    dead = lost(("*", "a"))
    says_every_ten_seconds(world, "load-balancer", dead, 120)
    assert told(world, "a") == (Advice.FAIL_OVER, Health.DOWN)
    world.run(20, ALL_WELL)
    world.inject(unwell(world, "load-balancer", 1.0))
    world.run(5, ALL_WELL)
    assert told(world, "a") == (Advice.HOLD, Health.UP)
    world.inject(unwell(world, "load-balancer"))
    world.run(1, ALL_WELL)
    assert world.last("a").advice == Advice.PREPARE


def test_once_the_failover_has_happened_nobody_is_asked_to_do_it_again() -> None:
    world = World(REGIONS)
    world.run(15, ALL_WELL)
    dead = lost(("*", "a"))
    world.run(6, dead)
    assert world.last("a").advice == Advice.FAIL_OVER
    target = world.last("a").target_region
    executed(world, "a", str(target))
    world.run(2, dead)
    assert world.last("a").advice == Advice.HOLD
    assert f"its traffic was moved to {target}" in world.last("a").reason
    # And the target dies as well.
    world.run(10, lost(("*", "a"), ("*", str(target))))
    assert world.last("a").target_region != target
    assert world.last("a").advice == Advice.FAIL_OVER


def test_capacity_that_a_failover_uses_is_gone_for_the_others() -> None:
    world = World(REGIONS, loads=dict.fromkeys("ab", 0.6))
    world.run(15, ALL_WELL)
    world.run(6, lost(("*", "a")))
    target = "c"
    executed(world, "a", target)
    world.run(5, lost(("*", "a")))
    reasons = {c.region_id: c.ineligible_reason for c in world.last("b").candidates}
    assert reasons[target] == "NO_CAPACITY"
    assert world.last("b").target_region not in (target, None)
    [allotment] = [a for a in world.verdict("b").allotments if a.region_id == target]
    assert (allotment.free_ratio, allotment.taken_by) == (0.4, ["a"])
    directive = OperatorDirective("x-a", Directive.EXECUTED, 0, "ops", "back", "a", target)
    world.configure(directive, None)
    world.run(5, ALL_WELL)
    assert "NO_CAPACITY" not in {c.ineligible_reason for c in world.last("b").candidates}


def test_capacity_that_two_primaries_count_on_is_counted_once() -> None:
    near = [Region("a", 50, 8), Region("b", 50, 8), Region("t", 50, 9), Region("u", 50, 30)]
    both = World(near, primaries=("a", "b"), loads=dict.fromkeys("ab", 0.6))
    both.run(20, ALL_WELL)
    targets = {both.last(p).target_region for p in "ab"}
    assert len(targets) == 2, "the second goes elsewhere"
    half = World(near, primaries=("a", "b"), loads=dict.fromkeys("ab", 0.5))
    half.run(20, ALL_WELL)
    assert not any(c.ineligible_reason == "NO_CAPACITY" for p in "ab" for c in half.last(p).candidates)


# -- shared risk


def order(world: World, primary: str) -> list[str]:
    return [c.region_id for c in world.last(primary).candidates if c.eligible]


def test_of_two_candidates_behind_one_transit_the_second_ranks_behind_a_third_which_is_there_when_it_fails() -> None:
    def seen(_: str, target: str, __: int) -> float:
        return {"b": 20.0, "c": 20.5, "d": 22.0}.get(target, 20.0)

    def failed(_: str, target: str, __: int) -> float | Outcome:
        return Outcome.TIMED_OUT if target in ("b", "c") else seen("", target, 0)

    world = World([Region(r, 50.0, 8.0) for r in "abcd"], primaries=("a",), policy=policy(shared_risk_weight=0.1))
    world.run(20, seen)
    assert order(world, "a") == ["b", "c", "d"]
    ways = {"b": [64501, 65001], "c": [64501, 65002], "d": [64502, 65003]}
    world.route(routes("a", ways))
    world.run(5, seen)
    assert order(world, "a") == ["b", "d", "c"]
    assert "c ranks behind d: it shares transit AS 64501 with b" in world.last("a").reason
    assert next(c for c in world.last("a").candidates if c.region_id == "c").contributions["shared_risk"] < 0
    assert world.last("a").target_region == "b", "what it shares is no reason to leave it"
    passed = world.seconds_until(lambda: world.last("a").target_region == "d", failed)
    assert passed <= 3
    assert "c" not in {r.target_region for r in world.rankings["a"][-10:]}


def test_a_candidate_that_rides_the_primarys_own_transit_costs_and_says_so() -> None:
    providers = {"a": ["north"], "b": ["north"], "c": ["south"]}
    world = World([Region(r, 50, 8, providers=providers[r]) for r in "abc"], primaries=("a",))
    world.run(20, ALL_WELL)
    assert order(world, "a") == ["c", "b"]
    alone = World([Region(r, 50, 8, providers=providers[r]) for r in "ab"], primaries=("a",))
    alone.run(20, ALL_WELL)
    assert "b shares provider north with the primary" in alone.last("a").reason


def test_without_anything_shared_nothing_is_said_and_nothing_costs() -> None:
    world = World([Region(r, 50, 8, providers=[f"net-{r}"]) for r in "abc"], primaries=("a",))
    world.run(20, ALL_WELL)
    assert "shares" not in world.last("a").reason
    assert all("shared_risk" not in c.contributions for c in world.last("a").candidates)


def routes(primary: str, ways: dict[str, list[int]]) -> RouteEvent:
    return RouteEvent(
        agent_id="monitor-1",
        primary_region=primary,
        observed_at_ms=0,
        kind=RouteChange.REACHABLE,
        router="r1",
        peer="192.0.2.1",
        peer_as=64500,
        routes=[Route(r, f"198.51.{i}.0/24", [64500, *way], len(way) + 1) for i, (r, way) in enumerate(ways.items())],
        regions=[RegionReach(region, 1) for region in ways],
    )


# -- the graph


def test_the_graph_has_every_region_with_its_paths_and_what_they_come_to() -> None:
    def network(_: str, target: str, __: int) -> float:
        return 10.0 + 10 * REGIONS.index(target)

    world = World(REGIONS)
    world.run(15, network)
    assert world.nodes.keys() == set(REGIONS)
    node = world.nodes["c"]
    assert [edge.target_region for edge in node.edges] == ["a", "b", "d", "e"]
    assert node.edges[0].latency_ms == pytest.approx(10.0, rel=0.01)
    assert node.latency_ms == pytest.approx(30.0, rel=0.01)
    assert node.packet_loss_ratio == 0
    edges = [(n.region_id, edge) for n in world.nodes.values() for edge in n.edges]
    weights = [edge.weight for begin, edge in edges if "c" in (begin, edge.target_region)]
    assert min(weights) <= (node.weight or 0) <= max(weights)
    assert {edge.state for edge in node.edges} == {"GOOD"}
    world.run(6, lost(("c", "a")))
    assert world.nodes["c"].edges[0].state == "DOWN"


def test_a_node_is_said_again_only_when_it_changed_or_as_a_heartbeat() -> None:
    world = World(REGIONS)
    world.run(40, ALL_WELL)
    before = {region: node.sequence for region, node in world.nodes.items()}
    world.run(20, ALL_WELL)
    assert sum(world.nodes[r].sequence > before[r] for r in REGIONS) <= len(REGIONS)
    changes = [len([o for o in outs if o.topic == "network-graph"]) for outs in world.graph_outputs]
    assert sum(changes[-200:]) <= 3 * len(REGIONS)
