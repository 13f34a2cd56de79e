"""A cluster that asks who comes: SASL and TLS for clients, access lists from our table, and a user a role.

Every role is `proxima-ROLE`, with a password in a file of its own; certificates are signed by an authority of the test.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from infra.kafka.cluster import KafkaCluster
from infra.kafka.guard import Guard
from infra.kafka.reader import BEGINNING, TopicReader
from schemas import connection
from schemas.codec import read
from schemas.config import Kafka
from schemas.records import Record
from schemas.rights import RIGHTS
from schemas.topics import TOPICS

_BROKER: Final = "proxima-broker"
_EC: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Secured:
    """The cluster, and what its clients need."""

    cluster: KafkaCluster
    guard: Guard
    folder: Path

    @property
    def bootstrap(self) -> str:
        return self.cluster.bootstrap

    def password_file(self, role: str) -> Path:
        return self.folder / f"{role}.password"

    def environment(self, role: str, **more: str) -> dict[str, str]:
        """Variables with which a process comes as the role's user."""
        return {
            "PROXIMA_KAFKA__BOOTSTRAP": self.bootstrap,
            "PROXIMA_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "PROXIMA_KAFKA__USERNAME": f"proxima-{role}",
            "PROXIMA_KAFKA__PASSWORD_FILE": str(self.password_file(role)),
            "PROXIMA_KAFKA__CA_FILE": str(self.guard.ca_pem),
            **more,
        }

    def client(self, role: str) -> dict[str, str]:
        """The same for a client of librdkafka that is not ours."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": f"proxima-{role}",
            "sasl.password": self.password_file(role).read_text(),
            "ssl.ca.location": str(self.guard.ca_pem),
            "log_level": "0",
        }

    def admin_client(self) -> AdminClient:
        """As the brokers themselves come."""
        return AdminClient(
            {"bootstrap.servers": self.cluster.administration, **self.guard.administrator(), "log_level": 0}
        )


@contextmanager
def secured_cluster(folder: Path, nodes: Literal[1, 3] = 1) -> Iterator[Secured]:
    """A cluster with a user a role, and no rights yet but the brokers' own and those of the role `admin`."""
    guard = _certificates(folder)
    with KafkaCluster.start(nodes, log_dir=folder, guard=guard) as cluster:
        found = Secured(cluster, guard, folder)
        admin = found.admin_client()
        users = []
        for role in RIGHTS:
            found.password_file(role).touch(0o600)
            found.password_file(role).write_text(secrets.token_urlsafe(24))
            password = found.password_file(role).read_bytes()
            info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
            users.append(UserScramCredentialUpsertion(f"proxima-{role}", info, password))
        for future in admin.alter_user_scram_credentials(users).values():
            future.result(30)
        yield found


@contextmanager
def coming_as(secured: Secured, role: str) -> Iterator[str]:
    """This process as a role's user; the address."""
    connection.use(
        Kafka(
            bootstrap=secured.bootstrap,
            security_protocol="SASL_SSL",
            username=f"proxima-{role}",
            password_file=secured.password_file(role),
            ca_file=secured.guard.ca_pem,
        )
    )
    try:
        yield secured.bootstrap
    finally:
        connection.use(Kafka())


def on_topic(secured: Secured, topic: str, cls: type[Record]) -> list[Any]:
    """Records of a kind on a topic, as an operator reads them."""
    found = []
    with coming_as(secured, "operator") as bootstrap, TopicReader(bootstrap, {topic: BEGINNING}) as reader:
        while not reader.at_end:
            raw = reader.poll(1)
            if raw is not None and raw.value is not None:
                record = read(raw.value, *TOPICS[topic].records)
                if isinstance(record, cls):
                    found.append(record)
    return found


def _certificates(folder: Path) -> Guard:
    authority, key = folder / "ca.pem", folder / "ca.key"
    _openssl("req", "-x509", *_EC, "-days", "2", "-keyout", key, "-out", authority, "-subj", "/CN=proxima-test-ca",
             "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    request, broker_key, certificate = folder / "broker.csr", folder / "broker.key", folder / "broker.crt"
    extensions = folder / "broker.ext"
    extensions.write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    _openssl("req", *_EC, "-keyout", broker_key, "-out", request, "-subj", f"/CN={_BROKER}")
    _openssl("x509", "-req", "-in", request, "-CA", authority, "-CAkey", key, "-CAcreateserial", "-days", "2",
             "-extfile", extensions, "-out", certificate)  # fmt: skip
    both = folder / "broker.pem"
    both.touch(0o600)
    both.write_bytes(broker_key.read_bytes() + certificate.read_bytes())
    return Guard(authority, both, f"User:CN={_BROKER}")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
