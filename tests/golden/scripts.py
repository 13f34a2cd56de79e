"""What happens in each golden journal. Nothing here looks at a decision, so any engine records the same journal."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from schemas.records import (
    BandwidthMeasurement,
    Directive,
    Failback,
    InjectedMetric,
    OperatorDirective,
    Outcome,
)
from tests.streams.core.policy import STATED
from tests.streams.core.probing import PRIMARY
from tests.streams.core.story import Network, Seen, Story, configuration

_RTT_MS: Final = {"t-1": 20.0, "t-2": 30.0, "t-3": 60.0}
_LOST: Final = (Outcome.TIMED_OUT, Outcome.TIMED_OUT)


def brownout_and_failback() -> Story:
    """t-1 is slow for 35 s, later dead for 10 s; it comes back after both, the second time after the wait."""
    story = Story.begun(replace(STATED, failback=Failback.DELAYED, failback_delay_ms=20_000))

    def seen(target: str, second: int, calm: Sequence[Seen]) -> Sequence[Seen]:
        if target == "t-1" and 40 <= second < 75:
            return [4 * s for s in calm if not isinstance(s, Outcome)]
        return _LOST if target == "t-1" and 130 <= second < 140 else calm

    story.run(220, _noisy("brownout", seen))
    return story


def flapping_and_ejection() -> Story:
    """t-1 dies for 6 s every 24 s, five times, and is then well; at last everything is gone for 8 s."""
    policy = replace(
        STATED,
        failback=Failback.IMMEDIATE,
        ejection_base_ms=10_000,
        ejection_max_ms=40_000,
        ejection_forgive_ms=60_000,
    )
    story = Story.begun(policy)

    def seen(target: str, second: int, calm: Sequence[Seen]) -> Sequence[Seen]:
        flaps = target == "t-1" and 30 <= second < 150 and (second - 30) % 24 < 6
        return _LOST if flaps or 270 <= second < 278 else calm

    story.run(300, _noisy("flapping", seen))
    return story


def quorum_veto_and_suspects() -> Story:
    """Of three agents one doubts t-1, then two; one that must be healthy loses t-2; one loses everything; all fall
    silent; the workers are cut off."""
    story = Story.begun(replace(STATED, must_be_healthy=["agent-1"], failback_delay_ms=10_000))

    def of(agent: str) -> Network:
        def seen(target: str, second: int, calm: Sequence[Seen]) -> Sequence[Seen]:
            doubted = target == "t-1" and (
                (agent == "agent-3" and 30 <= second < 60) or (agent == "agent-2" and 50 <= second < 60)
            )
            vetoed = target == "t-1" and agent == "agent-1" and 95 <= second < 110
            alone = agent == "agent-3" and 130 <= second < 150
            return _LOST if doubted or vetoed or alone else calm

        return _noisy(agent, seen)

    agents = {name: of(name) for name in ("agent-1", "agent-2", "agent-3")}
    story.run_each(160, agents)
    story.run(15, None)
    story.run_each(25, agents)
    story.second += 45
    story.run_each(20, agents)
    return story


def directives_and_configuration() -> Story:
    """Pin, drain, freeze, one for another primary, one to a stranger, one given twice; configurations that are based on
    the version in force and not; metrics from outside."""
    story = Story.begun()
    calm = _noisy("directives", lambda *moment: moment[-1])

    def order(directive_id: str, kind: str, seconds: int, **of: str) -> OperatorDirective:
        expires_at_ms = story.now_ms + 1000 * seconds
        return OperatorDirective(directive_id, kind, expires_at_ms, "ops", f"because of {directive_id}", **of)

    def say(directive: OperatorDirective) -> None:
        story.say(directive, None)

    story.run(30, calm)
    pin = order("pin-1", Directive.PIN, 20, primary_region=PRIMARY, region="t-3")
    say(pin)
    story.run(5, calm)
    say(pin)
    story.run(25, calm)
    say(order("stranger", Directive.PIN, 20, primary_region=PRIMARY, region="t-9"))
    say(order("elsewhere", Directive.PIN, 20, primary_region="us-9", region="t-2"))
    say(order("drain-1", Directive.DRAIN, 20, region="t-1"))
    story.run(40, calm)
    say(order("freeze-1", Directive.FREEZE, 30, primary_region=PRIMARY))
    story.run(15, _noisy("frozen", lambda target, _, seen: _LOST if target == "t-1" else seen))
    story.run(30, calm)
    story.say(configuration(version=2, based_on=1, policy=replace(STATED, margin_ratio=0.2)))
    story.say(configuration(version=3, based_on=1, policy=replace(STATED, margin_ratio=0.3)))
    story.run(10, calm)
    story.say(InjectedMetric(PRIMARY, "t-1", "healthy", 0.0, "status-page", story.now_ms, 8000))
    story.say(InjectedMetric(PRIMARY, "t-2", "latency_ms", 200.0, "cdn-logs", story.now_ms, 15_000))
    story.say(BandwidthMeasurement("agent-1", PRIMARY, "t-3", story.now_ms, 2e9, 0.1, 100_000))
    story.run(20, calm)
    story.say(configuration(version=4, based_on=2, targets=("t-3", "t-2")))
    story.run(15, calm)
    return story


def _noisy(name: str, seen: Callable[[str, int, Sequence[Seen]], Sequence[Seen]]) -> Network:
    """Two probes a second about each target's own round-trip time, some 3 % to and fro, and now and then one lost."""

    def network(target: str, second: int) -> Sequence[Seen]:
        chance = random.Random(f"{name} {target} {second}")
        probes: list[Seen] = [round(_RTT_MS[target] * (1 + 0.06 * (chance.random() - 0.5)), 3) for _ in range(2)]
        if chance.random() < 0.02:
            probes[1] = Outcome.TIMED_OUT
        return seen(target, second, probes)

    return network


SCRIPTS: Final[Mapping[str, Callable[[], Story]]] = {
    script.__name__.replace("_", "-"): script
    for script in (
        brownout_and_failback,
        flapping_and_ejection,
        quorum_veto_and_suspects,
        directives_and_configuration,
    )
}
