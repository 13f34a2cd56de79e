"""What is decided at a moment, and what is published of it.

    Ranked, orders ──► the target in use (`choice.py`) ──► advice ──► a ranking, if there is anything new to say
    predictions    ──► whom to ask whether it is ready

Beside these every path's weight, and what the stage that looks at the whole network has to know.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.records import (
    Advice,
    DisruptionPrediction,
    Event,
    FailoverConfiguration,
    FailoverRanking,
    GraphUpdate,
    NetworkVerdict,
    PathWeights,
    PredictionScorecard,
    ReadinessRequest,
)
from streams.core.choice import Chosen
from streams.core.directives import Orders
from streams.core.engine_state import EngineState
from streams.core.foresight import Foreseen
from streams.core.prediction import MODEL
from streams.core.ranked import Ranked, path_weights
from streams.core.readiness import Outlook, foretold
from streams.core.reason import and_what_the_network_says, sentence, who_says_unhealthy
from streams.core.shown import Shown, changes
from streams.core.verdicts import advice

Published = FailoverRanking | PathWeights | GraphUpdate | DisruptionPrediction | PredictionScorecard | ReadinessRequest


class News(NamedTuple):
    """What is said of a moment beside what is measured."""

    orders: Orders
    verdict: NetworkVerdict | None
    primary_unhealthy_by: tuple[str, ...]  # sources who say so, and count


class Moment(NamedTuple):
    """What is known at a moment."""

    now_ms: int
    ranked: Ranked
    foreseen: Foreseen
    news: News


def decided(
    state: EngineState, configuration: FailoverConfiguration, moment: Moment, *, muted: bool, says_weights: bool
) -> list[Published]:
    """Choose, and take note of it in `state`; returns what to publish, in order: nothing while `muted`.

    `says_weights`: whether anybody wants to have every path.
    """
    now_ms, ranked, foreseen, news = moment
    primary, numbers, choice = configuration.primary_region, state.candidates.numbers, state.choice
    published: list[Published] = []
    if says_weights:
        weights = path_weights(ranked, state.bandwidth.bps)
        published.append(PathWeights(primary, now_ms, state.evidence_at_ms, ranked.regions, **weights))
    if foreseen.prediction is not None:
        state.predicted = {p.target_region: p.probability for p in foreseen.prediction.paths}
        published.append(foreseen.prediction)
    if foreseen.scorecard is not None:
        published.append(foreseen.scorecard)
    state.events += foreseen.events
    outlook = Outlook.of(ranked, foreseen, choice.target, numbers, MODEL)  # of the one until now: it may be left
    chosen = choice.step(ranked, news.orders, numbers, state.routes.unsettled(numbers, now_ms), now_ms)
    advised = advice(news.verdict, choice.target, news.orders.executed, unhealthy=bool(news.primary_unhealthy_by))
    ranking = _ranking(state, configuration, moment, chosen, advised, muted=muted)
    if muted:
        return []
    if ranking is not None:
        published.append(ranking)
    if says_weights:
        update = state.graph_says.update(
            primary,
            ranked,
            now_ms,
            target=choice.target,
            bandwidth_bps=state.bandwidth.bps,
            agents=state.paths.agents,
            foretold=foretold(outlook, configuration.policy),
        )
        published.append(update)
    state.readiness, requests = state.readiness.ask(
        primary, ranked, outlook=outlook, hold=choice.hold, advice=advised, reports=state.reports, now_ms=now_ms
    )
    return [*published, *requests]


def _ranking(
    state: EngineState,
    configuration: FailoverConfiguration,
    moment: Moment,
    chosen: Chosen,
    advised: Advice,
    *,
    muted: bool,
) -> FailoverRanking | None:
    """What is said of the choice; None: what was said last still holds."""
    now_ms, ranked, _, news = moment
    policy, orders, choice = configuration.policy, news.orders, state.choice
    shown = Shown.of(ranked, policy, advised, choice.target, now_ms)
    events = [*dict.fromkeys(state.events), *chosen.events]
    events += [e for e in changes(state.shown, shown, policy) if e not in events]
    if events[:-1] and events[-1] is Event.HEARTBEAT:  # there is more to say
        del events[-1]
    if not events:
        return None
    state.shown = shown
    if muted:  # what happens meanwhile is said when we may speak again
        return None
    state.events = []
    state.sequence += 1
    return FailoverRanking(
        decision_id="",  # a digest of the rest, which whoever encodes it sets
        sequence=state.sequence,
        decided_at_ms=now_ms,
        evidence_at_ms=state.evidence_at_ms,
        primary_region=configuration.primary_region,
        mode=ranked.mode,
        advice=advised,
        events=[str(e) for e in events],
        reason=and_what_the_network_says(
            sentence(ranked, orders, choice.hold, chosen)
            + who_says_unhealthy(configuration.primary_region, news.primary_unhealthy_by)
            + state.injected.trust.note(),
            ranked,
            choice.target,
            news.verdict,
            orders.executed,
        ),
        config_version=configuration.version,
        stale_after_ms=3 * policy.heartbeat_ms,
        order_confidence=ranked.order_confidence,
        candidates=ranked.candidates(state.predicted, chosen.barred),
        target_region=choice.target,
        previous_target_region=choice.previous,
        suspect_agents=list(ranked.suspects),
        directives=orders.shown,
    )
