"""A cluster that asks who comes: every role as its own user, with the rights of the table and no others."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from infra.kafka import acls
from infra.processes import ChildProcess, free_ports, wait_until
from infra.stores.servers import DynamoDbServer
from producers.gateway.tokens import new_token, write_tokens
from producers.publisher import Publisher
from schemas.codec import decode
from schemas.errors import KafkaUnavailableError
from schemas.records import (
    ActionResult,
    FailoverRanking,
    InjectedMetric,
    NetworkGraphNode,
    ProbeBatch,
    ReadinessReport,
    RouteEvent,
)
from schemas.rights import RIGHTS, Grant
from schemas.topics import TOPICS
from tests import kcat
from tests.infra.commands import PROXIMA, environment, fails, running, succeeds
from tests.producers.routes import wire
from tests.secured import Secured, coming_as, on_topic, secured_cluster
from tests.sinks.actuators.acting import action

pytestmark = pytest.mark.kafka

DOCS: Final = Path(__file__).parents[2] / "docs"
PRIMARY: Final = "eu-west-1"
PREFIX: Final = "203.0.113.0/24"
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Rights granted by the command, as the brokers themselves; topics made by the role that may."""
    with secured_cluster(tmp_path_factory.mktemp("secured")) as found:
        said = succeeds("topics", "acls", "--apply", **{
            "PROXIMA_KAFKA__BOOTSTRAP": found.cluster.administration,
            "PROXIMA_KAFKA__SECURITY_PROTOCOL": "SSL",
            "PROXIMA_KAFKA__CA_FILE": str(found.guard.ca_pem),
            "PROXIMA_KAFKA__CERTIFICATE_FILE": str(found.guard.broker_pem),
            "PROXIMA_KAFKA__KEY_FILE": str(found.guard.broker_pem),
        })  # fmt: skip
        assert "User:proxima-probe may WRITE topic probe-samples" in said.splitlines()
        assert "19 created" in succeeds("topics", "create", **found.environment("admin"))
        yield found


class Roles:
    """Roles' processes, each as its user; all end with the context."""

    def __init__(self, secured: Secured, folder: Path, stack: ExitStack) -> None:
        self._secured, self._folder, self._stack = secured, folder, stack
        self.children: list[ChildProcess] = []

    def start(self, role: str, *arguments: str, config: str = "", **more: str) -> ChildProcess:
        name = f"{role}-{len(self.children)}"
        if config:
            path = self._folder / f"{name}.toml"
            path.write_text(config)
            arguments = (*arguments, "--config", str(path))
        child = running(*arguments, log_path=self._folder / f"{name}.log", **self._secured.environment(role, **more))
        self.children.append(child)
        self._stack.callback(child.kill)
        return child

    def wait(self, is_so: Any, what: str) -> Any:
        return wait_until(is_so, 90, what, children=self.children, poll_s=0.3)


