"""Who changed what: the topic itself, with claims told apart from what brokers say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from infra.asking import known, standing
from schemas.codec import encode, to_plain
from schemas.records import Directive, FailoverConfiguration, OperatorDirective, Region, RegionCatalog
from schemas.topics import partition_of
from tests.infra.commands import fails, lines, proxima, succeeds
from tests.infra.conftest import Topics

pytestmark = pytest.mark.kafka

FIRST = FailoverConfiguration("eu-west-1", ["us-east-1"], 1, author="network team")


def test_everything_that_was_asked_is_there_with_who_asked_and_what_became_of_it(topics: Topics) -> None:
    topics.publish("failover-config", RegionCatalog(3, [Region("eu-west-1", 0, 0)]), key="regions")
    topics.publish("failover-config", RegionCatalog(2, [Region("eu-west-1", 0, 0)]), key="regions")
    topics.publish("failover-config", FIRST)
    topics.publish("failover-config", replace(FIRST, version=9, based_on=7, author="mallory"))
    topics.publish("failover-config", replace(FIRST, version=2, based_on=1, author="ann"))
    topics.publish("failover-config", replace(FIRST, version=0, author="bob"))
    topics.publish("failover-config", replace(FIRST, version=3, based_on=1, author="dave"), key="us-east-1")
    topics.publish("failover-config", b"\x00 is nothing")
    directive = OperatorDirective("d1", Directive.FREEZE, 1 << 50, "carol", "a test", "eu-west-1", None)
    topics.publish("failover-config", directive, key="directive/d1")
    found = {(e["about"], e["author"], e["what"].partition(":")[0]): e["outcome"]
             for e in lines("config", "audit", "--json", **topics.environment)}  # fmt: skip
    assert found["regions", "", "version 3"] == "accepted"
    assert found["regions", "", "version 2"] == "ignored, version 3 was in force"
    assert found["eu-west-1", "network team", "version 1 on 0"] == "accepted"
    assert found["eu-west-1", "mallory", "version 9 on 7"] == "rejected, version 1 was in force"
    assert found["eu-west-1", "ann", "version 2 on 1"] == "accepted"
    assert found["eu-west-1", "bob", "version 0 on 0"].startswith("invalid: ")
    assert found["eu-west-1", "dave", "version 3 on 1"] == "invalid: its key is not the primary"
    assert [outcome for (about, author, _), outcome in found.items() if not author and about == "eu-west-1"] == [
        "unreadable"
    ]
    assert "given" in {outcome for (about, _, _), outcome in found.items() if about == "d1"}
    told = succeeds("config", "audit", "d1", **topics.environment)
    assert told.count("\n") == 1
    assert "by carol" in told
    assert "a test" in told


def test_what_stands_under_another_key_is_in_force_for_nobody_who_asks(topics: Topics) -> None:
    topics.publish("failover-config", FIRST)
    topics.publish("failover-config", replace(FIRST, version=2, based_on=1, author="mallory"), key="us-east-1")
    topics.publish("failover-config", mine := replace(FIRST, version=2, based_on=1, author="ann"))
    ours = partition_of(b"eu-west-1")
    places = [(ours, offset) for offset in range(3)]
    in_force = standing(topics.bootstrap, places, topics.prefix)
    assert [in_force[place] for place in places if in_force[place] is not None] == [FIRST, mine]
    assert known(topics.bootstrap, topics.prefix).configurations == {"eu-west-1": mine}


def test_what_the_command_sends_says_which_user_sent_it(topics: Topics, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(to_plain(FIRST)))
    done = proxima("config", "apply", path, "--timeout-s", "1", **topics.environment)  # no worker answers
    assert done.returncode == 1
    [entry] = lines("config", "audit", "eu-west-1", "--json", **topics.environment)
    assert entry["author"] == "network team"
    assert entry["sent_by"].startswith("nobody, "), "no name on Kafka"
    assert " on " in entry["sent_by"], "a user of this machine"
    assert lines("config", "audit", "--from", "2100-01-01T00:00:00Z", "--json", **topics.environment) == []


def test_a_header_that_others_made_is_shown_on_one_line_without_what_a_terminal_obeys(topics: Topics) -> None:
    producer = Producer({"bootstrap.servers": topics.bootstrap, "log_level": 0})
    producer.produce(f"{topics.prefix}failover-config", key=b"eu-west-1", value=encode(FIRST),
                     headers=[("sent-by", b"\x1b[31mroot\nfake line \xff")])  # fmt: skip
    assert producer.flush(20) == 0
    told = succeeds("config", "audit", **topics.environment)
    assert told.count("\n") == 1
    assert "\x1b" not in told


def test_a_moment_that_is_none_is_wrong_usage(topics: Topics) -> None:
    assert "--from" in fails(2, "config", "audit", "--from", "yesterdayish", **topics.environment)
