"""`proxima doctor`: what is wrong around here, and what to do."""

from __future__ import annotations

import typer

from infra.cli._options import AsJson, Bootstrap, ConfigFile, Prefix, client_config, say, say_json


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    *, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Find what is wrong around here, and what to do.

    Looks at the broker, topics, readiness probers, sinks' breakers, clocks, sockets, Redis and Java. Exit code 1 when
    something is broken; a warning is about something that not every role needs.

    \b
    Examples:
      proxima doctor
      proxima doctor --bootstrap broker-1:9092 --json | jq '.[] | select(.status != "ok")'
    """
    from infra.doctor import examine  # noqa: PLC0415
    from infra.findings import BROKEN  # noqa: PLC0415

    findings = []
    for finding in examine(client_config(bootstrap, config, prefix)):
        findings.append(finding)
        if not as_json:
            say(f"{finding.status:8} {finding.name:13} {finding.found}")
            if finding.do:
                say(f"{'':22} → {finding.do}")
    if as_json:
        say_json([{"name": f.name, "status": f.status, "found": f.found, "do": f.do} for f in findings])
    if any(f.status == BROKEN for f in findings):
        raise typer.Exit(1)