def test_every_role_works_as_a_user_of_its_own(
    secured: Secured, dynamodb_server: DynamoDbServer, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port, bmp_port, http_port = listener.getsockname()[1], *free_ports(2)
        roles = Roles(secured, tmp_path, stack)
        for stage in ("intake", "decide", "overview"):
            roles.start(stage, "worker", "--stages", stage)
        _configure(secured, tmp_path, port)
        targets = "".join(
            f'[[probe.targets]]\nregion = "{region}"\naddress = "127.0.0.1"\nport = {port}\n'
            for region in ("near", "far")
        )
        roles.start("probe", "probe", config=f'[probe]\nagent_id = "eu/a"\nprimary_region = "{PRIMARY}"\n'
                                             f'methods = ["tcp-connect"]\n{targets}')  # fmt: skip
        roles.start("readiness", "readiness",
                    config=f'[readiness]\nagent_id = "eu/r"\nprimary_region = "{PRIMARY}"\nperiod_s = 1\n')  # fmt: skip
        roles.start("routes", "routes",
                    config=f'[routes]\nagent_id = "eu/b"\nprimary_region = "{PRIMARY}"\nport = {bmp_port}\n',
                    )  # fmt: skip
        rankings = tmp_path / "rankings.jsonl"
        roles.start("sink", "sink", "jsonlines", config=f'[jsonlines]\npath = "{rankings}"\n')
        store = f'[dynamodb]\nendpoint_url = "{dynamodb_server.endpoint_url}"\ntable_prefix = "secured-"\n'
        kept = tmp_path / "store.toml"
        kept.write_text(store)
        succeeds("stores", "migrate", "--config", kept, **CREDENTIALS)
        roles.start("store", "sink", "dynamodb", config=store, **CREDENTIALS)
        roles.start("actuators", "sink", "actuators", config=_actuators(tmp_path))
        token = _gateway(roles, tmp_path, http_port)

        _tell_routes(roles, bmp_port)
        succeeds("inject", PRIMARY, "far", "loss_ratio", "0.01", **secured.environment("injector"))
        with coming_as(secured, "overview") as bootstrap, Publisher(bootstrap, client_id="overview") as publisher:
            publisher.publish("path-actions", PRIMARY, action("a" * 32, primary_region=PRIMARY))
        _inject_by_http(roles, http_port, token)

        roles.wait(lambda: _heard(secured, "near"), "a subscriber to hear of a target")
        roles.wait(lambda: on_topic(secured, "probe-samples", ProbeBatch), "samples")
        roles.wait(lambda: on_topic(secured, "readiness-reports", ReadinessReport), "reports")
        roles.wait(lambda: on_topic(secured, "bgp-events", RouteEvent), "routes")
        roles.wait(lambda: on_topic(secured, "network-graph", NetworkGraphNode), "the graph")
        roles.wait(lambda: on_topic(secured, "action-results", ActionResult), "an action's result")
        roles.wait(lambda: len(on_topic(secured, "injected-metrics", InjectedMetric)) == 2, "both injected metrics")
        roles.wait(lambda: rankings.exists() and rankings.read_text().count("\n") > 2, "a sink to write")
        roles.wait(
            lambda: succeeds("history", PRIMARY, "--config", kept, "--json", **CREDENTIALS), "a store to be written"
        )
        served = httpx.get(
            f"http://127.0.0.1:{http_port}/v1/rankings/{PRIMARY}",
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        )
        assert served.json()["primary_region"] == PRIMARY
        assert "is its target" in succeeds("explain", PRIMARY, **secured.environment("operator")) or served.is_success
        doctor = succeeds("doctor", "--json", **secured.environment("admin"))
        said_of = {f["name"]: f for f in json.loads(doctor)}
        assert said_of["sinks"]["status"] == said_of["identity"]["status"] == said_of["rights"]["status"] == "ok"
        assert "failover-config is written by User:proxima-operator;" in said_of["rights"]["found"]
        assert all(child.alive for child in roles.children)
        for child in roles.children:
            assert child.log_path is not None
            said = child.log_path.read_text()
            assert "uthoriz" not in said, said
            assert "Traceback" not in said, said


def _configure(secured: Secured, folder: Path, port: int) -> None:
    """By an operator, who is told by the journal that it is in force."""
    path = folder / "regions.toml"
    health = f'[[regions.health]]\nurl = "tcp://127.0.0.1:{port}"\n'
    path.write_text(
        f'[[regions]]\nregion_id = "{PRIMARY}"\nlatitude = 53.3\nlongitude = -6.2\n'
        f'[[regions]]\nregion_id = "near"\nlatitude = 50.1\nlongitude = 8.7\nprefixes = ["{PREFIX}"]\n{health}'
        f'[[regions]]\nregion_id = "far"\nlatitude = 37.2\nlongitude = -79.3\n{health}'
        f'[[configurations]]\nprimary_region = "{PRIMARY}"\npotential_failover_regions = ["near", "far"]\n'
    )
    said = succeeds("config", "apply", path, "--timeout-s", "90", **secured.environment("operator"))
    assert "accepted" in said, said


def _actuators(folder: Path) -> str:
    token = folder / "carrier.token"
    token.touch(0o600)
    token.write_text("secret")
    return (
        f'[actuators]\nname = "carrier"\nlog = "{folder}/actions.sqlite"\n'
        f'[[providers]]\nname = "edge"\nurl = "http://127.0.0.1:1"\ntoken_file = "{token}"\n'
        f'[[providers.tasks]]\nprimary = "{PRIMARY}"\nremedy = "standby"\ncircuit = "C-1"\n'
        "usual_bps = 1_000_000_000\nvalue_max = 10_000_000_000\n"
    )


def _gateway(roles: Roles, folder: Path, port: int) -> str:
    token, row = new_token("cdn-logs", records_per_s=100.0, burst=100)
    write_tokens(folder / "tokens.json", [row])
    roles.start("gateway", "gateway", config=f'[gateway]\nport = {port}\ntokens_file = "{folder}/tokens.json"\n')
    return token


def _inject_by_http(roles: Roles, port: int, token: str) -> None:
    metric = {"primary_region": PRIMARY, "target_region": "far", "metric": "latency_ms", "value": 90.0}

    def accepted() -> bool:
        try:
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/metrics", json=metric, trust_env=False,
                                headers={"Authorization": f"Bearer {token}", "Idempotency-Key": "once"})  # fmt: skip
        except httpx.TransportError:
            return False
        return answer.status_code == 202

    roles.wait(accepted, "an injection by HTTP")


