"""`proxima probe`: one probe agent, until it is told to stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from infra.cli._options import in_use, logged


def register(app: typer.Typer) -> None:
    app.command()(probe)


def probe(
    config: Annotated[
        Path, typer.Option(metavar="FILE", help="TOML file; infra/examples/probe.toml is one, commented.")
    ],
) -> None:
    """Ask the failover regions of one region, and publish what comes back.

    It runs until SIGTERM or Ctrl-C, and then sends what it still has. While Kafka is away it keeps asking, and keeps
    the newest measurements.

    \b
    Example:
      proxima probe --config probe.toml
    """
    # Its idle threads would keep the privileges that this one gives up.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from infra.metrics import serve_metrics  # noqa: PLC0415
    from producers.agent import run  # noqa: PLC0415
    from schemas.config import ProbeConfig, load  # noqa: PLC0415

    role = in_use(logged(load(ProbeConfig, config), "probe"))
    run(role, lambda: serve_metrics(role.metrics, "probe"))
