"""`proxima demo`: the whole pipeline on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli._options import in_use


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    *,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, metavar="S", help="End so long after the start; else with Ctrl-C.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="No view: make one brownout, and end with a line of figures as JSON.")
    ] = False,
) -> None:
    """Run the whole pipeline on this machine, with a live view: Kafka, Redis, worker, sink and playing agents.

    Measurements of real networks are played for 12 regions. Ctrl-C ends it, and nothing stays behind. With
    PROXIMA_KAFKA__BOOTSTRAP or PROXIMA_REDIS__URL set, those are used instead of new ones.

    \b
    Examples:
      proxima demo
      proxima demo --seconds 60 --json
    """
    import os  # noqa: PLC0415

    from infra.demo import demo as run_demo  # noqa: PLC0415
    from infra.kafka.cluster import BOOTSTRAP_VARIABLE  # noqa: PLC0415
    from schemas.config import ClientConfig, load  # noqa: PLC0415

    if os.environ.get(BOOTSTRAP_VARIABLE):  # somebody's, who may ask who comes
        in_use(load(ClientConfig))
    run_demo(seconds, as_json=as_json)
