"""Operators' directives: as typed, as they stand on the topic, and what becomes of them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.asking import Answer
from infra.directives import LIFTED_AT_MS, _hear, in_force, lifted, new_id, sentence
from infra.processes import wait_until
from schemas.codec import encode
from schemas.records import (
    DeadLetter,
    DirectiveInForce,
    Event,
    FailoverRanking,
    OperatorDirective,
)
from schemas.topics import named
from schemas.validate import mistakes
from tests.infra.commands import fails, lines, proxima, running, succeeds
from tests.infra.conftest import Topics
from tests.infra.test_watch import ranking

HOUR_MS = 3_600_000
PIN = OperatorDirective("pin-1", "pin", 2_000_000_000_000, "anna", "launch", "eu-west-1", "eu-central-1")
DRAIN = OperatorDirective("drain-1", "drain", 2_000_000_000_000, "anna", "links", None, "us-east-1")
BECAUSE = ("--because", "launch", "--author", "anna")


def carrying(directive: OperatorDirective, *events: Event, **changed: Any) -> FailoverRanking:
    """A ranking that follows the directive."""
    d = directive
    carried = DirectiveInForce(d.directive_id, d.kind, d.region, d.expires_at_ms, d.author, d.reason)
    return ranking(7, **({"events": [str(e) for e in events], "directives": [carried]} | changed))


def heard(directive: OperatorDirective, *rankings: FailoverRanking) -> Answer:
    answer = Answer(directive.directive_id)
    for each in rankings:
        _hear(directive, answer, each)
    return answer


# -- what an answer is


def test_the_ranking_that_carries_it_is_its_answer() -> None:
    assert heard(PIN, carrying(PIN, Event.DIRECTIVE_ACCEPTED, Event.TARGET_CHANGED)).outcome == "accepted"
    assert heard(PIN, ranking(7, events=["DIRECTIVE_ACCEPTED"])).outcome == "unanswered", "somebody else's"
    assert heard(PIN, carrying(PIN, Event.DIRECTIVE_ACCEPTED, primary_region="mars")).outcome == "unanswered"


def test_the_same_id_with_another_end_is_an_older_one() -> None:
    older = OperatorDirective("pin-1", "pin", 1_900_000_000_000, "anna", "launch", "eu-west-1", "us-east-1")
    assert heard(PIN, carrying(older, Event.HEARTBEAT)).outcome == "unanswered"


def test_a_rejection_ends_the_waiting_of_the_primary_that_it_is_about() -> None:
    answer = heard(PIN, ranking(7, events=["DIRECTIVE_REJECTED"], reason="it is no candidate"))
    assert (answer.outcome, answer.reason) == ("rejected", f"{PIN.region} is no region that eu-west-1 may fail over to")


def test_what_is_said_to_every_primary_is_rejected_only_if_nobody_takes_it() -> None:
    refused = ranking(7, events=["DIRECTIVE_REJECTED"], primary_region="ap-south-1", reason="no candidate")
    answer = heard(DRAIN, refused)
    assert (answer.outcome, answer.said) == (
        "unanswered",
        f"{DRAIN.region} is no region that ap-south-1 may fail over to",
    )
    assert heard(DRAIN, refused, carrying(DRAIN, Event.DIRECTIVE_ACCEPTED)).outcome == "accepted"


def test_a_lifted_one_is_answered_by_the_ranking_that_carries_it_no_more() -> None:
    end = lifted(PIN, "berta", "over")
    assert (end.expires_at_ms, end.author, end.reason, end.region) == (LIFTED_AT_MS, "berta", "over", "eu-central-1")
    assert heard(end, carrying(PIN, Event.HEARTBEAT)).outcome == "unanswered"
    assert heard(end, carrying(PIN, Event.DIRECTIVE_ENDED)).outcome == "unanswered", "another one ended"
    assert heard(end, ranking(8, events=["DIRECTIVE_ENDED"])).outcome == "accepted"


@pytest.mark.parametrize("kind", ["pin", "drain", "freeze", "stop-actions", "executed"])
def test_a_made_id_is_readable_unlike_any_other_and_valid(kind: str) -> None:
    about = "a" * 63
    first, second = (new_id(kind, about, 1_795_515_300_000) for _ in range(2))
    assert first.startswith(f"{kind}-aaa")
    assert "20261124T101500" in first
    assert first != second
    d = OperatorDirective(first, kind, 1, "a", "r", about, "b" if kind in ("pin", "drain", "executed") else None)
    assert mistakes(d) == []
    assert sentence(d)
    assert new_id("freeze", None, 0).startswith("freeze-all-19700101T000000-")


def test_in_force_is_what_has_not_expired_the_next_to_expire_first() -> None:
    others = [OperatorDirective(str(at), "freeze", at, "a", "r") for at in (30, 10, 20)]
    assert [d.directive_id for d in in_force(others, 10)] == ["20", "30"]


# -- commands


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pin", "eu-west-1", "us-east-1", *BECAUSE], "--for"),
        (["pin", "eu-west-1", "us-east-1", "--for", "2 weeks", *BECAUSE], "is no duration"),
        (["pin", "eu-west-1", "US", "--for", "1h", *BECAUSE], "is no region id"),
        (["drain", "us-east-1", "--for", "1h"], "--because"),
        (["drain", "us-east-1", "--for", "1h", "--because", " "], "reason must be said"),
        (["freeze", "--for", "1h", "--id", "a b", *BECAUSE], "directive_id"),
        (["executed", "eu-west-1", "--for", "1h", *BECAUSE], "REGION"),
        (["executed", "eu-west-1", "eu-west-1", "--for", "1h", *BECAUSE], "another region"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else v,
)
def test_wrong_usage_is_said_before_anything_is_sent(arguments: list[str], said: str) -> None:
    assert said in fails(2, "direct", *arguments)


@pytest.mark.kafka
def test_without_a_worker_it_is_on_the_topic_and_unanswered(topics: Topics) -> None:
    env, before_ms = topics.environment, time.time_ns() // 1_000_000
    short = ("--timeout-s", "0.5")
    said = fails(1, "direct", "pin", "eu-west-1", "eu-central-1", "--for", "2h", *BECAUSE, *short, **env)
    assert "is unanswered" in said
    fails(1, "direct", "drain", "us-east-1", "--for", "90s", "--id", "drain-1", *BECAUSE, *short, **env)
    fails(1, "direct", "freeze", "--for", "1d", "--id", "freeze-1", "--because", "x", *short, **env)
    fails(1, "direct", "stop-actions", "eu-west-1", "--for", "15m", "--id", "stop-1", *BECAUSE, *short, **env)
    found = {f["key"]: f for f in lines("tail", "failover-config", "--from-beginning", "--to-end", **env)}
    sent = {key: f["record"] for key, f in found.items()}
    [pinned] = [r for r in sent.values() if r["kind"] == "pin"]
    assert sent[f"directive/{pinned['directive_id']}"] == pinned
    assert pinned["directive_id"].startswith("pin-eu-west-1-2")
    assert (pinned["primary_region"], pinned["region"], pinned["author"]) == ("eu-west-1", "eu-central-1", "anna")
    assert 0 <= pinned["expires_at_ms"] - 2 * HOUR_MS - before_ms < 60_000
    drained = sent["directive/drain-1"]
    assert (drained["kind"], drained["primary_region"], drained["region"]) == ("drain", None, "us-east-1")
    assert sent["directive/freeze-1"]["primary_region"] is sent["directive/freeze-1"]["region"] is None
    assert sent["directive/freeze-1"]["author"], "the user's name"
    assert sent["directive/stop-1"]["kind"] == "stop-actions"

    listed = json.loads(succeeds("direct", "list", "--json", **env))
    assert [d["directive_id"] for d in listed] == ["drain-1", "stop-1", pinned["directive_id"], "freeze-1"]
    text = succeeds("direct", "list", **env)
    assert "no primary may choose us-east-1, until 2" in text
    assert "anna: launch" in text

    fails(1, "direct", "lift", "drain-1", "--because", "done", *short, **env)
    left = json.loads(succeeds("direct", "list", "--json", **env))
    assert [d["directive_id"] for d in left] == ["stop-1", pinned["directive_id"], "freeze-1"]
    assert "has ended already" in fails(1, "direct", "lift", "drain-1", "--because", "done", **env)
    assert "no directive mars" in fails(1, "direct", "lift", "mars", "--because", "done", **env)


@pytest.mark.kafka
def test_a_terminal_obeys_nothing_that_stands_in_a_directive(topics: Topics) -> None:
    author, reason = "an\x1b[31mna", "a\x1b]0;title\x07 b\nc\u202e"
    topics.publish("failover-config", encode(replace(DRAIN, author=author, reason=reason)), key=b"directive/drain-1")
    said = succeeds("direct", "list", **topics.environment)
    assert said.splitlines()[2] == "    an?[31mna: a?]0;title? b c?"
    assert all(line.isprintable() for line in said.splitlines())


@pytest.mark.kafka
def test_nothing_in_force_is_said(topics: Topics) -> None:
    assert succeeds("direct", "list", **topics.environment) == "no directive is in force\n"


@pytest.mark.kafka
def test_it_waits_for_the_ranking_that_carries_it_and_then_for_the_one_that_does_not(
    topics: Topics, tmp_path: Path
) -> None:
    """What a worker publishes is written here by hand."""
    env = topics.environment

    def sent(number: int) -> OperatorDirective:
        found = wait_until(
            lambda: (all_ := directives_on(topics))[number - 1 :] and all_, 30, f"directive {number} on its topic"
        )
        return found[number - 1]

    log = tmp_path / "pin.log"
    pin = ("direct", "pin", "eu-west-1", "eu-central-1", "--for", "2h", "--id", "pin-1", *BECAUSE, "--json")
    with running(*pin, log_path=log, **env) as command:
        directive = sent(1)
        topics.publish("failover-rankings", encode(ranking(6)), b"garbage")
        topics.publish("failover-rankings", encode(carrying(directive, Event.DIRECTIVE_ACCEPTED)))
        assert command.wait(30) == 0, log.read_text()
    answer = json.loads(log.read_text())
    assert (answer["outcome"], answer["directive"]["directive_id"]) == ("accepted", "pin-1")

    log = tmp_path / "lift.log"
    with running("direct", "lift", "pin-1", "--because", "over", log_path=log, **env) as command:
        assert sent(2).expires_at_ms == LIFTED_AT_MS
        topics.publish("failover-rankings", encode(ranking(8, events=["DIRECTIVE_ENDED"])))
        assert command.wait(30) == 0, log.read_text()
    assert "pin-1: lifting it is accepted" in log.read_text()

    log = tmp_path / "refused.log"
    with running("direct", "freeze", "--for", "1h", *BECAUSE, log_path=log, **env) as command:
        frozen = sent(3)
        topic = named(topics.prefix, "failover-config")
        [place] = [
            (f["partition"], f["offset"])
            for f in lines("tail", "failover-config", "--from-beginning", "--to-end", **env)
            if f["record"]["directive_id"] == frozen.directive_id
        ]
        refused = DeadLetter("OUT_OF_RANGE", "not today", topic, *place, 1, "intake", b"")
        topics.publish("dead-letters", encode(refused))
        assert command.wait(30) == 1
    assert "rejected: not today" in log.read_text()


def directives_on(topics: Topics) -> list[OperatorDirective]:
    """All directives on the topic, in order of time."""
    found = proxima("tail", "failover-config", "--from-beginning", "--to-end", **topics.environment)
    every = [json.loads(line) for line in found.stdout.splitlines()]
    every.sort(key=lambda f: f["appended_at_ms"])
    return [OperatorDirective(**f["record"]) for f in every]
