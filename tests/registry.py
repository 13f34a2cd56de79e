"""A real schema registry (Apicurio, Apache-2.0) with Confluent's API, from Maven's archive in the user's cache."""

from __future__ import annotations

import fcntl
import http.client
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from infra.kafka.jars import cache_folder
from infra.processes import ChildProcess, free_ports, wait_until

VERSION: Final = "3.0.9"
POM: Final = Path(__file__).with_name("registry.pom.xml")
_START_S: Final = 120
_API: Final = "/apis/ccompat/v7"


class RegistryServer:
    """On a free port of loopback, with its schemas in memory."""

    def __init__(self, process: ChildProcess, port: int) -> None:
        self.process, self.port = process, port
        self.url = f"http://127.0.0.1:{port}{_API}"

    @classmethod
    def start(cls, logs: Path) -> Self:
        (port,) = free_ports(1)
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dquarkus.http.host=127.0.0.1",
                   f"-Dquarkus.http.port={port}", "-Dapicurio.storage.kind=sql"]  # fmt: skip
        argv: list[str | Path] = [shutil.which("java") or "java", *options, "-jar", _jar()]
        process = ChildProcess.start(argv, name="schema registry", log_path=logs / "registry.log", cwd=logs)
        started = cls(process, port)
        wait_until(started.answers, _START_S, "the schema registry", children=[process], poll_s=0.1)
        return started

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", f"{_API}/subjects")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()


def _jar() -> Path:
    folder = cache_folder().with_name(f"registry-{VERSION}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                argv = ["mvn", "-q", "-B", "-f", str(POM), "dependency:unpack", f"-DoutputDirectory={temporary}/new"]
                subprocess.run(argv, check=True, timeout=600)
                Path(temporary, "new").rename(folder)
    return folder / f"apicurio-registry-app-{VERSION}-runner.jar"
