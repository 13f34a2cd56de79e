"""`proxima replay`: history run again, from a topic or from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli._journal import TOPIC, open_journal
from infra.cli._options import Bootstrap, ConfigFile, Prefix, client_config, say, say_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from schemas.config import ClientConfig
    from streams.fold import Output
    from streams.journal import JournalRecord


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="`observations` (the topic), or a file of `proxima tail --raw`.")
    ],
    *,
    speed: Annotated[
        float | None, typer.Option(min=0.001, metavar="X", help="X times as fast as it happened; else at once.")
    ] = None,
    topic: Annotated[
        str, typer.Option(metavar="TOPIC", help="Which decisions to print: failover-rankings, path-weights, ...")
    ] = "failover-rankings",
    to_kafka: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Publish everything under this prefix instead of printing it.")
    ] = None,
    as_hex: Annotated[
        bool, typer.Option("--hex", help="Print encoded values in hexadecimal, to compare bytes.")
    ] = False,
    tick_ms: Annotated[int, typer.Option(min=100, help="As in the worker's [decide].")] = 1000,
    phase_ms: Annotated[int, typer.Option(min=0, help="As in the worker's [decide].")] = 300,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
) -> None:
    """Fold a journal again with the same engine: the same journal gives the same decisions, byte for byte.

    \b
    Examples:
      proxima replay observations | jq .record.reason
      proxima replay monday.journal --speed 10
      proxima replay monday.journal --to-kafka monday-
    """
    import sys  # noqa: PLC0415

    from schemas.topics import TOPICS  # noqa: PLC0415
    from streams.replay import Replay  # noqa: PLC0415

    if topic not in TOPICS:
        raise typer.BadParameter(f"{topic!r} is none of {', '.join(TOPICS)}", param_hint="--topic")
    client = client_config(bootstrap, config, prefix)
    topic_id, records = open_journal(source, client)
    run = Replay(topic=TOPIC, topic_id=topic_id, tick_ms=tick_ms, phase_ms=phase_ms)
    with _Target(topic, to_kafka, client, as_hex=as_hex) as target:
        count = 0
        for replayed in run.run(records if speed is None else _paced(records, speed)):
            target.take(replayed.output)
            count += 1
    sys.stderr.write(f"{run.records} records folded, {count} outputs, {target.taken} of them shown or published\n")


def _paced(records: Iterator[JournalRecord], speed: float) -> Iterator[JournalRecord]:
    """Records as they came, in journal time; partitions are merged by append time as well as one pass can."""
    import time  # noqa: PLC0415

    from streams.replay import pace_s  # noqa: PLC0415

    # A topic is read partition by partition: only in order of time is a pace one.
    ordered = sorted(records, key=lambda r: (r.appended_at_ms, r.partition, r.offset))
    started_s = time.monotonic()
    for record in ordered:
        time.sleep(pace_s(ordered[0].appended_at_ms, record.appended_at_ms, speed, time.monotonic() - started_s))
        yield record


class _Target:
    """Where outputs go: lines on stdout, or topics under another prefix."""

    def __init__(self, topic: str, to_kafka: str | None, client: ClientConfig, *, as_hex: bool) -> None:
        self.taken = 0
        self._topic, self._as_hex = topic, as_hex
        self._publish: Callable[[Output], None] | None = None
        self._close: Callable[[], None] = lambda: None
        if to_kafka is not None:
            self._open(to_kafka, client.kafka.bootstrap)

    def _open(self, prefix: str, bootstrap: str) -> None:
        from infra.kafka.admin import create_topics  # noqa: PLC0415
        from producers.publisher import Publisher  # noqa: PLC0415

        create_topics(bootstrap, prefix=prefix)
        publisher = Publisher(bootstrap, client_id="proxima-replay", topic_prefix=prefix)
        self._publish = lambda out: publisher.publish_raw(out.topic, out.key, out.value)
        self._close = publisher.close

    def take(self, output: Output) -> None:
        """Publish, or print when it is of the topic asked for."""
        if self._publish is not None:
            self._publish(output)
        elif output.topic != self._topic:
            return
        elif self._as_hex:
            say(f"{output.key.decode()} {output.value.hex()}")
        else:
            from infra.cli._plain import shown  # noqa: PLC0415

            say_json({"topic": output.topic, "key": output.key.decode(), **shown(output.value)})
        self.taken += 1

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
