"""A role's own file as the doctor judges it: whose file it is, what it serves, and which files it names."""

from __future__ import annotations

import ssl
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infra.findings import BROKEN, OK, WARNING, Finding
from infra.metrics import PORT_OF
from schemas.actuators import ActuatorsConfig
from schemas.config import (
    Gateway,
    GatewayConfig,
    Metrics,
    ProbeConfig,
    ReadinessConfig,
    RespondConfig,
    RoleConfig,
    RoutesConfig,
    SinkConfig,
    WorkerConfig,
)
from schemas.errors import ConfigError

# A sink's first: a file that has only what all have is any client's.
ROLES: Final[tuple[type[RoleConfig], ...]] = (
    SinkConfig, WorkerConfig, ProbeConfig, ReadinessConfig, RoutesConfig, RespondConfig, GatewayConfig, ActuatorsConfig,
)  # fmt: skip
_TIMEOUT_S: Final = 2.0


def role_of(path: Path | None) -> type[RoleConfig]:
    """Whose file it is, by its sections: the role that knows the most of them."""
    try:
        sections = set(tomllib.loads(path.read_text())) if path is not None else set()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return ROLES[0]  # to load it says what is wrong
    return max(ROLES, key=lambda role: len(sections & set(role.model_fields)))


def role(config: RoleConfig) -> Iterator[Finding]:
    """What its own sections name, as far as it can be looked at from outside."""
    if isinstance(config, GatewayConfig):
        yield from _gateway(config.gateway)
    if isinstance(config, ActuatorsConfig):
        for provider in config.providers:
            if provider.token_file is not None:
                yield _readable(f"provider {provider.name}", provider.token_file)
    metrics: Metrics | None = getattr(config, "metrics", None)
    if metrics is not None and metrics.port:
        stages = config.worker.stages if isinstance(config, WorkerConfig) else ()
        above = [PORT_OF[stage] for stage in stages if stage in PORT_OF] or [0]
        yield from (_served(metrics.listen, metrics.port + each) for each in above)


def _gateway(settings: Gateway) -> Iterator[Finding]:
    from producers.gateway.tokens import read_tokens  # noqa: PLC0415 - one role's alone

    try:
        count = len(read_tokens(settings.tokens_file))
    except ConfigError as error:
        yield Finding("tokens", BROKEN, f"{error.what} ({error.where})", error.do or "mend it, or make it anew")
    else:
        do = "" if count else "`proxima gateway token new` makes one"
        yield Finding("tokens", OK if count else WARNING, f"{count} in {settings.tokens_file}", do)
    if settings.tls_certificate_file is not None:
        name, where = "certificate", f"{settings.tls_certificate_file}, {settings.tls_key_file}"
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file)
        except OSError as error:  # ssl.SSLError is one
            yield Finding(name, BROKEN, f"no certificate with its key: {error} ({where})", "look at these files")
        else:
            yield Finding(name, OK, f"goes with its key ({where})")


def _readable(name: str, path: Path) -> Finding:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        return Finding(name, BROKEN, str(error), "name a file that can be read, here by this user")
    return Finding(name, OK, f"{path} can be read")


def _served(listen: str, port: int) -> Finding:
    """What its process says of itself, if it runs here."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)  # noqa: S104 - to ask, and not to listen
    where = f"{f'[{host}]' if ':' in host else host}:{port}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{where}/readyz", timeout=_TIMEOUT_S):
            return Finding("metrics", OK, f"what is served at {where} is ready")
    except urllib.error.HTTPError as error:
        said = error.read(500).decode(errors="replace").strip()
        return Finding("metrics", WARNING, f"{where}/readyz says {error.code}: {said}", "look at that role's log")
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        return Finding("metrics", WARNING, f"nobody answers at {where}: {why}", "fine unless the role runs here")
