"""A ranking in sentences, as somebody reads them who was woken up by it."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.explain import explain, text
from schemas.codec import encode
from schemas.records import Candidate, DirectiveInForce, FailoverRanking, Flip, PathWeights
from tests.infra.commands import fails, succeeds
from tests.infra.conftest import Topics
from tests.infra.test_watch import NOW_MS, P, ranking, weights
from tests.schemas.strategies import record_of

HOUR_MS = 3_600_000


def candidate(region: str = "us-east-1", rank: int = 1, **changed: Any) -> Candidate:
    plain: dict[str, Any] = {
        "region_id": region, "rank": rank, "score": 0.5, "normalized_score": 1.0, "baseline_weight": 0.5,
        "network_weight": 0.5, "readiness": 1.0, "confidence": 0.9, "eligible": True,
    }  # fmt: skip
    return Candidate(**(plain | changed))


def told(*candidates: Candidate, paths: PathWeights | None = None, **changed: Any) -> str:
    """The text about a ranking with these candidates, on one line."""
    given = {"candidates": list(candidates) or [candidate()]} | changed
    return " ".join(text(explain(ranking(**given), paths, NOW_MS)).split())


# -- the decision


def test_the_target_and_why() -> None:
    said = told(target_region="us-east-1", reason="us-east-1 has the best score of 3 eligible")
    assert "If eu-west-1 failed now, its traffic would go to us-east-1." in said
    assert "Why: us-east-1 has the best score of 3 eligible." in said
    assert "nowhere to go" in told(target_region=None)


def test_a_target_that_is_not_the_first_is_held() -> None:
    both = candidate("us-east-1", 1), candidate("us-west-2", 2)
    assert "us-east-1 is first in the order, but a target in use is not left at once" in told(
        *both, target_region="us-west-2"
    )
    assert "first in the order, but" not in told(*both, target_region="us-east-1")
    pin = DirectiveInForce("pin-1", "pin", "us-west-2", NOW_MS + 1, "anna", "launch")
    assert "first in the order, but" not in told(*both, target_region="us-west-2", directives=[pin])


@pytest.mark.parametrize(
    ("mode", "advice", "said"),
    [
        ("NORMAL", "HOLD", "there is fresh data, and somebody is eligible. The advice is HOLD: nothing speaks for"),
        ("THIN", "PREPARE", "so the last target is kept. The advice is PREPARE: eu-west-1 may be unwell"),
        ("PANIC", "FAIL_OVER", "so the least bad is ranked. The advice is FAIL_OVER: eu-west-1 is unwell: move now"),
    ],
)
def test_what_mode_and_advice_mean(mode: str, advice: str, said: str) -> None:
    assert said in told(mode=mode, advice=advice)


@pytest.mark.parametrize(
    ("confidence", "said"), [(0.99, "is surely better"), (0.8, "is probably better"), (0.55, "is perhaps better")]
)
def test_how_sure_the_order_is(confidence: float, said: str) -> None:
    both = candidate("us-east-1", 1), candidate("us-west-2", 2)
    assert f"{said} than the second ({confidence:.0%}".replace("%", " % sure") in told(
        *both, order_confidence=confidence
    )
    assert "Only one candidate is eligible." in told(order_confidence=confidence)
    assert "Nobody is eligible." in told(candidate(eligible=False), order_confidence=0.0)


def test_how_old_it_is_and_whether_that_is_too_old() -> None:
    fresh = told(decided_at_ms=NOW_MS - 3000, stale_after_ms=30_000)
    assert "It was decided 3 s ago, 2023-11-14 22:14:57 UTC (ranking 1, configuration 3), and counts for 30 s." in fresh
    stale = told(decided_at_ms=NOW_MS - 31_000, stale_after_ms=30_000)
    assert "decided 31 s ago" in stale
    assert "THAT IS STALE: it counts for 30 s, and nobody has renewed it." in stale
    assert "no measurement had come yet" in told(evidence_at_ms=0)


def test_agents_that_are_not_believed() -> None:
    assert "they fell silent: paris-1, paris-2." in told(suspect_agents=["paris-1", "paris-2"])
    assert "Not believed" not in told()


def test_directives_in_force_with_who_why_and_until_when() -> None:
    found = told(
        directives=[
            DirectiveInForce("pin-1", "pin", "us-east-1", NOW_MS + 2 * HOUR_MS, "anna", "launch day"),
            DirectiveInForce("freeze-1", "freeze", None, NOW_MS - 1, "berta", "deployment"),
        ]
    )
    assert (
        "- us-east-1 is pinned as the target until 2023-11-15 00:15:00 UTC (another 2 h), by anna because: launch day "
        "(pin-1)" in found
    )
    assert "- the target is frozen until 2023-11-14 22:14:59 UTC (it has passed), by berta" in found


# -- a candidate's place


def test_what_a_place_is_due_to_with_the_values_measured() -> None:
    costs = {"latency_ms": math.log(0.66), "loss_ratio": math.log(0.9), "baseline": math.log(0.5), "other": -0.001}
    paths = replace(weights(), targets=["us-east-1", "x"], latency_ms=[84.0, None], loss_ratio=[0.0125, None])
    said = told(candidate(contributions=costs), paths=paths, target_region="us-east-1")
    assert "1. us-east-1, the target, 100 % of the best score." in said
    assert (
        "Its distance and capacity cost it 50 % of the score, its latency of 84 ms costs it 34 % and its loss of "
        "1.2 % costs it 10 %." in said
    )


def test_what_was_not_measured_is_said_to_be_so() -> None:
    costs = {"latency_ms": math.log(0.2)}
    paths = replace(weights(), targets=["us-east-1", "x"], latency_ms=[None, None])
    assert "Its latency, which is not measured, costs it 80 % of the score." in told(
        candidate(contributions=costs), paths=paths
    )
    assert "Its latency costs it 80 % of the score." in told(candidate(contributions=costs)), "no path weights at all"


def test_what_sources_say_of_it_is_told_apart_from_what_is_measured() -> None:
    moved = {"latency_ms": math.log(0.8), "injected:cdn-logs": math.log(0.9), "injected:lb": math.log(1.2)}
    said = told(candidate(contributions=moved | {"injected:others": 1e-4}), target_region="us-east-1")
    assert "Its latency costs it 20 % of the score and its report by cdn-logs costs it 10 %." in said
    assert "Its report by lb adds 20 % to its score." in said
    assert "others" not in said, "next to nothing"


def test_a_perfect_one_costs_nothing() -> None:
    assert "Nothing costs it much of its score." in told(candidate(contributions={"latency_ms": 0.0}))


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("UNKNOWN_REGION", "nobody knows where it is"),
        ("DRAINED", "an operator has drained it"),
        ("UNHEALTHY", "it is reported to be unhealthy"),
        ("DOWN", "it does not answer"),
        ("VETOED", "an agent whose view has to be good cannot reach it"),
        ("NOT_READY: http: answered 500", "its last readiness check failed (http: answered 500)."),
        ("EJECTED", "it failed again and again"),
        ("STALE", "nothing has been heard of it for too long"),
        ("NO_DATA", "nothing has been measured of it yet"),
        ("SOMETHING_NEW", "the reason is SOMETHING_NEW"),
        (None, "no reason is given"),
    ],
)
def test_why_somebody_is_not_eligible(reason: str | None, said: str) -> None:
    found = told(candidate(eligible=False, ineligible_reason=reason, normalized_score=0.0))
    assert f"1. us-east-1. Not eligible: {said}" in found


def test_what_nothing_was_heard_of_costs_it_something_and_that_is_said() -> None:
    said = told(candidate(contributions={"readiness": math.log(0.9)}, readiness=0.9))
    assert "Its readiness, of which nothing was heard for a while, costs it 10 % of the score." in said


def test_who_drained_it_and_why() -> None:
    drain = DirectiveInForce("drain-1", "drain", "us-east-1", NOW_MS + 1, "anna", "works")
    found = told(candidate(eligible=False, ineligible_reason="DRAINED"), directives=[drain])
    assert "an operator has drained it (anna: works)." in found


def test_who_waits_by_the_failback_policy() -> None:
    assert "It waits: it failed as the target" in told(candidate(waits=True))


def test_what_would_put_it_first() -> None:
    first, second = candidate("us-east-1", 1), candidate("us-west-2", 2, flip=Flip("latency_ms", 84.0, 61.2))
    assert "It would be first if its latency fell from 84 to 61 ms." in told(first, second)
    grown = replace(second, flip=Flip("bandwidth_bps", 1e8, 2.5e9))
    assert "It would be first if its bandwidth rose from 100 to 2500 Mbit/s." in told(first, grown)
    near = replace(second, flip=Flip("latency_ms", 84.4, 84.2))
    assert "fell from 84.4 to 84.2 ms" in told(first, near)
    lost = replace(second, flip=Flip("loss_ratio", 0.05, 0.01))
    assert "its loss fell from 5 to 1 %" in told(first, lost)


def test_where_one_change_does_not_help_it_says_so_if_anybody_has_worked_it_out() -> None:
    nothing = "No change of one metric alone would put it first."
    third = candidate("ap-south-1", 3)
    assert nothing not in told(candidate("us-east-1", 1), third), "an engine that gives no flips at all"
    found = told(candidate("us-east-1", 1), candidate("us-west-2", 2, flip=Flip("latency_ms", 84.0, 61.0)), third)
    assert found.count(nothing) == 1


def test_doubts_are_said() -> None:
    said = told(candidate(suspicion_ratio=0.4, predicted_disruption=0.12, confidence=0.3))
    assert "40 % of the agents that report get no answer from it." in said
    assert "A disruption of it soon is expected with 12 %." in said
    assert "Little is known of it yet (confidence 30 %)." in said


@pytest.mark.parametrize("width", range(40, 80))
def test_no_line_ends_between_a_number_and_its_unit(width: int) -> None:
    costs = {"latency_ms": -0.5, "baseline": -0.4, "loss_ratio": -0.3}
    second = candidate("us-west-2", 2, contributions=costs, flip=Flip("latency_ms", 84.0, 61.0))
    shown = text(explain(ranking(candidates=[candidate(contributions=costs), second]), weights(), NOW_MS), width)
    assert not any(line.lstrip().startswith(("%", "ms ", "ms.", "s ", "s,")) for line in shown.splitlines())
    assert all(len(line) <= width for line in shown.splitlines())


# -- whatever comes


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(record_of("FailoverRanking"), st.none() | record_of("PathWeights"), st.integers(0, 1 << 53))
def test_any_ranking_can_be_explained(record: FailoverRanking, paths: PathWeights | None, now_ms: int) -> None:
    found = explain(record, paths, now_ms)
    shown = text(found)
    assert all(len(line) <= 79 for line in shown.splitlines())
    assert all(c.isprintable() or c == "\n" for c in shown), "nothing that a terminal would obey"
    json.dumps(found.facts(), allow_nan=False)
    assert [p.region_id for p in found.places] == [c.region_id for c in sorted(record.candidates, key=lambda c: c.rank)]


# -- the command


@pytest.mark.kafka
def test_the_command_explains_the_latest_and_the_one_in_force_then(topics: Topics) -> None:
    env = topics.environment
    assert "there is no ranking of eu-west-1" in fails(1, "explain", P, **env)
    old = ranking(1, target_region="us-east-1", decided_at_ms=NOW_MS - 5000)
    new = ranking(2, target_region="eu-central-1", decided_at_ms=NOW_MS)
    topics.publish("failover-rankings", encode(old), b"garbage", encode(new), encode(old))
    topics.publish("failover-rankings", encode(ranking(9, primary_region="mars")), key="mars")
    now_ms = time.time_ns() // 1_000_000
    costs = [replace(c, contributions={"latency_ms": -1.0}) for c in new.candidates]
    topics.publish("failover-rankings", encode(replace(new, candidates=costs, sequence=3, decided_at_ms=now_ms)))
    topics.publish("path-weights", encode(weights(now_ms - 50, 1.0)), encode(weights(now_ms, 84.0)))
    topics.publish("path-weights", encode(weights(now_ms + 50, 2.0)))
    said = succeeds("explain", P, **env)
    assert "its traffic would go to eu-central-1" in " ".join(said.split())
    assert "Its latency of 84 ms costs it 63 % of the score." in " ".join(said.split())
    assert all(len(line) < 80 for line in said.splitlines())
    facts = json.loads(succeeds("explain", P, "--json", **env))
    assert (facts["sequence"], facts["target_region"], facts["stale"]) == (3, "eu-central-1", False)
    assert facts["places"][0]["costs_ratio"] == {"latency_ms": 0.632121}
    then = json.loads(succeeds("explain", P, "--at", str(now_ms - 1), "--json", **env))
    assert (then["sequence"], then["stale"]) == (2, True)
    wrong = fails(1, "explain", P, "--at", "2001-01-01", **env)
    assert "no ranking of eu-west-1 decided at or before 2001-01-01 00:00:00 UTC" in wrong
    assert "is no time" in fails(2, "explain", P, "--at", "noon", **env)
