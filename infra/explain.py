"""A ranking in sentences: where traffic would go and why, what each place is due to, and what would change it.

`explain` turns a FailoverRanking (and the path weights of that time, for measured values) into an `Explanation`: the
numbers beside the sentences that say them. `text` lays it out for a terminal. Both are pure, and take any ranking that
the schema allows: what is said has come over the network.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from infra.network_words import network_sentences
from infra.remedy_words import remedy_sentences
from infra.scorecards import in_a_line
from infra.times import clock, lasting
from infra.words import clean, listed, number, percent, two_numbers
from schemas.records import (
    Candidate,
    DirectiveInForce,
    FailoverRanking,
    Flip,
    NetworkVerdict,
    PathWeight,
    PathWeights,
    PredictionScorecard,
    RemedyReport,
)

WIDTH: Final = 79
_COSTS_SHOWN: Final = 3
_LN_MAX: Final = 700.0  # beyond it no float has the exponential
_COST_SHOWN_MIN: Final = 0.005  # half a percent of the score is nothing that a place is due to

_BEFORE_UNIT: Final = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|h|d|Mbit/s)\b|%)")
# metric -> (in words, unit, what a value is multiplied with for that unit)
_METRICS: Final = {
    "latency_ms": ("latency", "ms", 1.0),
    "loss_ratio": ("loss", "%", 100.0),
    "delay_variation_ms": ("delay variation", "ms", 1.0),
    "bandwidth_bps": ("bandwidth", "Mbit/s", 1e-6),
    "capacity_ratio": ("capacity", "%", 100.0),
}
_FACTORS: Final = {name: words for name, (words, _, _) in _METRICS.items()} | {
    "baseline": "distance and capacity",
    "readiness": "readiness, of which nothing was heard for a while,",
    "prediction": "predicted disruption",
    "shared_risk": "shared risk",
}
_INJECTED: Final = "injected:"
_MODES: Final = {
    "NORMAL": "there is fresh data, and somebody is eligible",
    "THIN": "there is too little fresh data, so the last target is kept",
    "PANIC": "too few candidates are eligible, so the least bad is ranked",
}
_ADVICE: Final = {
    "HOLD": "nothing speaks for leaving {primary}",
    "PREPARE": "{primary} may be unwell: be ready to move",
    "FAIL_OVER": "{primary} is unwell: move now",
}
_REASONS: Final = {
    "UNKNOWN_REGION": "nobody knows where it is: it is in no catalogue of regions, and no weight was given for it",
    "DRAINED": "an operator has drained it",
    "UNHEALTHY": "it is reported to be unhealthy",
    "NO_ROUTE": "no BGP route leads there any more, and no probe says otherwise",
    "DOWN": "it does not answer",
    "VETOED": "an agent whose view has to be good cannot reach it",
    "NOT_READY": "its last readiness check failed",
    "EJECTED": "it failed again and again, and is left out for a while",
    "STALE": "nothing has been heard of it for too long",
    "NO_CAPACITY": "what others take of it, or counted on before, leaves too little for this primary's load",
    "NO_DATA": "nothing has been measured of it yet",
}
_DIRECTIVES: Final = {
    "pin": "{region} is pinned as the target",
    "drain": "{region} is drained",
    "freeze": "the target is frozen",
    "stop-actions": "no path is acted upon",
    "executed": "the traffic was moved to {region}",
}


@dataclass(frozen=True, slots=True)
class Place:
    """One candidate: `costs_ratio` by factor, largest first, as shares of its score; `sentences` say all of it."""

    region_id: str
    rank: int
    eligible: bool
    in_use: bool
    normalized_score: float
    ineligible_reason: str | None
    waits: bool
    costs_ratio: dict[str, float]
    flip: Flip | None
    sentences: list[str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A ranking explained at a moment."""

    primary_region: str
    target_region: str | None
    sequence: int
    decided_at_ms: int
    age_ms: int
    stale: bool
    mode: str
    advice: str
    order_confidence: float
    sentences: list[str]
    places: list[Place]
    directives: list[DirectiveInForce]
    directive_sentences: list[str]
    suspect_agents: list[str]
    scorecard: PredictionScorecard | None
    network_sentences: list[str]
    verdict: NetworkVerdict | None
    remedy_sentences: list[str]
    remedies: list[RemedyReport]

    def facts(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def explain(
    ranking: FailoverRanking,
    weights: PathWeights | None,
    now_ms: int,
    card: PredictionScorecard | None = None,
    verdict: NetworkVerdict | None = None,
    *,
    remedies: Sequence[RemedyReport] = (),
) -> Explanation:
    """The ranking as it stands at `now_ms` (Unix, ms); never raises for a valid record.

    `weights`: the same primary's paths when it was decided; None: measured values are left out. `card`: of its model.
    `verdict`: what the whole network said then; None: nothing. `remedies`: what was last said of each.
    """
    paths = paths_of(weights)
    age_ms = now_ms - ranking.decided_at_ms
    stale = age_ms > ranking.stale_after_ms
    flips = any(c.flip is not None for c in ranking.candidates)
    return Explanation(
        primary_region=ranking.primary_region,
        target_region=ranking.target_region,
        sequence=ranking.sequence,
        decided_at_ms=ranking.decided_at_ms,
        age_ms=age_ms,
        stale=stale,
        mode=ranking.mode,
        advice=ranking.advice,
        order_confidence=ranking.order_confidence,
        sentences=[
            " ".join(_decision(ranking)),
            f"{_meaning(ranking)} {_certainty(ranking)}",
            _age(ranking, now_ms, stale=stale),
            *_suspects(ranking),
            *([in_a_line(card)] if card is not None else []),
        ],
        places=[
            _place(c, ranking, paths.get(c.region_id), flips=flips)
            for c in sorted(ranking.candidates, key=lambda c: c.rank)
        ],
        directives=list(ranking.directives),
        directive_sentences=[_directive(d, now_ms) for d in ranking.directives],
        suspect_agents=list(ranking.suspect_agents),
        scorecard=card,
        network_sentences=[] if verdict is None else network_sentences(verdict),
        verdict=verdict,
        remedy_sentences=remedy_sentences(remedies, now_ms),
        remedies=list(remedies),
    )


def paths_of(weights: PathWeights | None) -> dict[str, PathWeight]:
    """Each path by its target, of whatever the schema allows."""
    try:
        return weights.paths() if weights is not None else {}
    except ValueError:  # columns of different lengths: nobody knows whose values they are
        return {}


def text(explanation: Explanation, width: int = WIDTH) -> str:
    """Lines no longer than `width`: the decision, the directives, then every candidate."""
    head = ["\n".join(_wrapped(said, width) for said in explanation.sentences)]
    if explanation.directive_sentences:
        orders = "\n".join(_wrapped(f"- {s}", width, "  ") for s in explanation.directive_sentences)
        head.append(f"Operators' directives in force:\n{orders}")
    if explanation.network_sentences:
        network = "\n".join(_wrapped(f"- {s}", width, "  ") for s in explanation.network_sentences)
        head.append(f"What the whole network says:\n{network}")
    if explanation.remedy_sentences:
        remedies = "\n".join(_wrapped(f"- {s}", width, "  ") for s in explanation.remedy_sentences)
        head.append(f"What was done to paths:\n{remedies}")
    places = [
        _wrapped(f"{p.rank}. {' '.join(p.sentences)}", width, " " * (len(str(p.rank)) + 2)) for p in explanation.places
    ]
    return "\n\n".join([*head, "\n".join(places)] if places else head)


# -- the decision -----------------------------------------------------------------------------------------------------


def _decision(ranking: FailoverRanking) -> list[str]:
    primary, target = clean(ranking.primary_region), ranking.target_region
    found = [
        f"If {primary} failed now, its traffic would go to {clean(target)}."
        if target is not None
        else f"If {primary} failed now, its traffic would have nowhere to go."
    ]
    if ranking.reason.strip():
        found.append(f"Why: {clean(ranking.reason)}.")
    pinned = any(d.kind == "pin" and d.region == target for d in ranking.directives)
    first = min((c for c in ranking.candidates if c.eligible), key=lambda c: c.rank, default=None)
    if target is not None and first is not None and first.region_id != target and not pinned:
        found.append(f"{clean(first.region_id)} is first in the order, but a target in use is not left at once.")
    return found


def _meaning(ranking: FailoverRanking) -> str:
    primary = clean(ranking.primary_region)
    mode = _MODES.get(ranking.mode, "nobody here knows that mode")
    advice = _ADVICE.get(ranking.advice, "nobody here knows that advice").replace("{primary}", primary)
    return f"Its mode is {clean(ranking.mode)}: {mode}. The advice is {clean(ranking.advice)}: {advice}."


def _certainty(ranking: FailoverRanking) -> str:
    eligible = sum(c.eligible for c in ranking.candidates)
    if eligible < 2:
        return "Nobody is eligible." if not eligible else "Only one candidate is eligible."
    sure = min(max(ranking.order_confidence, 0.0), 1.0)
    word = "surely" if sure >= 0.95 else "probably" if sure >= 0.75 else "perhaps"
    return f"The first is {word} better than the second ({percent(sure)} sure, by how much measurements spread)."


def _age(ranking: FailoverRanking, now_ms: int, *, stale: bool) -> str:
    age = lasting(now_ms - ranking.decided_at_ms)
    what = f"ranking {ranking.sequence}, configuration {ranking.config_version}"
    said = f"It was decided {age} ago, {clock(ranking.decided_at_ms)} ({what})"
    if ranking.evidence_at_ms <= 0:
        said += ", and no measurement had come yet"
    good_for = lasting(ranking.stale_after_ms)
    if stale:
        return f"{said}. THAT IS STALE: it counts for {good_for}, and nobody has renewed it."
    return f"{said}, and counts for {good_for}."


def _suspects(ranking: FailoverRanking) -> list[str]:
    if not ranking.suspect_agents:
        return []
    names = ", ".join(map(clean, ranking.suspect_agents))
    return [f"Not believed now, because nothing answers them or they fell silent: {names}."]


def _directive(d: DirectiveInForce, now_ms: int) -> str:
    region = clean(d.region) if d.region is not None else "a region"
    what = _DIRECTIVES[d.kind].format(region=region) if d.kind in _DIRECTIVES else clean(d.kind)
    left_ms = d.expires_at_ms - now_ms
    until = f"another {lasting(left_ms)}" if left_ms > 0 else "it has passed"
    by = f"{clean(d.author)} because: {clean(d.reason)}"
    return f"{what} until {clock(d.expires_at_ms)} ({until}), by {by} ({clean(d.directive_id)})"


# -- a candidate's place ----------------------------------------------------------------------------------------------


def _place(candidate: Candidate, ranking: FailoverRanking, path: PathWeight | None, *, flips: bool) -> Place:
    costs = {name: 1 - math.exp(min(c, 0.0)) for name, c in candidate.contributions.items() if c < 0}
    costs = dict(sorted(costs.items(), key=lambda item: (-item[1], item[0])))
    in_use = candidate.region_id == ranking.target_region
    return Place(
        region_id=candidate.region_id,
        rank=candidate.rank,
        eligible=candidate.eligible,
        in_use=in_use,
        normalized_score=candidate.normalized_score,
        ineligible_reason=candidate.ineligible_reason,
        waits=candidate.waits,
        costs_ratio={name: round(cost, 6) for name, cost in costs.items()},
        flip=candidate.flip,
        sentences=[
            _standing(candidate, in_use=in_use),
            *_eligibility(candidate, ranking),
            *_costs(costs, candidate, path),
            *_raised(candidate),
            *_doubts(candidate),
            *_would_be_first(candidate, flips=flips),
        ],
    )


def _standing(candidate: Candidate, *, in_use: bool) -> str:
    use = ", the target" if in_use else ""
    score = f", {percent(candidate.normalized_score)} of the best score" if candidate.eligible else ""
    return f"{clean(candidate.region_id)}{use}{score}."


def _eligibility(candidate: Candidate, ranking: FailoverRanking) -> list[str]:
    found = []
    if not candidate.eligible:
        reason, _, detail = (candidate.ineligible_reason or "").partition(": ")
        why = _REASONS.get(reason) or (f"the reason is {clean(reason)}" if reason.strip() else "no reason is given")
        drains = [d for d in ranking.directives if d.kind == "drain" and d.region == candidate.region_id]
        by = f" ({clean(drains[0].author)}: {clean(drains[0].reason)})" if reason == "DRAINED" and drains else ""
        found.append(f"Not eligible: {why}{f' ({clean(detail)})' if detail.strip() else ''}{by}.")
    if candidate.waits:
        found.append("It waits: it failed as the target and is not taken back yet, or its route has just changed.")
    return found


def _costs(costs: dict[str, float], candidate: Candidate, path: PathWeight | None) -> list[str]:
    if not candidate.eligible:
        return []  # its place is due to the gate, not to its score
    shown = [(name, cost) for name, cost in costs.items() if cost >= _COST_SHOWN_MIN][:_COSTS_SHOWN]
    if not shown:
        return ["Nothing costs it much of its score."]
    said = [
        f"its {_factor(name, path)} {'cost' if name == 'baseline' else 'costs'} it {percent(cost)}"
        for name, cost in shown
    ]
    said[0] += " of the score"
    return [f"I{listed(said)[1:]}."]


def _raised(candidate: Candidate) -> list[str]:
    """By whom it was said to be better than it is measured: no measured factor is more than its best."""
    gains = {name: c for name, c in candidate.contributions.items() if name.startswith(_INJECTED) and c > 0}
    most = sorted(gains, key=lambda name: (-gains[name], name))[:_COSTS_SHOWN]
    added = {name: math.expm1(min(gains[name], _LN_MAX)) for name in most}
    return [
        f"Its {_factor(name, None)} adds {percent(more)} to its score."
        for name, more in added.items()
        if candidate.eligible and more >= _COST_SHOWN_MIN
    ]


def _factor(name: str, path: PathWeight | None) -> str:
    if name.startswith(_INJECTED):
        return f"report by {clean(name.removeprefix(_INJECTED))}"
    words = _FACTORS.get(name, clean(name).replace("_", " "))
    value = getattr(path, name, None) if name in _METRICS and path is not None else None
    if value is not None:
        return f"{words} of {_value(name, value)}"
    return f"{words}, which is not measured," if path is not None and name in _METRICS else words


def _doubts(candidate: Candidate) -> list[str]:
    found = []
    if candidate.suspicion_ratio > 0:
        found.append(f"{percent(candidate.suspicion_ratio)} of the agents that report get no answer from it.")
    disruption = candidate.predicted_disruption
    if disruption is not None and disruption >= 0.05:
        found.append(f"A disruption of it soon is expected with {percent(disruption)}.")
    if candidate.eligible and candidate.confidence < 0.5:
        found.append(f"Little is known of it yet (confidence {percent(candidate.confidence)}).")
    return found


def _would_be_first(candidate: Candidate, *, flips: bool) -> list[str]:
    flip = candidate.flip
    if flip is None:
        # An engine that works no flips out says of nobody that nothing would help.
        unhelped = flips and candidate.eligible and candidate.rank > 1
        return ["No change of one metric alone would put it first."] if unhelped else []
    words, unit, factor = _METRICS.get(flip.metric, (clean(flip.metric).replace("_", " "), "", 1.0))
    moved = "fell" if flip.to_value < flip.from_value else "rose"
    before, after = two_numbers(flip.from_value * factor, flip.to_value * factor)
    return [f"It would be first if its {words} {moved} from {before} to {after}{f' {unit}' if unit else ''}."]


def _value(metric: str, value: float) -> str:
    _, unit, factor = _METRICS[metric]
    return f"{number(value * factor)} {unit}"


def _wrapped(said: str, width: int, indent: str = "") -> str:
    """Lines that end nowhere between a number and its unit, nor within a region's name."""
    whole = _BEFORE_UNIT.sub("\u00a0", said)
    return textwrap.fill(whole, width, subsequent_indent=indent, break_on_hyphens=False).replace("\u00a0", " ")
