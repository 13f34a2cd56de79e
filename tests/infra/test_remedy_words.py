"""What became of remedies, as `explain`, `watch` and `doctor` tell it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra.doctor_actuators import actuators, remedies
from infra.explain import explain, text
from infra.remedy_words import latest, sentence
from infra.watch import View, paths
from producers.publisher import Publisher
from schemas.codec import encode
from schemas.records import ActionResult, RemedyReport
from tests.infra.conftest import Topics
from tests.infra.test_explain import candidate
from tests.infra.test_watch import NOW_MS, drawn, ranking

REPORT = RemedyReport(
    7, "eu-west-1", "us-east-1", "prefer-t2", NOW_MS - 5000, "VERIFIED", "HELD", "CLOSED",
    "it helped: latency went from 180.4 ms to 77.6 ms, 102.8 ms won", "a" * 32, "latency_ms", 180.4, 77.6, 102.8,
)  # fmt: skip
STRANDED = replace(
    REPORT, sequence=8, remedy_id="standby", phase="STRANDED", breaker="OPEN", event="STRANDED",
    reason="it cannot be rolled back (no answer): look at edge yourself",
)  # fmt: skip


def test_a_remedy_is_told_in_a_sentence_with_what_it_won() -> None:
    assert sentence(REPORT, NOW_MS) == (
        "prefer-t2 (path to us-east-1) is in place. 5 s ago: it helped: latency went from 180.4 ms to 77.6 ms, "
        "102.8 ms won."
    )
    assert "cannot be rolled back; its breaker is open" in sentence(STRANDED, NOW_MS)


def test_what_a_terminal_would_obey_is_not_passed_on() -> None:
    assert "\x1b" not in sentence(replace(REPORT, reason="\x1b[2J", remedy_id="\x1b]0;x"), NOW_MS)


def test_of_each_remedy_the_highest_sequence_counts_in_whatever_order_they_come() -> None:
    older = replace(REPORT, sequence=3, reason="older")
    assert latest([REPORT, older, STRANDED, older]) == [STRANDED, REPORT]


def test_explain_and_watch_show_what_was_done_to_paths() -> None:
    found = text(explain(ranking(candidates=[candidate()]), None, NOW_MS, remedies=[REPORT]))
    assert "What was done to paths:" in found
    assert "102.8 ms won" in " ".join(found.split())
    view = View()
    assert view.take(encode(ranking())), "the first"
    assert view.take(encode(REPORT)), "somebody should look"
    assert not view.take(encode(replace(REPORT, sequence=2))), "older news"
    assert "102.8 ms won" in " ".join(drawn(paths(view, "eu-west-1", NOW_MS)).split())


@pytest.mark.kafka
def test_the_doctor_sees_breakers_and_remedies_that_nobody_took_back(topics: Topics) -> None:
    assert actuators(topics.bootstrap, topics.prefix) == (True, "none was asked for anything yet")
    result = ActionResult("a", "eu-west-1", "standby", "edge", "APPLY", "FAILED", "no answer", "OPEN", NOW_MS)
    well = replace(result, actuator="carrier", outcome="DRY_RUN", breaker="CLOSED")
    with Publisher(topics.bootstrap, client_id="test", topic_prefix=topics.prefix) as publisher:
        for record in (replace(result, breaker="CLOSED"), result, well):
            publisher.publish("action-results", "eu-west-1", record)
        for report in (REPORT, STRANDED):
            publisher.publish("path-actions", "eu-west-1", report)
    is_well, found = actuators(topics.bootstrap, topics.prefix)
    assert not is_well
    assert "edge: its breaker is OPEN (no answer)" in found
    assert "dry runs, which do nothing: carrier" in found
    assert "breakers closed: carrier" in found
    is_well, found = remedies(topics.bootstrap, topics.prefix)
    assert not is_well
    assert "standby" in found
    assert "prefer-t2" not in found
