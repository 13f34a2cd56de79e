"""`proxima sink`: runs one sink until it is told to stop."""

from __future__ import annotations

import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli._options import in_use, log_to_stderr, say

if TYPE_CHECKING:
    from schemas.config import SinkConfig
    from sinks.runner import Sink, SinkRunner
    from sinks.several import Several


class Target(StrEnum):
    """Sinks by name."""

    REDIS = "redis"
    JSONLINES = "jsonlines"
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
    """Run a sink: redis, jsonlines or webhook.

    redis serves the latest ranking of every primary, jsonlines keeps all of them in a file, webhook POSTs each, signed,
    to the destinations of the file (docs/subscribe.md). It runs until SIGTERM or Ctrl-C; then writes and commits what
    it has, and leaves. While the target is down it waits and tries again, and nothing is lost.

    \b
    Examples:
      proxima sink redis --config infra/examples/sink.toml
      proxima sink webhook --config infra/examples/webhook.toml
      PROXIMA_REDIS__URL=redis://cache:6379/0 proxima sink redis
    """
    from schemas.config import SinkConfig, load  # noqa: PLC0415
    from sinks.runner import SinkRunner  # noqa: PLC0415

    log_to_stderr()
    settings = in_use(load(SinkConfig, config))
    if name is Target.WEBHOOK:
        _webhook(settings)
        return
    runner = SinkRunner(
        _TARGETS[name](settings),
        bootstrap=settings.kafka.bootstrap,
        # One store, one name: sinks of the same name would share the rankings between two stores.
        name=settings.sink.name if "name" in settings.sink.model_fields_set else name.value,
        prefix=settings.kafka.topic_prefix,
        batch_max=settings.sink.batch_max,
        linger_ms=settings.sink.linger_ms,
        retry_ms_max=settings.redis.retry_ms_max,
    )
    _run(runner)


def _run(runner: SinkRunner | Several) -> None:
    """Until it is told to stop, with SIGTERM or Ctrl-C."""
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


def _redis(settings: SinkConfig) -> Sink:
    from infra.kafka.admin import topic_ids  # noqa: PLC0415
    from schemas.topics import named  # noqa: PLC0415
    from sinks.redis import RedisSink  # noqa: PLC0415

    prefix = settings.kafka.topic_prefix
    topics = [named(prefix, topic) for topic in RedisSink.topics]
    return RedisSink(settings.redis.url, topic_ids(settings.kafka.bootstrap, topics), prefix=prefix)


def _webhook(settings: SinkConfig) -> None:
    from schemas.errors import ConfigError  # noqa: PLC0415
    from sinks.runner import SinkRunner  # noqa: PLC0415
    from sinks.several import Several  # noqa: PLC0415
    from sinks.webhook import WebhookSink  # noqa: PLC0415

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
    _run(Several(runners))


def _jsonlines(settings: SinkConfig) -> Sink:
    from sinks.jsonlines import JsonLinesSink  # noqa: PLC0415

    return JsonLinesSink(settings.jsonlines.path)


_TARGETS = {Target.REDIS: _redis, Target.JSONLINES: _jsonlines}
