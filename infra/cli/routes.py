"""`proxima routes`: a route monitor, until it is told to stop; or what an MRT file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli._options import AsJson, in_use, logged, say, say_json

if TYPE_CHECKING:
    from schemas.records import Region, RouteEvent


def register(app: typer.Typer) -> None:
    app.command()(routes)


def routes(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML file; infra/examples/routes.toml is one, commented.", show_default=False
        ),
    ] = None,
    mrt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read this MRT file (plain, gzip or bzip2); no Kafka.", show_default=False),
    ] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Follow the prefixes of the regions in this file (as `config apply` takes it), not of those applied.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow the routes to the regions, as BGP peers of monitored routers announce and withdraw them.

    With --config: routers connect by BMP, and what changes goes to `bgp-events`. It follows the prefixes of the
    catalogue of regions that is applied. It runs until SIGTERM or Ctrl-C, and then sends what it still has.

    With --mrt: what a file adds up to; and with --regions, what would have been told, line by line, before that.

    \b
    Examples:
      proxima routes --config routes.toml
      proxima routes --mrt updates.20100722.2015.gz --json
      proxima routes --mrt updates.gz --regions regions.toml
    """
    if (config is None) == (mrt is None):
        raise typer.BadParameter("give one of them", param_hint="--config / --mrt")
    if mrt is not None:
        _read(mrt, _regions(regions) if regions is not None else [], as_json=as_json)
        return
    if as_json:
        raise typer.BadParameter("goes with --mrt; `proxima tail bgp-events` prints events", param_hint="--json")
    assert config is not None  # noqa: S101 - told to the type checker
    _listen(config, regions)


def _listen(config: Path, regions: Path | None) -> None:
    from infra.catalogue import CatalogueWatch  # noqa: PLC0415
    from infra.metrics import serve_metrics  # noqa: PLC0415
    from producers.routes.monitor import run  # noqa: PLC0415
    from schemas.config import RoutesConfig, load  # noqa: PLC0415

    role = in_use(logged(load(RoutesConfig, config), "routes"))
    fixed = _regions(regions) if regions is not None else None

    def subscribe(changed: Callable[[list[Region]], None]) -> Callable[[], None]:
        if fixed is None:
            return CatalogueWatch(role.kafka, changed).close
        changed(fixed)
        return lambda: None

    serve_metrics(role.metrics, "routes")
    run(role, subscribe)


def _read(path: Path, regions: list[Region], *, as_json: bool) -> None:
    from producers.routes.mrt import MrtReader  # noqa: PLC0415
    from producers.routes.replay import MrtReplay  # noqa: PLC0415
    from schemas.codec import to_plain  # noqa: PLC0415

    if regions:
        replay = MrtReplay(path, regions)
        for event in replay:
            if as_json:
                say_json(to_plain(event))
            else:
                say(_line(event))
        counts = replay.counts
    else:
        reader = MrtReader(path)
        for _ in reader:
            pass
        counts = reader.counts
    found = {
        "announced": counts.announced,
        "withdrawn": counts.withdrawn,
        "state_changes": counts.state_changes,
        "peers": counts.peers,
        "unparsed": counts.unparsed,
    }
    if as_json:
        say_json(found)
    else:
        say(", ".join(f"{number} {name.replace('_', ' ')}" for name, number in found.items()))


def _regions(path: Path) -> list[Region]:
    from infra.configuration import read_draft  # noqa: PLC0415
    from schemas.errors import ConfigError  # noqa: PLC0415

    catalogue = read_draft(path).catalogue
    if catalogue is None or not any(region.prefixes for region in catalogue.regions):
        raise ConfigError(["no region in it has prefixes"], where=str(path), do="there is nothing to follow")
    return catalogue.regions


def _line(event: RouteEvent) -> str:
    from infra.times import clock  # noqa: PLC0415

    said = f"{clock(event.observed_at_ms)} {event.kind} {event.peer} AS{event.peer_as}"
    if event.over_ms:
        said += f": {event.announced} announced, {event.withdrawn} withdrawn in {event.over_ms / 1000:g} s"
    elif event.routes:
        said += ": " + ", ".join(f"{r.region_id} {r.prefix} by {r.as_path}" for r in event.routes)
    elif event.regions:
        said += ": " + ", ".join(reach.region_id for reach in event.regions)
    return said
