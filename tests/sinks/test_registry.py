"""Topics in Confluent's wire format: kcat, our tail and our sinks read them, beside what is in our own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from infra.processes import wait_until
from producers.publisher import Publisher
from schemas.codec import decode
from schemas.records import ActionResult
from schemas.topics import named
from sinks.actuators.results import Results
from tests import kcat
from tests.infra.commands import lines
from tests.registry import RegistryServer
from tests.sinks.conftest import Pipeline
from tests.sinks.rankings import PRIMARIES, publish, ranking, records_on
from tests.sinks.targets import JsonLinesTarget

pytestmark = pytest.mark.kafka


def test_kcat_our_tail_and_our_sinks_read_a_ranking_in_either_format(
    registry_in_use: RegistryServer, pipeline: Pipeline, tmp_path: Path
) -> None:
    with Publisher(pipeline.bootstrap, client_id="test", topic_prefix=pipeline.prefix) as publisher:
        for sequence in (1, 2):
            publisher.publish("failover-rankings", PRIMARIES[0], ranking(sequence=sequence))
    name, url = named(pipeline.prefix, "failover-rankings"), registry_in_use.url
    assert [value[0] for _, _, value in records_on(pipeline.bootstrap, name)] == [0, 0]
    if kcat.reads_avro():
        argv = ["kcat", "-C", "-e", "-q", "-b", pipeline.bootstrap, "-t", name, "-s", "value=avro", "-r", url]
        said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
        assert [json.loads(line)["sequence"] for line in said.splitlines()] == [1, 2]

    publish(pipeline.bootstrap, pipeline.prefix, [ranking(sequence=3)])  # by a writer without a registry
    at = ("--bootstrap", pipeline.bootstrap, "--prefix", pipeline.prefix)
    shown = lines("tail", "failover-rankings", "--from-beginning", "--to-end", *at, PROXIMA_REGISTRY__URL=url)
    assert [line["record"]["sequence"] for line in shown] == [1, 2, 3]
    file = JsonLinesTarget.start(tmp_path)
    with pipeline.running(file.open()):
        wait_until(lambda: [line["sequence"] for line in file.lines()] == [1, 2, 3], 20, "all rankings")


def test_an_actuators_result_is_in_the_registrys_format_too(
    registry_in_use: RegistryServer, pipeline: Pipeline
) -> None:
    result = ActionResult("a-1", PRIMARIES[0], "r-1", "edge", "APPLY", "APPLIED", "it is so", "CLOSED", 1)
    Results(pipeline.bootstrap, pipeline.prefix).publish(result)
    ((_, _, value),) = records_on(pipeline.bootstrap, named(pipeline.prefix, "action-results"))
    assert value[0] == 0, registry_in_use.url
    assert decode(value, ActionResult) == result
