"""`proxima history`: what was measured and decided, from a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli._options import AsJson, moment, say, say_json
from infra.cli.stores import StoreConfig, StoreName, settings_of

if TYPE_CHECKING:
    from infra.stores.reading import PathMetric
    from schemas.records import FailoverRanking


def register(app: typer.Typer) -> None:
    app.command()(history)


def history(
    primary: Annotated[str, typer.Argument(metavar="PRIMARY", help="A primary region.")],
    *,
    begin: Annotated[str, typer.Option("--from", metavar="TIME", help="ISO 8601, Unix ms, or -2h.")] = "-1h",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="Up to before this.")] = "now",
    metrics: Annotated[bool, typer.Option("--metrics", help="Of each path at each tick.")] = False,
    rankings: Annotated[bool, typer.Option("--rankings", help="Every ranking; without either, this.")] = False,
    store: StoreName = None,
    config: StoreConfig = None,
    as_json: AsJson = False,
) -> None:
    """Print what was measured and decided, from Cassandra or DynamoDB.

    One line each, in the order of time; with --json one object a line, whole.

    \b
    Examples:
      proxima history eu-west-1 --from -2h --config infra/examples/cassandra.toml
      proxima history eu-west-1 --from 2026-11-24T10:00:00Z --to 2026-11-24T11:00:00Z --metrics --json
    """
    from infra.stores.reading import store_of  # noqa: PLC0415
    from infra.times import clock  # noqa: PLC0415
    from schemas.validate import REGION_ID  # noqa: PLC0415

    if metrics and rankings:
        raise typer.BadParameter("say --metrics or --rankings", param_hint="--metrics")
    from_ms, to_ms = moment(begin, "--from"), moment(end, "--to")
    assert from_ms is not None  # noqa: S101 - both have defaults
    assert to_ms is not None  # noqa: S101
    if from_ms >= to_ms:
        raise typer.BadParameter("it is not before --to", param_hint="--from")
    if not REGION_ID.fullmatch(primary):
        raise typer.BadParameter(f"{primary!r} can be no region's name", param_hint="PRIMARY")
    is_empty = True
    with store_of(*settings_of(config, store)) as opened:
        if metrics:
            for metric in opened.metrics(primary, from_ms, to_ms):
                is_empty = False
                _say_metric(metric, as_json=as_json)
        else:
            for ranking in opened.rankings(primary, from_ms, to_ms):
                is_empty = False
                _say_ranking(ranking, as_json=as_json)
    if is_empty:
        typer.echo(f"nothing is kept of {primary} from {clock(from_ms)} to {clock(to_ms)}", err=True)


def _say_metric(m: PathMetric, *, as_json: bool) -> None:
    from infra.times import clock  # noqa: PLC0415

    if as_json:
        say_json(
            {
                "primary_region": m.primary_region,
                "target_region": m.target_region,
                "decided_at_ms": m.decided_at_ms,
                "evidence_at_ms": m.evidence_at_ms,
                **m.values,
            }
        )
        return
    values = "  ".join(f"{name} {value:g}" for name, value in m.values.items() if value is not None)
    say(f"{clock(m.decided_at_ms)}  {m.target_region}  {values}")


def _say_ranking(r: FailoverRanking, *, as_json: bool) -> None:
    from infra.cli._plain import finite  # noqa: PLC0415
    from infra.times import clock  # noqa: PLC0415
    from schemas.codec import to_plain  # noqa: PLC0415

    if as_json:
        say_json(finite(to_plain(r)))
        return
    events = ", ".join(r.events)
    say(f"{clock(r.decided_at_ms)}  {r.sequence}  {r.target_region or '-'}  {r.mode}  {r.advice}  {events}: {r.reason}")
