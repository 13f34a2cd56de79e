"""`proxima explain`: a ranking in sentences."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from infra.cli._options import AsJson, Bootstrap, ConfigFile, Prefix, client_config, moment, say, say_json
from schemas.errors import ProximaError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explain)


def explain(
    primary: Annotated[str, typer.Argument(metavar="PRIMARY", help="The primary region.")],
    *,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The ranking in force then: ISO 8601, Unix milliseconds, or -2h."),
    ] = None,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say in sentences where traffic would go, why, and what would change it.

    Every candidate with what its place is due to, the smallest change that would put it first, who is not eligible and
    why, what the whole network says of the primary (who sees it, whose fault, what is shared), how well its model
    predicts, operators' directives, and how old and how sure it all is.

    \b
    Examples:
      proxima explain eu-west-1
      proxima explain eu-west-1 --at -2h
      proxima explain eu-west-1 --json | jq '.places[] | {region_id, costs_ratio}'
    """
    from infra import explain as words  # noqa: PLC0415
    from infra.cli._plain import finite  # noqa: PLC0415
    from infra.lookup import Lookup  # noqa: PLC0415
    from infra.times import clock  # noqa: PLC0415

    at_ms = moment(at, "--at")
    kafka = client_config(bootstrap, config, prefix).kafka
    lookup = Lookup(kafka.bootstrap, kafka.topic_prefix, primary)
    ranking = lookup.ranking(at_ms)
    if ranking is None:
        then = f" decided at or before {clock(at_ms)}" if at_ms is not None else ""
        raise ProximaError(
            f"there is no ranking of {primary}{then}",
            where=kafka.bootstrap,
            do="rankings are kept for 30 d, after 7 d only the latest; `proxima watch` shows who has one",
        )
    weights = lookup.weights(ranking.decided_at_ms)
    card = lookup.scorecard(ranking.decided_at_ms)
    verdict = lookup.verdict(ranking.decided_at_ms)
    now_ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    found = words.explain(ranking, weights, now_ms, card, verdict, remedies=lookup.remedies(now_ms))
    if as_json:
        say_json(finite(found.facts()))
    else:
        say(words.text(found))
