"""The table of rights, held against what the roles really read and write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from schemas.records import (
    DisruptionPrediction,
    FailoverRanking,
    GraphUpdate,
    NetworkGraphNode,
    NetworkVerdict,
    PathAction,
    PathWeights,
    PredictionScorecard,
    ReadinessRequest,
    RemedyReport,
)
from schemas.rights import RIGHTS, Grant, grants, holders, roles
from schemas.topics import TOPICS
from sinks import kept
from sinks.actuators.sink import ActuatorsSink
from sinks.jsonlines import JsonLinesSink
from sinks.redis import RedisSink
from sinks.webhook import WebhookSink
from streams import decide, intake, overview, stage

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
ENGINES_WRITE = {"engine-snapshots", "engine-checkpoints", "dead-letters"}
WRITERS = {
    "probe agents": "probe", "route monitors": "routes", "readiness probers": "readiness", "metronomes": "intake",
    "operators": "operator", "anyone allowed to": "injector", "actuators": "actuators", "sinks": "sink",
    "intake": "intake", "decide": "decide", "overview": "overview",
}  # fmt: skip


def test_whoever_the_topic_table_names_may_write_and_nobody_else() -> None:
    written = {t.name: {WRITERS[each] for each in t.written_by.split(", ")} for t in TOPICS.values()}
    # The same right by another way in, and those that write as sinks do.
    written["injected-metrics"].add("gateway")
    written["dead-letters"] |= {"store", "actuators"}
    assert {t: {role for role, its in RIGHTS.items() if t in its.writes} for t in TOPICS} == written


def test_a_stage_has_the_rights_that_it_uses() -> None:
    assert set(RIGHTS["intake"].reads) == {intake.SAMPLES, *intake._FORWARDED}
    assert {stage.SNAPSHOTS, stage.CHECKPOINTS} < ENGINES_WRITE
    assert set(RIGHTS["decide"].reads) == {decide.JOURNAL, stage.SNAPSHOTS, "failover-rankings"}
    assert set(RIGHTS["overview"].reads) == {overview.JOURNAL, stage.SNAPSHOTS}
    assert set(RIGHTS["decide"].writes) == ENGINES_WRITE | {decide.JOURNAL} | _topics_of(
        FailoverRanking, GraphUpdate, PathWeights, DisruptionPrediction, PredictionScorecard, ReadinessRequest
    )
    assert set(RIGHTS["overview"].writes) == ENGINES_WRITE | {overview.JOURNAL} | _topics_of(
        NetworkVerdict, NetworkGraphNode, PathAction, RemedyReport
    )


def _topics_of(*records: type) -> set[str]:
    return {t.name for t in TOPICS.values() for record in records if record in t.records}


@pytest.mark.parametrize(("sink", "role"), [
    (RedisSink, "sink"), (JsonLinesSink, "sink"), (WebhookSink, "sink"), (ActuatorsSink, "actuators"),
    (kept, "store"),
])  # fmt: skip
def test_a_sink_has_the_rights_that_it_uses(sink: Any, role: str) -> None:
    assert set(sink.TOPICS if sink is kept else sink.topics) == set(RIGHTS[role].reads)


def test_what_moves_traffic_is_written_by_the_engine_and_operators_alone() -> None:
    for topic, writers in {  # DECISIVE, and what it comes from
        "failover-rankings": {"decide"},
        "failover-config": {"operator"},
        "engine-snapshots": {"decide", "overview"},
        "path-actions": {"overview"},
        "network-verdicts": {"overview"},
        "observations": {"intake", "decide"},
    }.items():
        assert {role for role, its in RIGHTS.items() if topic in its.writes} == writers


def test_the_documented_table_is_this_one() -> None:
    rows = dict(re.findall(r"^\| `([a-z]+)` .*? \| (.*) \| .*? \|$", DOCUMENT.read_text(), re.MULTILINE))
    assert rows.keys() == RIGHTS.keys()
    for role, its in RIGHTS.items():
        said = re.findall(r"`([a-z-]+)`", rows[role])
        if len(its.reads) < len(TOPICS) - 1:
            assert said == [*its.reads, *its.writes], role
        else:  # in words
            assert set(said) == (set(TOPICS) - set(its.reads)) | set(its.writes), role


def test_names_are_of_the_table_and_a_prefix_stands_before_all() -> None:
    for role in roles():
        for grant in grants(role, "second-"):
            assert grant.kind == "CLUSTER" or grant.name.startswith("second-")
            if grant.kind == "TOPIC" and not grant.is_prefix:
                assert grant.name.removeprefix("second-") in TOPICS
        found = list(grants(role))
        assert len(found) == len(set(found))


def test_a_worker_of_all_stages_has_the_rights_of_each() -> None:
    stages = {grant for name in ("intake", "decide", "overview") for grant in grants(name)}
    assert set(grants("worker")) == stages
    assert Grant("TOPIC", "failover-config", "WRITE") not in stages


@pytest.mark.parametrize("prefix", ["", "second-"])
def test_every_right_of_the_table_leads_back_to_the_roles_that_have_it(prefix: str) -> None:
    for role in roles():
        for grant in grants(role, prefix):
            asked = grant._replace(name=f"{grant.name}1", is_prefix=False) if grant.is_prefix else grant
            assert role in holders([asked])
    assert holders([Grant("TOPIC", f"{prefix}injected-metrics", "WRITE")]) == ("injector", "gateway")
    assert holders([Grant("TOPIC", f"{prefix}failover-config", "WRITE")]) == ("operator",)
    assert holders([Grant("GROUP", f"{prefix}proxima-sink-redis", "READ")]) == ("sink",)
    assert "probe" in holders([Grant("TOPIC", f"{prefix}probe-samples", "DESCRIBE")]), "to write includes it"
    both = [Grant("TOPIC", f"{prefix}{name}", "READ") for name in ("path-weights", "failover-config")]
    assert set(holders(both)) == {"store", "operator", "admin"}, "all of them, by one role"
    assert holders([Grant("TOPIC", f"{prefix}nowhere", "READ")]) == ()
