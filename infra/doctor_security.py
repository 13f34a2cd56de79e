"""What a doctor says of how we come to Kafka: could others listen, is the password for us alone."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator
from typing import Final

from infra.findings import OK, WARNING, Finding
from schemas.config import Kafka

_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH


def identity(kafka: Kafka) -> Finding:
    """As whom, and by which protocol."""
    who = f"User:{kafka.username}" if kafka.is_sasl else "nobody named"
    found = f"we come as {who}, by {kafka.security_protocol}"
    wrong = list(_wrong(kafka))
    if not wrong:
        return Finding("identity", OK, found)
    return Finding("identity", WARNING, "; ".join([found, *wrong]), "docs/security.md says how to set it up")


def _wrong(kafka: Kafka) -> Iterator[str]:
    away = [host for host in map(_host, kafka.bootstrap.split(",")) if not _is_local(host)]
    if away and not kafka.is_tls:
        yield f"{away[0]} is beyond this machine, and who listens on the way can read and forge everything"
    if away and not kafka.is_sasl and kafka.certificate_file is None:
        yield "the brokers are not told who comes, so they cannot keep anybody from anything"
    if kafka.password_file is not None and kafka.password_file.stat().st_mode & _OTHERS:
        yield f"{kafka.password_file} can be read by other users of this machine (chmod 600)"


def _host(address: str) -> str:
    return address.strip().rpartition(":")[0].strip("[]")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
