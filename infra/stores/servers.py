"""A Cassandra node and DynamoDB Local on this machine, from their own jars, for tests and benchmarks.

    with CassandraServer.start(data_dir=folder, log_dir=folder) as server:
        server.port
    with DynamoDbServer.start(data_dir=folder, log_dir=folder) as server:
        server.endpoint_url

Both keep what they confirmed through `kill -9` (`kill`, `restart`: same port, same data). Cassandra is up in 8 s on an
idle machine and 26 on a busy one, and takes 600 MB; DynamoDB Local in 2 s and 160 MB, and it is slow on disk (some
hundred items a second): that is its own limit. It listens on all addresses, which cannot be told otherwise, and takes
any credentials.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from infra import maven
from infra.processes import ChildProcess, free_ports, wait_until
from schemas.errors import ProximaError, StoreUnavailableError

CASSANDRA_VERSION: Final = "5.0.5"
DYNAMODB_VERSION: Final = "3.3.1"
SUPERUSER: Final = "cassandra"
"""Cassandra's first role, and its password."""
READY_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 20.0
_HERE: Final = Path(__file__).parent
# As with our brokers: they live for minutes, in which the optimising compiler takes more than it gives.
_JAVA: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError")
# What Cassandra's own jvm17-server.options opens.
_EXPORTS: Final = (
    "java.base/jdk.internal.misc", "java.base/jdk.internal.ref", "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.management/com.sun.jmx.remote.security", "java.rmi/sun.rmi.registry", "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp", "java.sql/java.sql", "jdk.unsupported/sun.misc", "jdk.attach/sun.tools.attach",
)  # fmt: skip
_OPENS: Final = (
    "java.base/java.lang.module", "java.base/java.lang.reflect", "java.base/java.io", "java.base/java.net",
    "java.base/java.nio", "java.base/java.util", "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic", "java.base/jdk.internal.loader", "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect", "java.base/jdk.internal.math", "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar", "java.base/sun.nio.ch", "jdk.management/com.sun.management.internal",
)  # fmt: skip

_TLS: Final = """
client_encryption_options:
  enabled: true
  optional: true
  keystore: {keystore}
  keystore_password: for-tests
  store_type: PKCS12
  require_client_auth: false
"""


