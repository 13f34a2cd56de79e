"""`proxima sink`: runs one sink until it is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli._options import in_use, logged, say

if TYPE_CHECKING:
    from schemas.config import SinkConfig
    from sinks.runner import SinkRunner
    from sinks.several import Several
    from sinks.sink import Sink


class Target(StrEnum):
    """Sinks by name."""

    REDIS = "redis"
    JSONLINES = "jsonlines"
    ACTUATORS = "actuators"
    CASSANDRA = "cassandra"
    DYNAMODB = "dynamodb"
    WEBHOOK = "webhook"


def register(app: typer.Typer) -> None:
    app.command()(sink)


def sink(
    name: Annotated[Target, typer.Argument(metavar="NAME", help="The target.")],
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file; infra/examples/sink.toml is one, commented.", show_default=False),
    ] = None,
) -> None:
    """Run a sink: redis, jsonlines, webhook, cassandra, dynamodb or actuators.

    redis serves the latest ranking of every primary, jsonlines keeps all of them in a file, webhook POSTs each, signed,
    to the destinations of the file (docs/subscribe.md), cassandra and dynamodb keep path metrics, rankings and
    configurations (`proxima stores migrate` makes their tables), actuators do to paths what remedies ask for (its file
    is infra/examples/actuators.toml, and nothing is done before that says so). It runs until SIGTERM or Ctrl-C; then
    writes and commits what it has, and leaves. While the target is down it waits and tries again, and nothing is lost.

    \b
    Examples:
      proxima sink redis --config infra/examples/sink.toml
      proxima sink cassandra --config infra/examples/cassandra.toml
      proxima sink webhook --config infra/examples/webhook.toml
      PROXIMA_REDIS__URL=redis://cache:6379/0 proxima sink redis
      proxima sink actuators --config infra/examples/actuators.toml
    """
    runner = _RUNNERS.get(name, partial(_store, name))(config)
    asked: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        asked.append(number)
        runner.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    counts = runner.run()
    say(f"{counts.taken} records, {counts.repeated} repeated, {counts.dead_letters} dead letters")
    if signal.SIGINT in asked:
        raise typer.Exit(130)


def _store(name: Target, config: Path | None) -> SinkRunner:
    from infra.metrics import serve_metrics  # noqa: PLC0415
    from schemas.config import SinkConfig, load  # noqa: PLC0415
    from sinks.runner import SinkRunner  # noqa: PLC0415

    settings = in_use(logged(load(SinkConfig, config), f"sink {name.value}"))
    serve_metrics(settings.metrics, f"sink {name.value}")
    return SinkRunner(
        _STORES[name](settings),
        bootstrap=settings.kafka.bootstrap,
        # One store, one name: sinks of the same name would share the rankings between two stores.
        name=settings.sink.name if "name" in settings.sink.model_fields_set else name.value,
        prefix=settings.kafka.topic_prefix,
        batch_max=settings.sink.batch_max,
        linger_ms=settings.sink.linger_ms,
        retry_ms_max=settings.redis.retry_ms_max,
    )


def _actuators(config: Path | None) -> SinkRunner:
    from infra.actuators import runner_of  # noqa: PLC0415
    from infra.metrics import serve_metrics  # noqa: PLC0415
    from schemas.actuators import ActuatorsConfig  # noqa: PLC0415
    from schemas.config import load  # noqa: PLC0415

    settings = in_use(logged(load(ActuatorsConfig, config), "sink actuators"))
    serve_metrics(settings.metrics, "sink actuators")
    return runner_of(settings)


def _redis(settings: SinkConfig) -> Sink:
    from infra.kafka.admin import topic_ids  # noqa: PLC0415
    from schemas.topics import named  # noqa: PLC0415
    from sinks.redis import RedisSink  # noqa: PLC0415

    prefix = settings.kafka.topic_prefix
    topics = [named(prefix, topic) for topic in RedisSink.topics]
    ids = topic_ids(settings.kafka.bootstrap, topics)
    return RedisSink(settings.redis.url, ids, prefix=prefix, options=settings.redis.options())


def _webhook(config: Path | None) -> Several:
    from infra.metrics import serve_metrics  # noqa: PLC0415
    from schemas.config import SinkConfig, load  # noqa: PLC0415
    from schemas.errors import ConfigError  # noqa: PLC0415
    from sinks.runner import SinkRunner  # noqa: PLC0415
    from sinks.several import Several  # noqa: PLC0415
    from sinks.webhook import WebhookSink  # noqa: PLC0415

    settings = in_use(logged(load(SinkConfig, config), "sink webhook"))
    serve_metrics(settings.metrics, "sink webhook")
    kafka, destinations = settings.kafka, settings.webhook.destinations
    if not destinations:
        raise ConfigError(["webhook.destinations: there is none"], do="infra/examples/webhook.toml has one, commented")
    sinks = {d.name: WebhookSink(d, bootstrap=kafka.bootstrap, prefix=kafka.topic_prefix) for d in destinations}
    runners = {
        name: SinkRunner(
            sink,
            bootstrap=kafka.bootstrap,
            name=f"webhook-{name}",
            prefix=kafka.topic_prefix,
            batch_max=settings.sink.batch_max,
            linger_ms=settings.sink.linger_ms,
        )
        for name, sink in sinks.items()
    }
    return Several(runners)


def _jsonlines(settings: SinkConfig) -> Sink:
    from sinks.jsonlines import JsonLinesSink  # noqa: PLC0415

    return JsonLinesSink(settings.jsonlines.path)


def _cassandra(settings: SinkConfig) -> Sink:
    from sinks.cassandra import CassandraSink  # noqa: PLC0415

    return CassandraSink(settings.cassandra)


def _dynamodb(settings: SinkConfig) -> Sink:
    from sinks.dynamodb import DynamoDbSink  # noqa: PLC0415

    return DynamoDbSink(settings.dynamodb, prefix=settings.kafka.topic_prefix)


_STORES = {
    Target.REDIS: _redis,
    Target.JSONLINES: _jsonlines,
    Target.CASSANDRA: _cassandra,
    Target.DYNAMODB: _dynamodb,
}
_RUNNERS: dict[Target, Callable[[Path | None], SinkRunner | Several]] = {
    Target.ACTUATORS: _actuators,
    Target.WEBHOOK: _webhook,
}
