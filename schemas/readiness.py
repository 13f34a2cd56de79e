"""Where a region says that it is ready, and what a report on it must look like: for `validate` and the prober alike."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from schemas.records import HealthEndpoint, ReadinessReport

ENDPOINTS_MAX: Final = 8  # of a region
CHECKS_MAX: Final = 64  # of a report
_URL_MAX: Final = 500
_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_STATES: Final = ("", "CLOSED", "OPEN", "HALF_OPEN")


@dataclass(frozen=True, slots=True)
class Place:
    """What a health endpoint's URL says; `tls_name` is the name that its certificate has to be for."""

    scheme: str
    host: str
    port: int
    tls_name: str


def place_of(endpoint: HealthEndpoint) -> Place:
    """Raises ValueError: a sentence about what is wrong with it."""
    url = endpoint.url
    if len(url) > _URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("is longer than 500 characters, or has some that no URL has")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "tcp"):
        raise ValueError("begins with none of http://, https:// and tcp://")
    if "@" in parts.netloc:
        raise ValueError("has a password or name in it: everybody who may read the catalogue would know it")
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    if port is None or (parts.scheme == "tcp" and (parts.path or parts.query)) or parts.fragment:
        raise ValueError("has a fragment, or is no tcp://host:port")
    if not _is_host(host):
        raise ValueError("names no host")
    return Place(parts.scheme, host, port, endpoint.tls_name or host)


def endpoint_mistakes(endpoint: HealthEndpoint) -> Iterator[str]:
    """Everything wrong with it, in sentences."""
    try:
        place = place_of(endpoint)
    except ValueError as error:
        yield f"health endpoint {endpoint.url[:80]!r} {error}"
        return
    if not 100 <= endpoint.expected_status <= 599:
        yield f"expected_status {endpoint.expected_status} is not within 100 to 599"
    if endpoint.tls_name and place.scheme != "https":
        yield f"tls_name goes with https:// only, not with {endpoint.url[:80]!r}"
    if endpoint.tls_name and not _is_host(endpoint.tls_name):
        yield f"tls_name {endpoint.tls_name[:80]!r} is no name of a host"


def report_mistakes(report: ReadinessReport) -> Iterator[str]:
    """What is wrong with a report's checks, in sentences."""
    if not 0 < len(report.checks) <= CHECKS_MAX:
        yield f"it has {len(report.checks)} checks, not 1 to {CHECKS_MAX}"
    for check in report.checks[:CHECKS_MAX]:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", check.name):
            yield f"check {check.name[:40]!r} has no name of a check"
        if not check.reason.strip() or len(check.reason) > 1000 or len(check.endpoint) > _URL_MAX:
            yield f"check {check.name[:40]!r} must say its reason, in 1000 characters at most"
        if check.breaker not in _STATES:
            yield f"breaker {check.breaker[:40]!r} is unknown: one of {', '.join(_STATES[1:])}"
        numbers = (check.observed or 0.0, check.limit or 0.0, check.took_ms)
        if not all(math.isfinite(number) for number in numbers):
            yield f"check {check.name[:40]!r} has a number that is none"


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return len(host) <= 253 and _HOST.fullmatch(host) is not None
    return True
