"""Whatever the network, operators and outsiders do: no fold error, no gap, and the same bytes from any snapshot."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode, encode
from schemas.records import (
    BandwidthMeasurement,
    Directive,
    Failback,
    InjectedMetric,
    Mode,
    OperatorDirective,
    Outcome,
    Policy,
    ReadinessCheck,
    ReadinessReport,
    Reason,
    RegionCatalog,
    RegionReach,
    RouteChange,
    RouteEvent,
    Snapshot,
    View,
)
from schemas.validate import METRICS
from streams.core.gates import DEAD
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import CATALOGUE, TARGETS, Network, Seen, Story, configuration, new_fold

SELDOM = ("directive", "metric", "bandwidth", "routes", "configuration", "silence", "nobody", "report", "agents")
AGENTS = ("agent-1", "agent-2", "agent-3")


def a_policy(chance: random.Random) -> Policy:
    return replace(
        STATED,
        quorum_ratio=chance.choice([0.34, 0.51, 1.0]),
        must_be_healthy=chance.choice([[], ["agent-1"], ["nobody"]]),
        fresh_ratio_min=chance.choice([0.0, 0.5, 1.0]),
        eligible_min=chance.choice([0, 1, 2, 9]),
        failback=chance.choice(list(Failback)),
        failback_delay_ms=chance.choice([0, 5000]),
        ejection_base_ms=chance.choice([0, 3000]),
        ejection_forgive_ms=chance.choice([1, 20_000]),
        slow_tau_ms=chance.choice([8000.0, 300_000.0]),
        stale_after_ms=chance.choice([2000, 10_000]),
        confidence_samples=chance.choice([1e-9, 3.0, 1e9]),
        baseline_exponent=chance.choice([0.0, 0.5]),
        loss_exponent=chance.choice([0.0, 1.0]),
        dwell_min_ms=chance.choice([0, 3000]),
        readiness_stale_after_ms=chance.choice([1000, 30_000]),
        readiness_forget_ms=chance.choice([30_000, 600_000]),
    )


def something(story: Story, chance: random.Random, version: int) -> int:
    """Let one thing happen; the configuration's version after it."""
    now_ms = story.now_ms
    match chance.choice((*SELDOM, "metric", "routes")):
        case "directive":
            kind = chance.choice(list(Directive))
            region = chance.choice([*TARGETS, "t-9"]) if kind in (Directive.PIN, Directive.DRAIN) else None
            primary = chance.choice([PRIMARY, PRIMARY, "us-9"]) if kind != Directive.DRAIN else None
            expires_at_ms = now_ms + chance.randrange(-1000, 12_000)
            name = f"d-{chance.randrange(3)}"
            story.say(OperatorDirective(name, kind, expires_at_ms, "ops", "why", primary, region), None)
        case "metric":
            metric = chance.choice(list(METRICS))
            low, high = METRICS[metric]
            value = float(chance.choice([low, high])) if metric == "healthy" else chance.uniform(low, high)
            target = chance.choice([*TARGETS, None])
            story.say(InjectedMetric(PRIMARY, target, metric, value, "log", now_ms, chance.randrange(1, 9000)))
        case "bandwidth":
            bps = chance.choice([0.0, 1e6, 1e15])
            story.say(BandwidthMeasurement("agent-1", PRIMARY, chance.choice(TARGETS), now_ms, bps, 0.1, 1000))
        case "routes":
            reach = [RegionReach(t, chance.choice([0, 0, 1, 2])) for t in chance.sample([*TARGETS, "t-9"], 2)]
            monitor, view = chance.choice(["bmp-1", "bmp-2"]), chance.choice(list(View))
            change = chance.choice(list(RouteChange))
            story.say(RouteEvent(monitor, PRIMARY, now_ms, change, "r", "192.0.2.1", 65_001, view, regions=reach))
        case "configuration":
            targets = chance.sample(TARGETS, chance.randrange(1, 4))
            based_on = version - chance.choice([0, 0, 1])
            if based_on >= 0:
                story.say(configuration(version + 1, based_on, targets, a_policy(chance)))
                return version + (based_on == version)
        case "agents":
            may = chance.choice([[], ["agent-1"], ["agent-1", "agent-2", "bmp-1", "p-1"], [*AGENTS, "bmp-2", "p-2"]])
            home, *others = CATALOGUE.regions
            story.say(RegionCatalog(2 + story.second, [replace(home, agents=may), *others]), None)
        case "report":
            check = ReadinessCheck("http", chance.choice([True, False]), "answered 500")
            at_ms, target = now_ms - chance.randrange(0, 40_000), chance.choice(TARGETS)
            story.say(ReadinessReport(PRIMARY, target, chance.choice(["p-1", "p-2", "p-3"]), at_ms, [check]))
        case "silence":
            story.second += chance.choice([3, 200])
        case "nobody":
            story.run(chance.choice([1, 12]), None)
    return version


def a_network(seed: int) -> dict[str, Network]:
    """Of each agent, what its probes see: any delay, any failure, or no probe at all, for a few seconds each."""

    def of(agent: str) -> Network:
        def seen(target: str, second: int) -> Sequence[Seen]:
            chance = random.Random(f"{seed} {target} {second // 4} {agent if second % 3 else ''}")
            what: Seen = chance.choice([0.0004, 5.0, 20.0, 25.0, 900.0, 65_000.0, *Outcome])
            return [] if chance.random() < 0.1 else [20.0 if what == Outcome.ANSWERED else what] * 2

        return seen

    return {agent: of(agent) for agent in AGENTS}


@settings(max_examples=25)
@given(st.integers(0, 1 << 32))
def test_whatever_comes_is_decided_without_error_or_gap_and_the_same_after_a_restart(seed: int) -> None:
    chance = random.Random(seed)
    story = Story.begun(a_policy(chance))
    network, version = a_network(seed), 1
    restarted, records, outputs = Story(new_fold()), 0, 0
    for step in range(25):
        version = something(story, chance, version)
        story.run_each(chance.randrange(1, 5), network)
        if step == 12:
            restarted.fold.restore([decode(encode(s), Snapshot) for s in story.fold.snapshots()])
            records, outputs = len(story.journal), len(story.outputs)
    for record in story.journal[records:]:
        restarted.outputs += restarted.fold.apply(record)
    assert restarted.outputs == story.outputs[outputs:]

    assert {b.sequence - a.sequence for a, b in pairwise(story.rankings)} <= {1}
    assert [letter.detail for letter in story.letters if letter.reason == Reason.FOLD_ERROR] == []
    for ranking in story.rankings:
        state = {c.region_id: c.ineligible_reason for c in ranking.candidates}
        target = ranking.target_region
        ordered = any(d.kind in (Directive.PIN, Directive.FREEZE) for d in ranking.directives)
        if target is not None and not ordered:
            assert state[target] not in DEAD
            alone = ranking.mode == Mode.THIN or None not in state.values()
            assert state[target] is None or alone
        assert all(0 < c.score <= 1 for c in ranking.candidates)
        assert len(ranking.reason) > 5
