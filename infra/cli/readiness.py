"""`proxima readiness`: a readiness prober, until it is told to stop."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli._options import in_use, logged

if TYPE_CHECKING:
    from producers.readiness import Plan
    from schemas.records import ReadinessRequest


def register(app: typer.Typer) -> None:
    app.command()(readiness)


def readiness(
    config: Annotated[
        Path, typer.Option(metavar="FILE", help="TOML file; infra/examples/readiness.toml is one, commented.")
    ],
) -> None:
    """Check whether the failover regions of one region would take its traffic, in turn and on request.

    Whom it checks, and the limits, are in the catalogue of regions and the failover configuration that are applied
    (`proxima config apply`). It runs until SIGTERM or Ctrl-C, and then sends what it still has.

    \b
    Example:
      proxima readiness --config readiness.toml
    """
    # Its idle threads would keep the privileges that this one gives up.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from infra.metrics import serve_metrics  # noqa: PLC0415
    from infra.plans import PlanWatch  # noqa: PLC0415
    from producers.readiness import run  # noqa: PLC0415
    from schemas.config import ReadinessConfig, load  # noqa: PLC0415

    role = in_use(logged(load(ReadinessConfig, config), "readiness"))

    def subscribe(planned: Callable[[Plan], None], asked: Callable[[ReadinessRequest], None]) -> Callable[[], None]:
        return PlanWatch(role.kafka, role.readiness.primary_region, planned, asked).close

    run(role, subscribe, lambda: serve_metrics(role.metrics, "readiness"))
