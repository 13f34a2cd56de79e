"""What a doctor says of who comes to Kafka: could others listen, is the password for us alone, who else may write."""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator
from typing import Final

from infra.findings import OK, WARNING, Finding
from infra.kafka import acls
from schemas.config import Kafka
from schemas.errors import KafkaUnavailableError
from schemas.rights import DECISIVE
from schemas.topics import named

_SET_UP: Final = "docs/security.md says how to set it up"
_ANYBODY: Final = "User:*"
_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH


def identity(kafka: Kafka) -> Finding:
    """As whom, and by which protocol."""
    who = f"User:{kafka.username}" if kafka.is_sasl else "nobody named"
    found = f"we come as {who}, by {kafka.security_protocol}"
    wrong = list(_wrong(kafka))
    if not wrong:
        return Finding("identity", OK, found)
    return Finding("identity", WARNING, "; ".join([found, *wrong]), _SET_UP)


def rights(kafka: Kafka) -> Finding:
    """Who may write what decides, as far as we may see it."""
    try:
        granted = acls.granted(kafka.bootstrap)
    except KafkaUnavailableError:
        return Finding("rights", OK, "access lists are for the role `admin` to look at")
    if not granted:
        found = "there are no access lists: without an authorizer whoever reaches the brokers may write anything"
        away = any(not _is_local(_host(address)) for address in kafka.bootstrap.split(","))
        return Finding("rights", WARNING if away else OK, found, _SET_UP if away else "")
    who = {topic: acls.writers(granted, named(kafka.topic_prefix, topic)) for topic in DECISIVE}
    said = "; ".join(f"{topic} is written by {', '.join(sorted(its)) or 'nobody'}" for topic, its in who.items())
    if any(_ANYBODY in its for its in who.values()):
        return Finding("rights", WARNING, said, f"take {_ANYBODY} away: `proxima topics acls` says who needs what")
    return Finding("rights", OK, said)


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
