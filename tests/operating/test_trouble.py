"""Roles in trouble: alive, not ready, and saying why, in lines that give no secret away."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from infra.kafka.cluster import Broker, KafkaCluster
from infra.metrics import PORT_OF, serve_metrics, serve_stage_metrics
from infra.processes import free_ports, wait_until
from schemas.config import Metrics
from schemas.observed import Observed
from tests.operating.roles import get, ports_in_a_row, reasons, start
from tests.pipeline import Pipeline

PASSWORD = "correct-horse-battery"  # noqa: S105 - of nobody
_AGENT = """
[probe]
agent_id = "a"
primary_region = "eu-west-1"
[[probe.targets]]
region = "near"
address = "127.0.0.1"
port = 1
"""


@pytest.mark.kafka
def test_a_sink_whose_store_is_away_lives_and_is_not_ready_and_keeps_its_password_to_itself(
    kafka: Broker, tmp_path: Path
) -> None:
    port, nobody = free_ports(2)
    with Pipeline(kafka.bootstrap, tmp_path) as pipeline:
        environment: dict[str, Any] = {
            "KAFKA__BOOTSTRAP": kafka.bootstrap,
            "KAFKA__TOPIC_PREFIX": pipeline.prefix,
            "METRICS__PORT": port,
            "LOG__FORMAT": "json",
            "REDIS__URL": f"redis://:{PASSWORD}@127.0.0.1:{nobody}/0",
        }
        with start(["sink", "redis"], "redis", tmp_path, "", **environment) as child:
            wait_until(lambda: any("is away" in why for why in reasons(port)), 60, "it to say so", children=[child])
            assert get(port, "/healthz")[0] == 200
            status, body = get(port, "/readyz")
            assert status == 503
            assert json.loads(body)["status"] == "failing"
            assert 'proxima_sink_up{sink="redis"} 0.0' in get(port, "/metrics")[1]
        log = (tmp_path / "redis.log").read_text()
        lines = [json.loads(line) for line in log.splitlines()[:-1]]  # the last is its count, on stdout
        assert [line for line in lines if line["level"] == "ERROR"]
        assert PASSWORD not in log + body


def test_an_agent_without_kafka_lives_and_is_not_ready_and_a_stage_without_it_says_why_in_json(tmp_path: Path) -> None:
    port, nobody = free_ports(2)
    environment: dict[str, Any] = {
        "KAFKA__BOOTSTRAP": f"127.0.0.1:{nobody}",
        "METRICS__PORT": port,
        "LOG__FORMAT": "json",
    }
    stages: dict[str, Any] = {name: value for name, value in environment.items() if name != "METRICS__PORT"}
    with (
        start(["probe"], "probe", tmp_path, _AGENT, **environment) as child,
        start(["worker", "--stages", "intake"], "intake", tmp_path, **stages) as stage,
    ):
        wait_until(lambda: "Kafka has not confirmed" in str(reasons(port)), 60, "it to say so", children=[child])
        assert get(port, "/healthz")[0] == 200
        assert get(port, "/readyz")[0] == 503
        child.kill()
        assert {json.loads(line)["role"] for line in (tmp_path / "probe.log").read_text().splitlines()} == {"probe"}
        assert wait_until(lambda: stage.returncode, 60, "it to give up") == 1
    lines = [json.loads(line) for line in (tmp_path / "intake.log").read_text().splitlines()]
    assert lines[-1]["level"] == "CRITICAL"
    assert str(nobody) in lines[-1]["message"]


def test_with_the_broker_gone_a_stage_and_a_sink_live_and_are_not_ready_and_are_again_after_its_return(
    tmp_path: Path,
) -> None:
    first, (sink,) = ports_in_a_row(4), free_ports(1)
    stage = first + PORT_OF["decide"]
    with KafkaCluster.start(data_dir=tmp_path / "kafka") as cluster, Pipeline(cluster.bootstrap, tmp_path) as pipeline:
        kafka = {"KAFKA__BOOTSTRAP": cluster.bootstrap, "KAFKA__TOPIC_PREFIX": pipeline.prefix}
        worker = ["worker", "--stages", "decide,overview"]  # a stage may end meanwhile: its supervisor starts it again
        path = tmp_path / "rankings.jsonl"
        with (
            start(worker, "worker", tmp_path, "", **kafka, METRICS__PORT=first) as one,
            start(
                ["sink", "jsonlines"], "sink", tmp_path, "", **kafka, METRICS__PORT=sink, JSONLINES__PATH=path
            ) as two,
        ):
            both = (one, two)

            def ready() -> bool:
                return reasons(stage) == reasons(sink) == []

            wait_until(ready, 60, "both to be ready", children=both, poll_s=0.2)
            cluster.kill(1)
            wait_until(
                lambda: "no broker has answered" in str(reasons(stage)), 60, "the stage to say so", children=both
            )
            wait_until(lambda: reasons(sink) == ["Kafka does not answer"], 60, "the sink to say so", children=both)
            assert get(stage, "/healthz")[0] == get(sink, "/healthz")[0] == 200
            cluster.restart(1)
            wait_until(ready, 120, "both to be ready again", children=both, poll_s=0.2)


class Stuck(Observed):
    def stuck(self) -> str:
        return "the loop has not moved for 99 s"


def test_who_does_not_move_is_told_from_who_lives() -> None:
    (port,) = free_ports(1)
    serve_metrics(Metrics(port=port), "a role")
    assert get(port, "/healthz")[0] == 200
    stuck = Stuck()
    stuck.observe()
    status, body = get(port, "/healthz")
    assert (status, json.loads(body)["reasons"]) == (503, ["the loop has not moved for 99 s"])
    assert "the loop has not moved for 99 s" in reasons(port)
    stuck.unobserve()
    assert get(port, "/healthz")[0] == 200


def test_a_stage_whose_port_is_taken_works_without_and_answers_once_it_is_free() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port + 1)):
        serve_stage_metrics(Metrics(port=port), "decide")
    wait_until(lambda: get(port + 1, "/metrics")[0] == 200, 20, "it to answer")
    assert json.loads(get(port + 1, "/healthz")[1])["role"] == "decide"
