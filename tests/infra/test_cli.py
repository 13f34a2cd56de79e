"""The command line as such: help, exit codes, one clear line, and every small command once for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from infra.cli import _told, make_app
from infra.kafka.admin import create_topics
from infra.kafka.cluster import KafkaCluster
from infra.processes import free_ports, wait_until
from schemas.codec import decode_json
from schemas.errors import ConfigError, ProximaError
from schemas.records import InjectedMetric
from schemas.topics import TOPICS, named
from tests.infra.commands import fails, lines, proxima, running, succeeds
from tests.infra.conftest import Topics

HELP_RATIO_MAX = 2.5
APP = make_app()


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command, as it is typed after `proxima`."""
    group = get_command(APP) if group is None else group
    for name, command in group.commands.items():
        yield (*path, name)
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


ALL = list(commands())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_of_every_command_has_an_example_of_it(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(APP, [*path, "--help"], prog_name="proxima")
    assert result.exit_code == 0
    _, _, example = result.output.partition("Example")
    assert f"proxima {' '.join(path)}" in example, result.output


def test_commands_of_the_contract_that_are_mine_are_there() -> None:
    wanted = {("sink",), ("topics", "create"), ("topics", "list"), ("topics", "describe"), ("tail",), ("inject",),
              ("config", "apply"), ("config", "get"), ("config", "check"), ("watch",), ("doctor",),
              ("replay",), ("explain",), ("routes",),
              *(("direct", d) for d in ("pin", "drain", "freeze", "stop-actions", "lift", "list"))}  # fmt: skip
    assert wanted <= set(ALL)


def test_help_is_there_at_once() -> None:
    """Beside an interpreter that imports nothing but what draws it; pydantic or Faust would take some times as long."""
    took_s, bare_s = [], []
    for _ in range(5):
        began_s = time.monotonic()
        succeeds("--help")
        took_s.append(time.monotonic() - began_s)
        began_s = time.monotonic()
        subprocess.run([sys.executable, "-c", "import typer, rich.panel, rich.table"], check=True)
        bare_s.append(time.monotonic() - began_s)
    assert min(took_s) < HELP_RATIO_MAX * min(bare_s), (took_s, bare_s)


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["--nothing"], ["tail"], ["tail", "nothing"], ["tail", "observations", "--limit", "0"],
     ["inject", "a", "b", "latency_ms", "fast"], ["inject", "a", "b", "mood", "1"],
     ["inject", "a", "b", "loss_ratio", "-1"], ["inject", "a", "-", "capacity_ratio", "0.5"],
     ["inject", "a", "a", "healthy", "0"],
     ["sink", "nothing"], ["config", "apply"], ["topics", "create", "--replication", "0"],
     ["tail", "observations", "--prefix", "a b"], ["tail", "observations", "--output", "x"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert "Error: " in fails(2, *arguments)


def test_without_a_broker_every_client_says_so_in_one_line() -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    clients = [
        ["tail", "observations"],
        ["topics", "create"],
        ["topics", "describe"],
        ["watch", "--once"],
        ["sink", "redis"],
        ["inject", "a", "b", "loss_ratio", "0.1"],
        ["config", "get", "a"],
        ["direct", "list"],
        ["explain", "a"],
        ["replay", "observations", "--from", "-1h"],
    ]
    with ThreadPoolExecutor() as pool:
        for said in pool.map(lambda c: fails(1, *c, PROXIMA_KAFKA__BOOTSTRAP=address), clients):
            assert said.startswith("proxima: no broker answers")
            assert address in said
            assert "PROXIMA_KAFKA__BOOTSTRAP" in said
            assert said.count("\n") == 1


def test_a_file_with_many_mistakes_is_told_place_first(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text("[kafka]\nbootstrap = 1\nhost = 'x'\n")
    said = fails(1, "topics", "describe", "--config", path).splitlines()
    assert said[0] == f"proxima: {path}: 2 mistakes:"
    assert [line.split(":")[0] for line in said[1:]] == ["  kafka.bootstrap", "  kafka.host"]


def test_an_option_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    ports = free_ports(3)
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(("file", "env", "option"), ports, strict=True)}
    path = tmp_path / "client.toml"
    path.write_text(f'[kafka]\nbootstrap = "{addresses["file"]}"\n')
    variable = {"PROXIMA_KAFKA__BOOTSTRAP": addresses["env"]}
    doctor = ("doctor", "--json", "--config", path)
    with ThreadPoolExecutor() as pool:
        done = {
            "file": pool.submit(proxima, *doctor),
            "env": pool.submit(proxima, *doctor, **variable),
            "option": pool.submit(proxima, *doctor, "--bootstrap", addresses["option"], **variable),
        }
    for name, future in done.items():
        kafka = next(f for f in json.loads(future.result().stdout) if f["name"] == "kafka")
        assert addresses[name] in kafka["found"]


def test_a_reader_that_goes_away_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = proxima("topics", "list", stdout=write_end)
    os.close(write_end)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)


def test_errors_read_as_what_where_and_what_to_do() -> None:
    assert _told(ProximaError("it broke", where="here", do="mend it")) == "it broke (here): mend it"
    assert _told(ConfigError(["a is b"], where="f.toml")) == "a is b (f.toml)"
    assert _told(ConfigError(["a", "b"], where="f.toml")) == "f.toml: 2 mistakes:\n  a\n  b"


@pytest.mark.kafka
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_told_to_stop_says_so_by_its_exit_code(
    topics: Topics, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    log = tmp_path / "log"
    topics.publish("failover-config", b"anything")
    with running("tail", "failover-config", "--from-beginning", log_path=log, **topics.environment) as tail:
        wait_until(lambda: b"undecodable" in log.read_bytes(), 20, "the first line", children=[tail])
        tail.send_signal(number)
        assert tail.wait(10) == code
    assert "Traceback" not in log.read_text()


@pytest.mark.kafka
def test_ctrl_c_is_heard_while_the_broker_is_away(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with KafkaCluster.start() as cluster:
        create_topics(cluster.bootstrap)
        Topics(cluster.bootstrap, "").publish("observations", b"anything")
        where = {"PROXIMA_KAFKA__BOOTSTRAP": cluster.bootstrap}
        with running("tail", "observations", "--from-beginning", log_path=log, **where) as tail:
            wait_until(lambda: b"undecodable" in log.read_bytes(), 20, "the first line", children=[tail])
            cluster.kill(1)
            tail.send_signal(signal.SIGINT)
            assert tail.wait(10) == 130
    assert "Traceback" not in log.read_text()


@pytest.mark.kafka
def test_topics_are_created_once_and_described(topics: Topics) -> None:
    assert json.loads(succeeds("topics", "create", "--json", **topics.environment)) == {"created": []}
    described = json.loads(succeeds("topics", "describe", "--json", **topics.environment))
    assert [d["name"] for d in described] == [named(topics.prefix, t) for t in TOPICS]
    assert all(d["exists"] and d["mistakes"] == [] and d["topic_id"] for d in described)
    assert "12 partitions" in succeeds("topics", "describe", **topics.environment)


@pytest.mark.kafka
def test_missing_topics_are_exit_code_1_and_their_remedy_is_named(topics: Topics) -> None:
    done = proxima("topics", "describe", "--prefix", "nobody-", **topics.environment)
    assert done.returncode == 1
    assert done.stdout.count("missing: `proxima topics create` creates it") == len(TOPICS)
    assert "proxima topics create" in fails(1, "tail", "observations", "--prefix", "nobody-", **topics.environment)


def test_the_table_needs_no_broker() -> None:
    listed = json.loads(succeeds("topics", "list", "--json"))
    assert [row["topic"] for row in listed] == list(TOPICS)
    assert all(topic in succeeds("topics", "list") for topic in TOPICS)


@pytest.mark.kafka
def test_an_injected_metric_is_on_its_topic(topics: Topics) -> None:
    said = succeeds("inject", "eu-west-1", "us-east-1", "loss_ratio", "0.25", "--ttl-ms", "9000", "--source", "lb",
                    "--json", **topics.environment)  # fmt: skip
    succeeds("inject", "eu-west-1", "-", "healthy", "0", **topics.environment)
    first, second = lines("tail", "injected-metrics", "--from-beginning", "--to-end", **topics.environment)
    sent = decode_json(said.encode())
    assert isinstance(sent, InjectedMetric)
    assert first["record"] == json.loads(said)
    assert (sent.primary_region, sent.target_region, sent.metric, sent.value) == (
        "eu-west-1",
        "us-east-1",
        "loss_ratio",
        0.25,
    )
    assert (sent.source, sent.ttl_ms) == ("lb", 9000)
    assert abs(sent.observed_at_ms - first["appended_at_ms"]) < 60_000
    assert second["record"]["target_region"] is None
    assert second["key"] == "eu-west-1"
