"""Kafka's jars in the user's cache, fetched once with Maven, and what makes a broker start fast.

    ~/.cache/proxima/kafka-4.3.1/     (under XDG_CACHE_HOME if that is set)
        libs/*.jar
        bootstrap.checkpoint          feature levels of a freshly formatted cluster
        classes.jsa                   class data sharing archive: parsed classes, mapped instead of read again
        pom.xml                       what the folder was made from; another pom.xml makes it again

Formatting a node needs a JVM of its own (0.7 s), only to write an identity, which we can write, and
`bootstrap.checkpoint`, which is the same for every node of this version: so it is made once and copied. The archive
takes the start of a broker from 2.0 to 1.3 s of mostly CPU time; it can only be a bonus, so a JVM that cannot make
or use it goes without.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra import maven
from infra.processes import ChildProcess, free_ports, wait_until
from schemas.errors import KafkaUnavailableError, ProximaError

KAFKA_VERSION = "4.3.1"
POM = Path(__file__).with_name("pom.xml")
TRAINING_TIMEOUT_S = 60.0
WHAT_TO_DO = f"{maven.INSTALL}, or set PROXIMA_KAFKA__BOOTSTRAP to an existing cluster, HOST:PORT"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KafkaHome:
    """A Java and a folder with everything that a broker is started from."""

    java: str
    folder: Path

    @property
    def bootstrap_checkpoint(self) -> Path:
        return self.folder / "bootstrap.checkpoint"

    @property
    def archive(self) -> Path:
        return self.folder / "classes.jsa"

    @property
    def classpath(self) -> str:
        # Sorted and in full: an archive holds for exactly the class path that it was made with.
        return os.pathsep.join(str(jar) for jar in sorted((self.folder / "libs").glob("*.jar")))

    def command(self, main: str, *arguments: str | Path, java_options: tuple[str, ...] = ()) -> list[str]:
        sharing = (f"-XX:SharedArchiveFile={self.archive}",) if self.archive.exists() else ()
        return [self.java, *sharing, *java_options, "-cp", self.classpath, main, *map(str, arguments)]


def kafka_home() -> KafkaHome:
    """The folder in the cache, made now if it is not there; processes that ask at the same time make it once.

    Raises KafkaUnavailableError: if Java or Maven is missing, or the download fails.
    """
    java = maven.tool("java", WHAT_TO_DO, KafkaUnavailableError)
    folder = cache_folder()
    home = KafkaHome(java, folder)
    if not _is_current(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with maven.one_at_a_time(folder):
            if not _is_current(folder):
                maven.check_java(java, WHAT_TO_DO, KafkaUnavailableError)
                _make(home)
    return home


def cache_folder() -> Path:
    return maven.cache_folder(f"kafka-{KAFKA_VERSION}")


def _is_current(folder: Path) -> bool:
    made_from = folder / "pom.xml"
    return made_from.exists() and made_from.read_bytes() == POM.read_bytes()


def _make(home: KafkaHome) -> None:
    """Everything in a folder beside, then a rename: whoever sees the folder sees all of it."""
    log.info("fetching Kafka %s into %s", KAFKA_VERSION, home.folder)
    for left_behind in home.folder.parent.glob(f"{home.folder.name}.*/"):  # by one that was killed: we hold the lock
        shutil.rmtree(left_behind, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{home.folder.name}.", dir=home.folder.parent) as temporary:
        new = KafkaHome(home.java, Path(temporary, "new"))
        new.folder.mkdir()
        _download(new.folder / "libs")
        scratch = Path(temporary, "scratch")
        config = _trainee(scratch)
        tool = new.command("kafka.tools.StorageTool", "format", "-t", "proxima-kafka-training", "-c", config)
        maven.run(tool, "format a node", WHAT_TO_DO, KafkaUnavailableError)
        shutil.copy(scratch / "data" / "bootstrap.checkpoint", new.bootstrap_checkpoint)
        shutil.copy(POM, new.folder / "pom.xml")
        if home.folder.exists():
            home.folder.rename(Path(temporary, "outdated"))
        new.folder.rename(home.folder)
        # Only now: an archive holds for the jars' final paths.
        _archive_classes(home, config, scratch)


def _download(libs: Path) -> None:
    maven.download(POM, libs, "Kafka's jars", WHAT_TO_DO, KafkaUnavailableError)


def _trainee(scratch: Path) -> Path:
    """Configuration of a broker that lives only while the cache is made."""
    scratch.mkdir()
    port, controller_port = free_ports(2)
    config = scratch / "server.properties"
    config.write_text(
        "process.roles=broker,controller\n"
        "node.id=1\n"
        f"controller.quorum.voters=1@127.0.0.1:{controller_port}\n"
        f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n"
        "controller.listener.names=CONTROLLER\n"
        f"log.dirs={scratch / 'data'}\n"
    )
    return config


def _archive_classes(home: KafkaHome, config: Path, scratch: Path) -> None:
    """Let a broker start once and write down, as it ends, the classes that it took."""
    written, output = scratch / "classes.jsa", scratch / "training.log"
    options = ("-XX:+UseSerialGC", f"-XX:ArchiveClassesAtExit={written}", "-Dlog4j2.level=INFO")
    argv = home.command("kafka.Kafka", config, java_options=options)
    try:
        with ChildProcess.start(argv, name="kafka in training", log_path=output) as broker:
            wait_until(
                lambda: b"Kafka Server started" in output.read_bytes(),
                TRAINING_TIMEOUT_S,
                "a broker to start",
                children=[broker],
            )
            broker.stop(TRAINING_TIMEOUT_S)
        written.rename(home.archive)
    except (ProximaError, FileNotFoundError) as error:
        log.warning("no class data sharing, so brokers start more slowly: %s", error)
