"""`proxima replay`: history run again, from a topic or from a file, as it was or under another policy."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli._journal import TOPIC, open_journal
from infra.cli._options import AsJson, Bootstrap, ConfigFile, Prefix, client_config, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.cli._outputs import Comparison, Outputs
    from infra.history import Stretch
    from schemas.config import ClientConfig
    from schemas.records import Snapshot
    from streams.journal import JournalRecord
    from streams.parallel import ParallelReplay
    from streams.replay import Replay

_TIME_HELP = "ISO 8601, Unix milliseconds, or back from now: -2h."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="`observations` (the topic), or a file of `proxima tail --raw`.")
    ],
    *,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help=f"Show what is decided from then. {_TIME_HELP}")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="And up to before then; else to the end.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="At the end go on live, until Ctrl-C.")] = False,
    speed: Annotated[
        float | None, typer.Option(min=0.001, metavar="X", help="X times as fast as it happened; else at once.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Decide by this policy instead of every configuration's own; TOML."),
    ] = None,
    beside: Annotated[
        bool | None,
        typer.Option("--beside/--no-beside", help="Say only where targets differ from those published; the "
                     "default with --follow and --policy together."),
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
    as_json: AsJson = False,
    tick_ms: Annotated[int, typer.Option(min=100, help="As in the worker's [decide].")] = 1000,
    phase_ms: Annotated[int, typer.Option(min=0, help="As in the worker's [decide].")] = 300,
    jobs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Fold in so many processes, each some partitions; else one a core.")
    ] = os.cpu_count() or 1,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
) -> None:  # fmt: skip
    """Fold a journal again with the same engine: the same journal gives the same decisions, byte for byte.

    From a topic it begins at the last checkpoint before --from; what is decided before --from is folded and not shown.
    Decisions are printed as JSON lines. With --follow and --policy it is a shadow policy: it decides beside the real
    one on the live journal, and a line is printed whenever their targets differ or agree again (--json: as JSON).

    \b
    Examples:
      proxima replay observations --from -2h | jq .record.reason
      proxima replay observations --from 2026-11-24T10:00:00Z --to 2026-11-24T10:30:00Z --policy careful.toml
      proxima replay observations --from -1m --follow --policy careful.toml
      proxima replay monday.journal --speed 10
      proxima replay monday.journal --to-kafka monday-
    """
    from infra.cli._outputs import Outputs, comparison  # noqa: PLC0415
    from infra.configuration import read_policy  # noqa: PLC0415
    from schemas.topics import TOPICS  # noqa: PLC0415
    from streams.core.engine import FailoverEngine  # noqa: PLC0415
    from streams.parallel import ParallelReplay  # noqa: PLC0415
    from streams.replay import Replay, engine_under, without_weights  # noqa: PLC0415

    if topic not in TOPICS:
        raise typer.BadParameter(f"{topic!r} is none of {', '.join(TOPICS)}", param_hint="--topic")
    from_ms, to_ms = moment(from_, "--from"), moment(to, "--to")
    _check_usage(source, from_ms, to_ms, speed, follow=follow, beside=bool(beside))
    engine = FailoverEngine if policy is None else engine_under(read_policy(policy))
    client = client_config(bootstrap, config, prefix)
    journal = _open(source, client, from_ms, to_ms, speed, follow=follow)
    if to_kafka is None and topic not in ("path-weights", "prediction-scorecards", "graph-updates"):
        engine = without_weights(engine)
    compares = beside if beside is not None else follow and policy is not None
    wanted = [topic] if to_kafka is None and not compares else list(TOPICS)
    alone = follow or compares or speed is not None
    run = Replay(
        topic=TOPIC, topic_id=journal.topic_id, tick_ms=tick_ms, phase_ms=phase_ms, engine=engine, topics=wanted
    )
    if journal.begin is not None:
        run.restore(journal.begin)
    with (
        nullcontext(run) if alone else ParallelReplay(run, jobs, wanted) as folding,
        Outputs(topic, to_kafka, client, from_ms, to_ms, as_hex=as_hex, quiet=compares) as outputs,
        comparison(client, from_ms, as_json=as_json, wanted=compares) as compared,
        # Lines on the same terminal would tear the bar.
        _Progress(journal.offsets, silent=sys.stdout.isatty() and (compares or to_kafka is None)) as progress,
    ):
        try:
            if compared is None:
                _fold(folding, journal.records, outputs, progress)
            else:
                _fold_beside(run, journal.records, outputs, compared, progress)
        finally:  # Ctrl-C is how it ends when it follows
            progress.stop()
            sys.stderr.write(
                f"{folding.records} records folded, {outputs.count} outputs, {outputs.taken} shown or published\n"
            )


def _fold(
    run: Replay | ParallelReplay, records: Iterator[JournalRecord | None], outputs: Outputs, progress: _Progress
) -> None:
    for record, made in run.each(r for r in records if r is not None):
        for output in made:
            outputs.take(output, record)
        progress.folded(record.appended_at_ms)


def _fold_beside(
    run: Replay, records: Iterator[JournalRecord | None], outputs: Outputs, compared: Comparison, progress: _Progress
) -> None:
    """Record by record, and also when none came for a moment: a comparison follows the clock."""
    for record in records:
        if record is not None:
            for output in run.apply(record):
                outputs.take(output, record)
                compared.decided(output, record)
            progress.folded(record.appended_at_ms)
        compared.passed(record)


def _check_usage(
    source: str, from_ms: int | None, to_ms: int | None, speed: float | None, *, follow: bool, beside: bool
) -> None:
    if (follow or beside) and source != TOPIC:
        raise typer.BadParameter(f"only {TOPIC}, the topic, is live", param_hint="SOURCE")
    if follow and to_ms is not None:
        raise typer.BadParameter("what is followed has no end", param_hint="--to")
    if follow and speed is not None:
        raise typer.BadParameter("what is followed goes as fast as it happens", param_hint="--speed")
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise typer.BadParameter("it is not after --from", param_hint="--to")


@dataclass(frozen=True, slots=True)
class _Journal:
    """What is folded: records (None: nothing came for a moment), after the snapshots to begin with."""

    topic_id: str
    records: Iterator[JournalRecord | None]
    offsets: int | None = None  # so many records at most, when that is known
    begin: list[Snapshot] | None = None


def _open(
    source: str, client: ClientConfig, from_ms: int | None, to_ms: int | None, speed: float | None, *, follow: bool
) -> _Journal:
    from infra.history import live, stretch  # noqa: PLC0415
    from schemas.topics import named  # noqa: PLC0415

    if source == TOPIC:
        kafka = client.kafka
        found = stretch(kafka.bootstrap, kafka.topic_prefix, from_ms, to_ms)
        if from_ms is not None:
            _say_beginning(found, from_ms)
        name = named(kafka.topic_prefix, TOPIC)
        records = live(kafka.bootstrap, name, found.first, found.ends, follow=follow)
        journal = _Journal(found.topic_id, records, found.offsets, found.snapshots)
    else:
        topic_id, of_file = open_journal(source, client)
        journal = _Journal(topic_id, (r for r in of_file if to_ms is None or r.appended_at_ms < to_ms))
    if speed is None:
        return journal
    paced = _paced((r for r in journal.records if r is not None), speed, from_ms or 0)
    return _Journal(journal.topic_id, paced, journal.offsets, journal.begin)


def _say_beginning(found: Stretch, from_ms: int) -> None:
    """Where it begins, on stderr: a long way back explains why it takes long."""
    from infra.times import clock  # noqa: PLC0415
    from streams.core.state import from_scalars  # noqa: PLC0415
    from streams.fold import SHARED  # noqa: PLC0415

    begun = [from_scalars(s.scalars)["clock_ms"] for s in found.snapshots if s.key == SHARED]
    if begun:
        sys.stderr.write(f"begins at checkpoints of {clock(min(begun))} to {clock(max(begun))}\n")
    if found.without_checkpoint:
        where = ", ".join(map(str, found.without_checkpoint))
        sys.stderr.write(
            f"no checkpoint at or before {clock(from_ms)} of partition {where}: begins at the first record kept\n"
        )


def _paced(records: Iterator[JournalRecord], speed: float, from_ms: int) -> Iterator[JournalRecord]:
    """Records as they came, in journal time, but at once what comes before `from_ms`.

    Partitions are merged by append time as well as one pass can.
    """
    import time  # noqa: PLC0415

    from streams.replay import pace_s  # noqa: PLC0415

    # A topic is read partition by partition: only in order of time is a pace one.
    ordered = sorted(records, key=lambda r: (r.appended_at_ms, r.partition, r.offset))
    first_ms = max(from_ms, ordered[0].appended_at_ms) if ordered else 0
    started_s: float | None = None
    for record in ordered:
        if record.appended_at_ms >= first_ms:
            started_s = time.monotonic() if started_s is None else started_s
            time.sleep(pace_s(first_ms, record.appended_at_ms, speed, time.monotonic() - started_s))
        yield record


class _Progress:
    """How far a long replay is, on stderr, for people only."""

    def __init__(self, total: int | None, *, silent: bool) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        nothing = silent or total == 0 or not console.is_terminal
        # Without redirection: rich would put what we print on stdout onto its own console, which is stderr.
        self._bar = Progress(
            *columns, console=console, transient=True, disable=nothing, redirect_stdout=False, redirect_stderr=False
        )
        self._task = self._bar.add_task("folding", total=total)
        self._total, self._count = total, 0

    def folded(self, at_ms: int) -> None:
        """One record more."""
        from infra.times import clock  # noqa: PLC0415

        self._count += 1
        if self._count == self._total:
            self._bar.stop()  # what follows is live
        elif self._count % 500 == 0 and not self._bar.disable:
            self._bar.update(self._task, completed=self._count, description=clock(at_ms))

    def stop(self) -> None:
        """Take the bar away."""
        self._bar.stop()

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
