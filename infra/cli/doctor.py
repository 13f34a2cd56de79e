"""`proxima doctor`: what is wrong around here, and what to do."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from infra.cli._options import AsJson, Bootstrap, ConfigFile, Prefix, in_use, led_by, say, say_json

if TYPE_CHECKING:
    from schemas.config import RoleConfig


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    *, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Find what is wrong around here, and what to do.

    Looks at the broker, topics, readiness probers, sinks' breakers, clocks, sockets, Redis and Java; and at the schema
    registry, Cassandra and DynamoDB where FILE has a section for them. FILE is any role's: of a role other than a sink
    it judges the whole file, and looks at what that role needs (its tokens, certificate, metrics). Exit code 1 when
    something is broken; a warning is about something that not every role needs.

    \b
    Examples:
      proxima doctor
      proxima doctor --config infra/examples/cassandra.toml
      proxima doctor --config infra/examples/probe.toml
      proxima doctor --bootstrap broker-1:9092 --json | jq '.[] | select(.status != "ok")'
    """
    from infra.doctor import examine  # noqa: PLC0415
    from infra.doctor_roles import role_of  # noqa: PLC0415
    from infra.findings import BROKEN  # noqa: PLC0415
    from schemas.config import load  # noqa: PLC0415

    findings = []
    for finding in examine(led_by(_in_use(load(role_of(config), config)), bootstrap, prefix)):
        findings.append(finding)
        if not as_json:
            say(f"{finding.status:8} {finding.name:13} {finding.found}")
            if finding.do:
                say(f"{'':22} → {finding.do}")
    if as_json:
        say_json([{"name": f.name, "status": f.status, "found": f.found, "do": f.do} for f in findings])
    if any(f.status == BROKEN for f in findings):
        raise typer.Exit(1)


def _in_use(config: RoleConfig) -> RoleConfig:
    """Its identity and its registry in use, unless that is what is wrong; nothing is registered on the way."""
    from schemas.errors import RegistryError  # noqa: PLC0415

    looking = config.registry.model_copy(update={"register_schemas": False})
    with suppress(RegistryError):  # the doctor will say it
        in_use(config.model_copy(update={"registry": looking}))
    return config
