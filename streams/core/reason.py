"""A ranking's reason: one sentence that says where traffic should go and why not elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas.records import Mode, NetworkVerdict
from streams.core.choice import Chosen
from streams.core.directives import Orders
from streams.core.holddown import HoldDown, Phase, Signal
from streams.core.ranked import Ranked
from streams.core.verdicts import evidence, shares

_SOURCES_MAX: Final = 3


def sentence(ranked: Ranked, orders: Orders, hold: HoldDown, chosen: Chosen) -> str:
    """Of this moment; `hold`: as `chosen` left it."""
    signal, before, waits, barred, _ = chosen
    target, policy = hold.target, ranked.policy
    state: dict[str | None, str | None] = {region: ranked.said(region) for region in (target,) if region is not None}
    if signal is Signal.FROZEN:
        note = f", though it is {state[target]}" if state.get(target) else ""
        return f"{target or 'nowhere'} is frozen by {_by(orders, 'freeze')}{note}"
    if signal is Signal.PINNED:
        note = f", though it is {state[target]}" if state.get(target) else ""
        return f"{target} is pinned by {_by(orders, 'pin')}{note}"
    if target is None:
        why = "too little fresh data" if ranked.mode is Mode.THIN else "no candidate is known to be alive"
        return f"nowhere: {why}"
    if target != before and before is not None:
        return _moved(ranked, signal, target, before)
    if ranked.mode is Mode.THIN:
        suspects = ranked.suspects
        doubt = f", and {', '.join(suspects[:3])} cannot be believed" if suspects else ""
        share = "no path has" if not (ranked.metrics.age_ms <= policy.stale_after_ms).any() else "too few paths have"
        return f"{target} is kept: {share} fresh data{doubt}"
    if ranked.mode is Mode.PANIC:
        return f"{target} is the least bad: {_number(int(ranked.eligible.sum()), 'candidate')} eligible"
    if hold.phase is Phase.CHALLENGED:
        return f"{target} is in use; {ranked.best(barred)} leads it and has not led for long enough yet"
    first = ranked.regions[int(ranked.order[0])]
    if target == first:
        return f"{target} has the best score of {int(ranked.eligible.sum())} eligible"
    if waits is not None and waits[int(ranked.order[0])]:
        return f"{target} is kept: {first} is better, failed before, and waits ({policy.failback} failback)"
    if barred is not None and barred[int(ranked.order[0])]:
        return f"{target} is kept: {first} is better, and its route has just changed"
    lead = ranked.log_lead(int(ranked.order[0]), ranked.regions.index(target))
    short = "less than the margin" if lead <= np.log1p(policy.margin_ratio) else "so little that it may be chance"
    return f"{target} is kept: {first} is better by {short}"


def who_says_unhealthy(primary: str, sources: Sequence[str]) -> str:
    """Who injected that the primary is not healthy, which by itself asks to prepare; empty: nobody who counts."""
    if not sources:
        return ""
    shown, more = ", ".join(sources[:_SOURCES_MAX]), len(sources) - _SOURCES_MAX
    return f"; {primary} is not healthy, as {shown}{f' and {more} more' if more > 0 else ''} said"


def and_what_the_network_says(
    said: str, ranked: Ranked, target: str | None, verdict: NetworkVerdict | None, executed: str | None
) -> str:
    """The sentence, and what the verdict adds: what the target shares, who ranks behind for sharing, the primary."""
    more = [said]
    common = shares(verdict, target, None) if target is not None else ""
    if common:
        more.append(f"{target} {common}")
    if behind := _behind(ranked, verdict):
        more.append(behind)
    if unwell := evidence(verdict, executed):
        more.append(unwell)
    return "; ".join(more)


def _behind(ranked: Ranked, verdict: NetworkVerdict | None) -> str:
    """The best candidate that something shared puts behind another, in words; empty: there is none."""
    risk = ranked.ranks.risk
    if risk is None or verdict is None:
        return ""
    alone = ranked.score * np.exp(-risk[ranked.cells])  # what it would be, if it shared nothing
    order = [i for i in ranked.order.tolist() if ranked.eligible[i]]
    for place, one in enumerate(order):
        passed = next((other for other in order[:place] if alone[other] < alone[one]), None)
        if passed is not None:
            region, ahead = ranked.regions[one], [ranked.regions[i] for i in order[:place]]
            why = shares(verdict, region, ahead) or shares(verdict, region, None)
            return f"{region} ranks behind {ranked.regions[passed]}: it {why}" if why else ""
    return ""


def _moved(ranked: Ranked, signal: Signal, target: str, before: str) -> str:
    if signal is Signal.DWELL_OVER and before in ranked.regions:
        score = dict(zip(ranked.regions, ranked.score.tolist(), strict=True))
        lead = f"{score[target] / score[before] - 1:.2%}"
        return f"{target} replaces {before}: it leads by {lead}, most of all in {_largest_lead(ranked, target, before)}"
    if before not in ranked.regions:
        return f"{target} replaces {before}, which is no candidate any more"
    return f"{target} replaces {before}, which is {ranked.said(before)}"


def _by(orders: Orders, kind: str) -> str:
    latest = [d for d in orders.shown if d.kind == kind][-1]
    return f"{latest.author}: {latest.reason}"


def _number(count: int, what: str) -> str:
    return f"{'only 1' if count else 'no'} {what} is" if count < 2 else f"only {count} {what}s are"


def _largest_lead(ranked: Ranked, target: str, before: str) -> str:
    """The factor in which the new target is ahead most."""
    new, old = ranked.regions.index(target), ranked.regions.index(before)
    lead = {name: float(value[new] - value[old]) for name, value in (ranked.contributions | ranked.moved).items()}
    return max(sorted(lead), key=lambda name: lead[name])
