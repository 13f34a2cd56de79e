"""`proxima watch`: rankings and paths, live."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from infra.cli._options import AsJson, Bootstrap, ConfigFile, Prefix, client_config, say_json
from schemas.errors import ProximaError


def register(app: typer.Typer) -> None:
    app.command()(watch)


def watch(
    primary: Annotated[
        str | None, typer.Argument(metavar="[PRIMARY]", help="Show all paths of this one.", show_default=False)
    ] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Print what is now, and end.")] = False,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Watch rankings live, or one region's paths.

    Where traffic would go, in which order, what changed last and why. Ctrl-C ends it. Into a pipe, a table is printed
    at each change; --json prints what is now, and ends.

    \b
    Examples:
      proxima watch
      proxima watch eu-west-1
      proxima watch --json | jq 'map_values(.target_region)'
    """
    from rich.console import Console  # noqa: PLC0415

    from infra.cli._plain import finite  # noqa: PLC0415
    from infra.watch import overview, paths, read_view, run_view  # noqa: PLC0415

    kafka = client_config(bootstrap, config, prefix).kafka
    if not once and not as_json:
        run_view(kafka.bootstrap, kafka.topic_prefix, primary)
        return
    view = read_view(kafka.bootstrap, kafka.topic_prefix, primary)
    now_ms = time.time_ns() // 1_000_000
    if primary is not None and primary not in view.rankings:
        raise ProximaError(f"there is no ranking of {primary}", where=kafka.bootstrap, do="see `proxima config get`")
    if as_json:
        facts = finite(view.facts(now_ms))
        say_json(facts if primary is None else facts[primary])
        return
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)
    console.print(overview(view, now_ms, console.width) if primary is None else paths(view, primary, now_ms))
