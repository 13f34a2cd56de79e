"""`proxima tail`: records of a topic as JSON lines, or as a journal file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from infra.cli._options import Bootstrap, ConfigFile, Prefix, client_config, say_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from infra.kafka.reader import RawRecord, TopicReader

_POLL_S = 0.2


def register(app: typer.Typer) -> None:
    app.command()(tail)


def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic of the table; `proxima topics list`.")],
    *,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Also what is there already.")] = False,
    to_end: Annotated[bool, typer.Option("--to-end", help="Stop at what is the end now.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many records.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write a journal file, which `proxima replay` reads.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a journal file, instead of stdout.", show_default=False)
    ] = None,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
) -> None:
    """Print the records of a topic as JSON lines.

    Whatever their encoding; what nobody can read is shown in hexadecimal. Without options: from now on, until Ctrl-C.
    Packed columns are shown as arrays, a lost probe's time as null.

    \b
    Examples:
      proxima tail failover-rankings --from-beginning | jq .record.target_region
      proxima tail dead-letters --from-beginning --to-end
      proxima tail observations --from-beginning --to-end --raw > monday.journal
    """
    from infra.kafka.reader import BEGINNING, NOW, TopicReader  # noqa: PLC0415
    from schemas.topics import TOPICS, named  # noqa: PLC0415

    if topic not in TOPICS:
        raise typer.BadParameter(f"{topic!r} is none of {', '.join(TOPICS)}", param_hint="TOPIC")
    if raw and output is None and sys.stdout.isatty():
        raise typer.BadParameter("a journal file is binary: redirect stdout, or give --output", param_hint="--raw")
    if output is not None and not raw:
        raise typer.BadParameter("goes with --raw; redirect stdout for JSON lines", param_hint="--output")
    kafka = client_config(bootstrap, config, prefix).kafka
    name = named(kafka.topic_prefix, topic)
    with TopicReader(kafka.bootstrap, {name: BEGINNING if from_beginning else NOW}) as reader:
        records = _records(reader, limit, to_end=to_end)
        if raw:
            _write_journal(records, name, reader.partitions[name], kafka.bootstrap, output)
        else:
            for record in records:
                say_json(_line(record))


def _records(reader: TopicReader, limit: int | None, *, to_end: bool) -> Iterator[RawRecord]:
    count = 0
    while not (to_end and reader.at_end):
        record = reader.poll(_POLL_S)
        if record is None:
            continue
        yield record
        count += 1
        if count == limit:
            return


def _line(record: RawRecord) -> dict[str, Any]:
    from infra.cli._plain import shown, text_of  # noqa: PLC0415 - numpy and the codec

    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "appended_at_ms": record.appended_at_ms,
        "key": text_of(record.key),
        **shown(record.value),
    }


def _write_journal(
    records: Iterator[RawRecord], name: str, partitions: int, bootstrap: str, output: Path | None
) -> None:
    from infra.kafka.admin import topic_ids  # noqa: PLC0415
    from streams.journal import JournalHeader, JournalRecord, append, write_header  # noqa: PLC0415

    header = JournalHeader(name, topic_ids(bootstrap, [name])[name], partitions)
    out: BinaryIO = output.open("wb") if output is not None else sys.stdout.buffer
    close: Callable[[], None] = out.close if output is not None else out.flush
    try:
        write_header(out, header)
        for r in records:
            if r.value is not None:
                append(out, JournalRecord(r.partition, r.offset, r.appended_at_ms, r.key, r.value))
    finally:
        close()