class _Server:
    """One Java process with a port that it listens on."""

    address = "127.0.0.1"

    def __init__(self, name: str, argv: Sequence[str | Path], port: int, log_path: Path, cwd: Path) -> None:
        self._name, self._argv, self.port, self._log_path, self._cwd = name, argv, port, log_path, cwd
        self._process: ChildProcess | None = None

    def kill(self) -> None:
        """`kill -9`; returns when it is gone."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Start it on its port and data, killed before if it runs, and wait until it listens.

        Raises StoreUnavailableError: it does not come up; with the end of its log.
        """
        self.kill()
        self._process = process = ChildProcess.start(
            self._argv, name=self._name, log_path=self._log_path, cwd=self._cwd
        )
        try:
            wait_until(self._listens, READY_TIMEOUT_S, f"{self._name} at port {self.port}", children=[process],
                       poll_s=0.1)  # fmt: skip
        except BaseException as error:
            process.kill()
            if isinstance(error, ProximaError):
                raise StoreUnavailableError(str(error)) from None
            raise

    def stop(self) -> None:
        """End it orderly. Stopping twice is fine."""
        if self._process is not None:
            self._process.stop(STOP_TIMEOUT_S)

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.address, self.port), 1.0).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class CassandraServer(_Server):
    """A node in `datacenter1`, at `address` and `port`. Make one with `start`, or three with `start_three`."""

    ca_file: Path | None = None
    """Who signed its certificate, if it has one."""

    @classmethod
    def start(cls, *, data_dir: Path, log_dir: Path, tls: bool = False, password: bool = False) -> Self:
        """`tls`: with a certificate of its own for 127.0.0.1, for clients that ask for one. `password`: it asks whoever
        comes who he is, and whether he may; there is Cassandra's first role then, SUPERUSER.

        Raises StoreUnavailableError: Java or Maven is missing, or it does not come up.
        """
        run_dir = data_dir.absolute() / "cassandra"
        run_dir.mkdir(parents=True, exist_ok=True)
        more = _TLS.format(keystore=_keystore(run_dir)) if tls else ""
        storage, ssl, cql = free_ports(3)
        # It is alone: nobody is to be waited for.
        flags = ("-Dcassandra.ring_delay_ms=100", "-Dcassandra.initial_token=0",
                 "-Dcassandra.superuser_setup_delay_ms=0")  # fmt: skip
        server = cls._of(run_dir, log_dir, (storage, ssl, cql), flags, more, password=password)
        server.ca_file = run_dir / "ca.pem" if tls else None
        server.restart()
        return server

    @classmethod
    def start_three(cls, *, data_dir: Path, log_dir: Path) -> list[Self]:
        """One cluster on 127.0.0.1 to .3, up in 40 s with 600 MB each. Raises as `start` does."""
        ports = free_ports(3)  # nodes of a cluster find each other by address, at ports that are all the same
        nodes: list[Self] = []
        try:
            for number in range(3):
                run_dir = data_dir.absolute() / f"cassandra-{number + 1}"
                run_dir.mkdir(parents=True, exist_ok=True)
                token = number * (2**64 // 3) - 2**63
                flags = ("-Dcassandra.ring_delay_ms=2000", f"-Dcassandra.initial_token={token}")
                # There is nothing yet that a new node would have to fetch from the others.
                node = cls._of(run_dir, log_dir, ports, flags, "auto_bootstrap: false\n", number=number + 1)
                nodes.append(node)
                node.restart()
        except BaseException:
            for node in nodes:
                node.kill()
            raise
        return nodes

    @classmethod
    def _of(
        cls, run_dir: Path, log_dir: Path, ports: Sequence[int], flags: Sequence[str], more: str, *, number: int = 1,
        password: bool = False,
    ) -> Self:  # fmt: skip
        """A node that is not yet started; its seed is the first of its cluster, at 127.0.0.1."""
        home = maven.fetched(f"cassandra-{CASSANDRA_VERSION}", _HERE / "cassandra_pom.xml", maven.INSTALL,
                             StoreUnavailableError)  # fmt: skip
        address, (jmx,) = f"127.0.0.{number}", free_ports(1)
        storage, ssl, cql = ports
        text = (_HERE / "cassandra.yaml").read_text()
        for name, value in {
            "STORAGE_PORT": storage, "SSL_PORT": ssl, "CQL_PORT": cql, "RUN_DIR": run_dir, "ADDRESS": address,
            "AUTHENTICATOR": "PasswordAuthenticator" if password else "AllowAllAuthenticator",
            "AUTHORIZER": "CassandraAuthorizer" if password else "AllowAllAuthorizer",
        }.items():  # fmt: skip
            text = text.replace(name, str(value))
        config = run_dir / "cassandra.yaml"
        config.write_text(text + more)
        argv = [
            maven.tool("java", maven.INSTALL, StoreUnavailableError),
            *_JAVA, "-Xms512m", "-Xmx512m", "-Xss512k", "-XX:MaxDirectMemorySize=128m",
            f"-Dcassandra.config=file://{config}", f"-Dlogback.configurationFile={_HERE / 'logback.xml'}",
            f"-Dcassandra.storagedir={run_dir}", f"-Dcassandra.jmx.local.port={jmx}", *flags,
            "-Dcassandra.skip_wait_for_gossip_to_settle=0", "-Dcassandra-foreground=yes",
            "-Djava.net.preferIPv4Stack=true",
            "-Djdk.attach.allowAttachSelf=true", "-Dio.netty.tryReflectionSetAccessible=true",
            *(f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTS),
            *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENS),
            "-cp", _classpath(home), "org.apache.cassandra.service.CassandraDaemon",
        ]  # fmt: skip
        server = cls(f"cassandra-{number}", argv, cql, log_dir / f"cassandra-{number}.log", run_dir)
        server.address = address
        return server


class DynamoDbServer(_Server):
    """DynamoDB Local with its data on disk. Make one with `start`."""

    @classmethod
    def start(cls, *, data_dir: Path, log_dir: Path) -> Self:
        """Raises StoreUnavailableError: Java or Maven is missing, or it does not come up."""
        home = maven.fetched(f"dynamodb-{DYNAMODB_VERSION}", _HERE / "dynamodb_pom.xml", maven.INSTALL,
                             StoreUnavailableError)  # fmt: skip
        run_dir = data_dir.absolute() / "dynamodb"
        run_dir.mkdir(parents=True, exist_ok=True)
        (port,) = free_ports(1)
        argv: list[str] = [
            maven.tool("java", maven.INSTALL, StoreUnavailableError),
            *_JAVA, "-Xmx256m", f"-Djava.library.path={home / 'libs'}", "-cp", _classpath(home),
            "software.amazon.dynamodb.services.local.main.ServerRunner",
            "-dbPath", str(run_dir), "-sharedDb", "-disableTelemetry", "-port", str(port),
        ]  # fmt: skip
        server = cls("dynamodb", argv, port, log_dir / "dynamodb.log", run_dir)
        server.restart()
        return server

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def _keystore(folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1; the certificate alone in `ca.pem` beside it."""
    keytool = str(Path(maven.tool("java", maven.INSTALL, StoreUnavailableError)).with_name("keytool"))
    keystore = folder / "keystore.p12"
    common = ["-alias", "node", "-keystore", str(keystore), "-storepass", "for-tests", "-storetype", "PKCS12"]
    if not keystore.exists():
        for words in (
            ["-genkeypair", "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-validity", "30"],
            ["-exportcert", "-rfc", "-file", str(folder / "ca.pem")],
        ):
            maven.run([keytool, *words, *common], "make a certificate", maven.INSTALL, StoreUnavailableError)
    return keystore


def _classpath(home: Path) -> str:
    return os.pathsep.join(str(jar) for jar in sorted((home / "libs").glob("*.jar")))
