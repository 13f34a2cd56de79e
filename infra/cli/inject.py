"""`proxima inject`: one metric from outside, for a person at a terminal or a script."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from infra.cli._options import AsJson, Bootstrap, ConfigFile, Prefix, client_config, say, say_json


def register(app: typer.Typer) -> None:
    # A negative value is a value (and then out of range), no option.
    app.command(context_settings={"ignore_unknown_options": True})(inject)


def inject(
    primary: Annotated[str, typer.Argument(metavar="PRIMARY", help="The region whose failover it concerns.")],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="What it is about; `-`: the primary itself (`healthy` alone).")
    ],
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="latency_ms, loss_ratio, delay_variation_ms, "
                                          "bandwidth_bps, capacity_ratio or healthy (0 or 1).")],
    value: Annotated[float, typer.Argument(metavar="VALUE")],
    *,
    ttl_ms: Annotated[int, typer.Option(metavar="MS", help="It counts for so long.")] = 60_000,
    source: Annotated[str, typer.Option(metavar="NAME", help="Who says so.")] = "cli",
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Inject one metric about a path or a region.

    It is one voice among others, within its source's bounds, and ends by itself.

    \b
    Examples:
      proxima inject eu-west-1 us-east-1 loss_ratio 0.3 --ttl-ms 30000
      proxima inject eu-west-1 us-east-1 healthy 0 --source load-balancer
      proxima inject eu-west-1 - healthy 0
    """
    from infra.kafka.admin import topic_ids  # noqa: PLC0415
    from producers.publisher import Publisher  # noqa: PLC0415
    from schemas.codec import to_plain  # noqa: PLC0415
    from schemas.records import InjectedMetric  # noqa: PLC0415
    from schemas.topics import named  # noqa: PLC0415
    from schemas.validate import mistakes  # noqa: PLC0415

    record = InjectedMetric(
        primary_region=primary,
        target_region=None if target == "-" else target,
        metric=metric,
        value=value,
        source=source,
        observed_at_ms=time.time_ns() // 1_000_000,
        ttl_ms=ttl_ms,
    )
    if wrong := mistakes(record):
        raise typer.BadParameter("; ".join(wrong))
    kafka = client_config(bootstrap, config, prefix).kafka
    # Asked first: a topic that is not there would keep the producer waiting.
    topic_ids(kafka.bootstrap, [named(kafka.topic_prefix, "injected-metrics")], operation="WRITE")
    with Publisher(kafka.bootstrap, client_id="proxima-inject", topic_prefix=kafka.topic_prefix) as publisher:
        publisher.publish("injected-metrics", primary, record)
    if as_json:
        say_json(to_plain(record))
    else:
        about = record.target_region or f"{primary} itself"
        say(f"{metric} {value:g} for {about}, for {ttl_ms / 1000:g} s from now")
