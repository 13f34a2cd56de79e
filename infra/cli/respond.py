"""`proxima respond`: what bandwidth trains are sent to, until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli._options import logged


def register(app: typer.Typer) -> None:
    app.command()(respond)


def respond(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file; infra/examples/respond.toml is one, commented. Without: all defaults.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Answer the bandwidth trains of agents in other regions.

    It listens on one UDP port until SIGTERM or Ctrl-C, needs no privilege and keeps nothing.

    \b
    Example:
      proxima respond --config respond.toml
    """
    from infra.metrics import serve_metrics  # noqa: PLC0415
    from producers.responder import run  # noqa: PLC0415
    from schemas.config import RespondConfig, load  # noqa: PLC0415

    role = logged(load(RespondConfig, config), "respond")
    run(role, lambda: serve_metrics(role.metrics, "respond"))
