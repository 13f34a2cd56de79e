"""`proxima worker`: the stages of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli._options import in_use, logged


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    stages: Annotated[
        str | None,
        typer.Option(help="Comma-separated: intake, decide, overview. Default: those of the configuration."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; see infra/examples/worker.toml.")] = None,
) -> None:
    """Run the stream processors: one child process a stage, started again when it dies.

    Example: proxima worker --stages intake,decide,overview --config infra/examples/worker.toml
    """
    import os  # noqa: PLC0415

    from infra.worker import run_worker  # noqa: PLC0415
    from schemas.config import WorkerConfig, load  # noqa: PLC0415

    environment = dict(os.environ)
    if stages is not None:
        names = ", ".join(f'"{name.strip()}"' for name in stages.split(","))
        environment["PROXIMA_WORKER__STAGES"] = f"[{names}]"
    role = in_use(load(WorkerConfig, config, environment))
    if role.log.format == "json":  # else Faust has a format of its own
        alone = len(role.worker.stages) == 1
        logged(role, role.worker.stages[0] if alone else "worker", level="WARNING" if alone else "INFO")
    code = run_worker(role, config)
    raise typer.Exit(code)
