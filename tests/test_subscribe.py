"""docs/subscribe.md does what it says: its programs are run as they stand there, but for the address and the topic."""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.kafka.jars import cache_folder, kafka_home
from infra.processes import ChildProcess, wait_until
from producers.publisher import Publisher
from schemas.topics import named
from sinks.courier import Courier
from tests import kcat
from tests.registry import RegistryServer
from tests.sinks.conftest import Pipeline, pipeline  # noqa: F401 - a fixture
from tests.sinks.rankings import PRIMARIES, publish, ranking
from tests.sinks.receiver import Answer, Receiver
from tests.sinks.test_courier import KEY, SECRET, carrying, destination, parcel, results

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "subscribe.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dslf4j.internal.verbosity=ERROR")
AVRO = "org.apache.avro:avro:1.12.1"


def block(language: str, what: str) -> str:
    (found,) = [text for kind, text in BLOCKS if kind == language and what in text]
    return found


def ours(text: str, pipeline: Pipeline) -> str:  # noqa: F811
    topic = named(pipeline.prefix, "failover-rankings")
    return text.replace("127.0.0.1:9092", pipeline.bootstrap).replace('failover-rankings"', f'{topic}"')


def says(argv: Sequence[str | Path], pipeline: Pipeline, folder: Path, wanted: list[str]) -> None:  # noqa: F811
    """Run a program that goes on, and see what it prints of these rankings; one comes twice."""
    publish(pipeline.bootstrap, pipeline.prefix, [ranking(sequence=s) for s in (1, 2, 2, 3)])
    log = folder / "said"
    with ChildProcess.start(argv, name="the program", log_path=log, cwd=ROOT, env=dict(os.environ)) as child:
        wait_until(lambda: log.read_text().splitlines()[-3:] == wanted, 60, "three rankings", children=[child])


def lines_of(*sequences: int) -> list[str]:
    return [f"{r.primary_region} {r.sequence} {r.target_region}" for r in (ranking(sequence=s) for s in sequences)]


def test_every_group_is_one_that_a_subscriber_may_use() -> None:
    groups = re.findall(r'"group\.id"[:,]\s+"([^"]+)"', TEXT)
    assert len(groups) == 3
    assert all(group.startswith("subscriber-") for group in groups)


@pytest.mark.kafka
def test_the_python_program(pipeline: Pipeline, tmp_path: Path) -> None:  # noqa: F811
    program = tmp_path / "subscribe.py"
    program.write_text(ours(block("python", "Consumer"), pipeline))
    says([sys.executable, program], pipeline, tmp_path, lines_of(1, 2, 3))


@pytest.mark.kafka
def test_the_java_program(pipeline: Pipeline, tmp_path: Path) -> None:  # noqa: F811
    program = tmp_path / "Subscribe.java"
    program.write_text(ours(block("java", "BinaryMessageDecoder"), pipeline))
    home = kafka_home()
    path = f"{home.folder}/libs/*{os.pathsep}{_avro()}/*"
    says([home.java, *JAVA, "-cp", path, program], pipeline, tmp_path, lines_of(1, 2, 3))


@pytest.mark.kafka
def test_the_java_program_with_a_deserializer_of_a_registrys_makers(
    registry_in_use: RegistryServer,
    pipeline: Pipeline,  # noqa: F811
    tmp_path: Path,
) -> None:
    with Publisher(pipeline.bootstrap, client_id="test", topic_prefix=pipeline.prefix) as publisher:
        for sequence in (1, 2, 2, 3):
            publisher.publish("failover-rankings", ranking().primary_region, ranking(sequence=sequence))
    program, log = tmp_path / "SubscribeByRegistry.java", tmp_path / "said"
    text = ours(block("java", "AvroKafkaDeserializer"), pipeline)
    program.write_text(text.replace("127.0.0.1:8081", f"127.0.0.1:{registry_in_use.port}"))
    argv: list[str | Path] = [kafka_home().java, *JAVA, "-cp", f"{_jars('serde-2.6.13')}/*", program]
    with ChildProcess.start(argv, name="the program", log_path=log, cwd=ROOT, env=dict(os.environ)) as child:
        wait_until(lambda: log.read_text().splitlines()[-3:] == lines_of(1, 2, 3), 60, "rankings", children=[child])


@pytest.mark.kafka
def test_the_kcat_command(registry_in_use: RegistryServer, pipeline: Pipeline) -> None:  # noqa: F811
    if not kcat.reads_avro():
        pytest.skip("no kcat that was built with Avro (Debian's is not)")
    with Publisher(pipeline.bootstrap, client_id="test", topic_prefix=pipeline.prefix) as publisher:
        publisher.publish("failover-rankings", PRIMARIES[0], ranking(sequence=7))
    topic = named(pipeline.prefix, "failover-rankings")
    command = block("sh", "kcat").replace("127.0.0.1:9092", pipeline.bootstrap).replace("failover-rankings", topic)
    argv = shlex.split(command.replace("http://127.0.0.1:8081", registry_in_use.url))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert '"sequence": 7' in done.stdout, done.stderr


def test_the_lines_that_verify_a_webhook() -> None:
    with Receiver() as receiver, carrying(destination(receiver)) as courier:
        courier.submit([parcel()])
        results(courier, 1)
        (got,) = receiver.deliveries
    assert verified(SECRET, got.headers, got.body)
    assert not verified(SECRET, got.headers, got.body + b" ")
    assert not verified(SECRET, {**got.headers, "webhook-timestamp": "1"}, got.body)
    assert not verified(SECRET, {**got.headers, "webhook-id": "another"}, got.body)
    assert not verified("whsec_" + "A" * 44, got.headers, got.body)


def test_every_try_verifies_under_the_same_id_by_each_of_two_secrets() -> None:
    other = "whsec_" + "b" * 43 + "="
    with Receiver() as receiver:
        receiver.answer = lambda _: Answer(500 if len(receiver.deliveries) < 3 else 204)
        courier = Courier(destination(receiver, retry_ms=600, retry_ms_max=600), [KEY, base64.b64decode(other[6:])])
        try:
            courier.submit([parcel()])
            results(courier, 1)
        finally:
            courier.close()
    assert len(receiver.deliveries) == 3
    for got in receiver.deliveries:
        assert verified(SECRET, got.headers, got.body)
        assert verified(other, got.headers, got.body)
    assert {got.headers["webhook-id"] for got in receiver.deliveries} == {parcel().webhook_id}


def verified(secret: str, headers: Any, body: bytes) -> bool:
    program = block("python", "webhook-id")
    assert len([line for line in program.splitlines() if line and not line.startswith("import")]) == 3, "three lines"
    names: dict[str, Any] = {"secret": secret, "headers": headers, "body": body}
    exec(program, names)  # noqa: S102 - our own documentation
    return names["is_ours"]  # type: ignore[no-any-return]


def _avro() -> Path:
    folder = cache_folder().with_name("avro-1.12.1")
    if not list(folder.glob("*.jar")):
        argv = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={AVRO}", f"-DoutputDirectory={folder}"]
        subprocess.run(argv, check=True, timeout=300)
    return folder


def _jars(name: str) -> Path:
    """The deserializer with all that it needs."""
    folder = cache_folder().with_name(name)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={temporary}/new")
            argv: list[str | Path] = ["mvn", "-q", "-B", "-f", Path(__file__).with_name("serde.pom.xml"), *goal]
            subprocess.run(argv, check=True, timeout=600)
            Path(temporary, "new").rename(folder)
    return folder