def _tell_routes(roles: Roles, port: int) -> None:
    def connected() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except OSError:
            return None

    with roles.wait(connected, "the route monitor to listen") as session:
        session.sendall(wire.initiation())
        session.sendall(wire.as_frr([PREFIX], "192.0.2.1", 65001))


def _heard(secured: Secured, target: str) -> bool:
    """Whether a subscriber of somebody's, in a group of its own, hears of the target."""
    consumer = Consumer(secured.client("subscriber") | {"group.id": "subscriber-1", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe(["failover-rankings"])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                ranking = decode(message.value() or b"", FailoverRanking)
                if ranking.target_region == target:
                    return True
    finally:
        consumer.close()
    return False


@pytest.mark.parametrize("role", sorted(RIGHTS))
def test_a_role_may_write_what_the_table_says_and_nothing_else(secured: Secured, role: str) -> None:
    """An injector above all: no probe sample, no configuration, no ranking, no snapshot."""
    refused: dict[str, int] = {}
    producer = Producer(secured.client(role) | {"acks": "all", "message.timeout.ms": "20000"})

    def answered(topic: str) -> Any:
        return lambda error, _message: refused.update({topic: error.code()} if error is not None else {})

    for topic in TOPICS:
        producer.produce(topic, key=b"nobody", value=b"\x00 is no record", on_delivery=answered(topic))
    assert producer.flush(40) == 0
    assert set(refused) == set(TOPICS) - set(RIGHTS[role].writes)
    assert set(refused.values()) <= {KafkaError.TOPIC_AUTHORIZATION_FAILED}


@pytest.mark.parametrize("role", sorted(RIGHTS))
def test_a_role_may_read_what_the_table_says_and_nothing_else(secured: Secured, role: str) -> None:
    never_joined = {"group.id": "nobody", "enable.auto.commit": "false", "enable.partition.eof": "true"}
    consumer = Consumer(secured.client(role) | never_joined)
    try:
        seen = {topic for topic in TOPICS if consumer.list_topics(topic, timeout=20).topics[topic].error is None}
        assert seen == set(RIGHTS[role].topics) | set(RIGHTS[role].sees_settings)
        assert _answered_fetches(consumer, seen) == set(RIGHTS[role].reads)
    finally:
        consumer.close()


def _answered_fetches(consumer: Any, topics: set[str]) -> set[str]:
    """Topics whose fetches are answered; the others' are refused."""
    answered, waiting = set(), set(topics)
    consumer.assign([TopicPartition(topic, 0, 0) for topic in topics])
    deadline = time.monotonic() + 40
    while waiting:
        assert time.monotonic() < deadline, waiting
        message = consumer.poll(1)
        error = message.error() if message is not None else None
        if message is None or (error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED):
            continue  # librdkafka asks for a group's coordinator also where nobody joins
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            answered.add(message.topic())
        else:
            assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED, error
        waiting.discard(message.topic())
    return answered


@pytest.mark.parametrize("settings", [
    pytest.param({"security.protocol": "PLAINTEXT"}, id="in the clear"),
    pytest.param({"security.protocol": "SSL"}, id="by TLS without a name"),
    pytest.param({"sasl.mechanisms": "PLAIN"}, id="by another mechanism"),
    pytest.param({"sasl.username": "nobody"}, id="as a user that there is not"),
])  # fmt: skip
def test_anonymous_cannot_even_see_the_topics(secured: Secured, settings: dict[str, str]) -> None:
    said = secured.client("operator") | {"group.id": "x"} | settings
    if not said["security.protocol"].startswith("SASL"):
        said = {key: value for key, value in said.items() if not key.startswith("sasl.")}
    if said["security.protocol"] == "PLAINTEXT":
        said = {key: value for key, value in said.items() if not key.startswith("ssl.")}
    consumer = Consumer(said)
    try:
        with pytest.raises(KafkaException):
            consumer.list_topics(timeout=3)
    finally:
        consumer.close()


_FILES: Final = {
    "probe": '[probe]\nagent_id = "a"\nprimary_region = "eu"\nmethods = ["tcp-connect"]\n'
             '[[probe.targets]]\nregion = "us"\naddress = "127.0.0.1"\n',
    "readiness": '[readiness]\nagent_id = "a"\nprimary_region = "eu"\n',
    "routes": '[routes]\nagent_id = "a"\nprimary_region = "eu"\nport = 0\n',
    "gateway": '[gateway]\nport = 0\n',
    "sink actuators": '[actuators]\nname = "x"\nlog = "LOG"\n[[links]]\nname = "l"\n'
                      '[[links.tasks]]\nprimary = "eu"\nremedy = "r"\ndevice = "nothing0"\n',
}  # fmt: skip


@pytest.mark.parametrize("command", [
    "worker --stages intake", "worker --stages decide", "probe", "readiness", "routes", "gateway", "sink jsonlines",
    "sink actuators", "inject eu us latency_ms 5", "config get eu", "tail failover-rankings", "topics create",
    "topics acls --apply", "watch eu", "explain eu",
])  # fmt: skip
def test_a_wrong_password_is_one_clear_line(secured: Secured, command: str, tmp_path: Path) -> None:
    variables = secured.environment("operator", PROXIMA_KAFKA__PASSWORD="wrong-hunter2")  # noqa: S106
    del variables["PROXIMA_KAFKA__PASSWORD_FILE"]
    arguments = command.split()
    if command in _FILES:
        (tmp_path / "role.toml").write_text(_FILES[command].replace("LOG", str(tmp_path / "log")))
        (tmp_path / "tokens.json").write_text('{"tokens": []}')
        arguments += ["--config", str(tmp_path / "role.toml")]
        variables["PROXIMA_GATEWAY__TOKENS_FILE"] = str(tmp_path / "tokens.json")
    began = time.monotonic()
    done = subprocess.run([*PROXIMA, *arguments], env=environment(**variables), capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 1, done
    said = done.stderr + done.stdout
    lines = [line for line in said.splitlines() if line.startswith("proxima: ")]
    assert len(lines) == 1, said
    assert lines[0].startswith("proxima: user proxima-operator is refused: SASL authentication error: "), said
    assert secured.bootstrap in lines[0]
    assert "Traceback" not in said
    assert "hunter2" not in said
    assert time.monotonic() - began < 40, "a deadline, and no measurement"


@pytest.mark.skipif(kcat.version() is None, reason="kcat is not installed")
def test_kcat_injects_by_the_file_that_the_documents_show(secured: Secured, tmp_path: Path) -> None:
    (shown,) = re.findall(r"```ini\n(.*?)```", (DOCS / "security.md").read_text(), re.DOTALL)
    (line,) = (b for b in re.findall(r"```sh\n(.*?)```", (DOCS / "inject.md").read_text(), re.DOTALL) if "kcat" in b)

    def run(role: str, script: str) -> str:
        text = shown
        for word, ours in (
            ("broker-1:9093", secured.bootstrap),
            ("proxima-injector", f"proxima-{role}"),
            ("password=...", f"password={secured.password_file(role).read_text()}"),
            ("/etc/proxima/ca.pem", str(secured.guard.ca_pem)),
        ):
            assert word in shown
            text = text.replace(word, ours)
        (tmp_path / "kcat.conf").write_text(text)
        argv = ["bash", "-euo", "pipefail", "-c", script.replace("kcat -", "kcat -F kcat.conf -")]
        said = subprocess.run(argv, cwd=tmp_path, env=kcat.environment(tmp_path), capture_output=True, text=True,
                              errors="replace", timeout=60, check=False)  # fmt: skip
        assert said.returncode == 0, said.stderr
        return said.stdout

    run("injector", line.replace(" -b $BOOTSTRAP", "").replace("cdn-logs", "by-kcat"))
    assert '"source":"by-kcat"' in run("intake", "kcat -C -q -e -t injected-metrics")


def test_a_certificate_that_nobody_vouches_for_is_one_clear_line(secured: Secured) -> None:
    variables = secured.environment("operator")
    del variables["PROXIMA_KAFKA__CA_FILE"]
    said = fails(1, "config", "get", "eu", **variables)
    assert "certificate verify failed" in said
    assert "look at kafka.ca_file" in said
    assert said.count("\n") == 1


def test_a_worker_without_its_rights_says_all_that_it_lacks(secured: Secured) -> None:
    said = fails(1, "worker", "--stages", "intake", **secured.environment("injector"))
    assert "user proxima-injector is not allowed: READ and WRITE on probe-samples, READ on bgp-events" in said
    assert "READ on group proxima-intake" in said
    assert "come as `intake` or `worker`; `proxima topics acls` says what each role needs" in said


def test_a_sink_without_its_rights_says_so(secured: Secured, tmp_path: Path) -> None:
    variables = secured.environment("injector", PROXIMA_JSONLINES__PATH=str(tmp_path / "x.jsonl"))
    said = fails(1, "sink", "jsonlines", **variables)
    assert said.startswith("proxima: user proxima-injector is not allowed: READ on ")
    assert re.search(r"come as .*`sink`", said)


LACKING: Final = {  # who wants to do what: what is missing, and as whom it could be done
    ("subscriber", "inject eu us latency_ms 5"): ("WRITE on injected-metrics", "`injector` or `gateway`"),
    ("operator", "inject eu us latency_ms 5"): ("WRITE on injected-metrics", "`injector` or `gateway`"),
    ("injector", "direct freeze --because b --for 1h"): ("READ on failover-config", "`admin` or `worker`"),
    ("store", "direct freeze --because b --for 1h"): ("WRITE on failover-config", "`operator`"),
    ("probe", "tail probe-samples"): ("READ on probe-samples", "`intake`, `operator`, `admin` or `worker`"),
    ("subscriber", "topics create"): ("CREATE on probe-samples", "`admin`"),
    ("operator", "topics acls --check"): ("DESCRIBE on the cluster", "`admin`"),
    ("injector", "topics acls --apply"): ("ALTER on the cluster", "`admin`"),
    ("probe", "sink redis"): ("READ on failover-rankings", "`operator`, `admin` or `worker`"),
    ("probe", "sink actuators"): ("READ on failover-config", "`operator`, `admin` or `worker`"),
    ("subscriber", "sink jsonlines"): ("READ on group proxima-sink-jsonlines", "`sink`"),
}  # fmt: skip


@pytest.mark.parametrize(("role", "command"), LACKING)
def test_whoever_lacks_a_right_is_told_which_and_who_has_it(
    secured: Secured, role: str, command: str, tmp_path: Path
) -> None:
    arguments = command.split()
    if command in _FILES:
        (tmp_path / "role.toml").write_text(_FILES[command].replace("LOG", str(tmp_path / "log")))
        arguments += ["--config", str(tmp_path / "role.toml")]
    said = fails(1, *arguments, **secured.environment(role))
    right, holders = LACKING[role, command]
    assert f"user proxima-{role} is not allowed: {right} " in said
    assert re.search(f"come as [^;]*{holders}; `proxima topics acls` says what each role needs", said)


SERVICES_LACKING: Final = {
    ("injector", "probe"): "measurements are refused: user proxima-injector is not allowed: WRITE on probe-samples: "
                           "come as `probe`, `intake` or `worker`;",
    ("subscriber", "probe"): "proxima: user proxima-subscriber is not allowed: WRITE on any topic ",
    ("injector", "routes"): "proxima: user proxima-injector is not allowed: READ on failover-config ",
    ("injector", "readiness"): "proxima: user proxima-injector is not allowed: READ on failover-config ",
    ("probe", "gateway"): "rankings cannot be read: user proxima-probe is not allowed: READ on failover-rankings ",
    ("subscriber", "gateway"): "proxima: user proxima-subscriber is not allowed: WRITE on any topic ",
}  # fmt: skip


@pytest.mark.parametrize(("role", "command"), SERVICES_LACKING)
def test_a_service_that_lacks_a_right_says_which(secured: Secured, role: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "role.toml").write_text(_FILES[command])
    (tmp_path / "tokens.json").write_text('{"tokens": []}')
    log, said = tmp_path / "role.log", SERVICES_LACKING[role, command]
    variables = secured.environment(role, PROXIMA_GATEWAY__TOKENS_FILE=str(tmp_path / "tokens.json"))
    with running(command, "--config", str(tmp_path / "role.toml"), log_path=log, **variables) as child:
        wait_until(lambda: said in log.read_text(), 30, said)
        assert "Traceback" not in log.read_text()
        if said.startswith("proxima: "):
            assert child.wait(20) == 1


def test_the_brokers_log_says_who_was_refused(secured: Secured) -> None:
    producer = Producer(secured.client("injector") | {"message.timeout.ms": "20000"})
    producer.produce("failover-config", key=b"eu", value=b"{}")
    assert producer.flush(30) == 0
    log = secured.folder / "kafka-1.log"
    said = "Principal = User:proxima-injector is Denied"
    wait_until(lambda: said in log.read_text(), 20, "the authorizer's log")


def test_what_goes_beyond_the_table_is_named(secured: Secured) -> None:
    every = acls.wanted({role: f"User:proxima-{role}" for role in RIGHTS})
    with coming_as(secured, "admin") as bootstrap:
        assert acls.missing(bootstrap, every) == []
        assert acls.strangers(bootstrap, every) == []
        [mallory] = [
            a for a in acls.wanted({"operator": "User:mallory"}) if a.grant[:3] == ("TOPIC", "failover-config", "WRITE")
        ]
        acls.apply(bootstrap, [mallory])
        assert acls.strangers(bootstrap, every) == [mallory]
        for grant in (
            Grant("CLUSTER", "kafka-cluster", "ALTER"),
            Grant("GROUP", "*", "ALL"),
            Grant("GROUP", "proxima-decide", "READ"),
            Grant("GROUP", "pro", "READ", is_prefix=True),
            Grant("TOPIC", "failover-", "ALL", is_prefix=True),
        ):
            acls.apply(bootstrap, [acls.Allowed("User:eve", grant)])
            assert acls.Allowed("User:eve", grant) in acls.strangers(bootstrap, every)
        acls.apply(bootstrap, [acls.Allowed("User:carl", Grant("GROUP", "subscriber-carl", "READ"))])
        assert {a.principal for a in acls.strangers(bootstrap, every)} == {"User:mallory", "User:eve"}
        assert acls.writers(acls.granted(bootstrap), "failover-config") == {
            "User:mallory", "User:eve", "User:proxima-operator",
        }  # fmt: skip
        other = acls.wanted({"probe": "User:another"})
        assert acls.missing(bootstrap, other) == other
    said = fails_with("topics", "acls", "--check", **secured.environment("admin"))
    assert "beyond the table: User:mallory may WRITE topic failover-config" in said.splitlines()
    with (
        coming_as(secured, "probe") as bootstrap,
        pytest.raises(KafkaUnavailableError, match="not allowed: DESCRIBE on the cluster"),
    ):
        acls.missing(bootstrap, every)


def fails_with(*arguments: str, **variables: str) -> str:
    """What a command prints whose news is bad."""
    done = subprocess.run([*PROXIMA, *arguments], env=environment(**variables), capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 1, done
    return done.stdout


def test_variables_of_this_machine_lead_nowhere_else() -> None:
    """The tests above are only worth something if nothing else hands them an identity."""
    assert [name for name in os.environ if name.startswith("PROXIMA_KAFKA__") and "PASSWORD" in name] == []
