"""`proxima backtest`: history under other policies, beside yardsticks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli._journal import TOPIC, open_journal
from infra.cli._options import AsJson, Bootstrap, ConfigFile, Prefix, client_config, say_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.records import Policy
    from streams.backtest import Past, Score

_BUILT_IN = "default"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(backtest)


def backtest(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="`observations` (the topic), a file of `proxima tail --raw`, or a trace directory."
        ),
    ],
    *,
    policy: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="TOML with fields of a policy; can be given often.", show_default=False),
    ] = None,
    timeout_ms: Annotated[
        float, typer.Option(min=0.001, max=1e9, metavar="MS", help="What a lost probe or a later answer costs.")
    ] = 1000.0,
    step_seconds: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=1e9,
            metavar="S",
            help="How long a step of a trace is, for axes and times.",
            show_default=False,
        ),
    ] = None,
    step_policy_ms: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=600_000,
            metavar="MS",
            help="Of a policy's time that a step of a trace stands for; 3000 unless said.",
            show_default=False,
        ),
    ] = None,
    primary: Annotated[
        str | None, typer.Option(metavar="REGION", help="Of a journal, this primary alone.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw targets above paths: .html or .png.", show_default=False)
    ] = None,
    tick_ms: Annotated[int, typer.Option(min=100, help="As in the worker's [decide].")] = 1000,
    phase_ms: Annotated[int, typer.Option(min=0, help="As in the worker's [decide].")] = 300,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Run history again under other policies, and say what following each would have cost.

    A trace directory has one CSV (or .csv.gz) a candidate, with the header `step,rtt_ms`; an empty value is a lost
    probe. The built-in policy (`default`) and four yardsticks are always shown beside the policies given: oracle (the
    best of every step), static (the best of the first quarter), last-value, and ewma (alpha 0.3).

    Every choice is made from the steps before it, and the last three quarters of the steps count. A step costs the
    round-trip time of the target in use; lost, later than the timeout, or nowhere, it costs the timeout.

    \b
    regret_ms       mean cost above the best candidate of the same step
    mean_cost_ms    mean cost
    switches        changes of the target
    lost_ratio      share of the target's probes lost or later than the timeout; having no target counts as lost
    bad_ratio       share of steps on a bad target: at least half lost, or slower than the best by half and by 10 ms
    nowhere_ratio   share of steps with no target
    decide_us_p50   median microseconds to take a step in and decide

    \b
    Examples:
      proxima backtest producers/data/overlay_rtt/Haifa_Santiago --step-seconds 240
      proxima backtest monday.journal --policy calm.toml --policy quick.toml --plot monday.html --primary eu-west-1
      proxima backtest observations --policy calm.toml --json
    """
    from streams.backtest import scores  # noqa: PLC0415 - numpy and the engine
    from streams.backtest_journal import run_journal  # noqa: PLC0415

    _check_usage(source, plot=plot, primary=primary, step_seconds=step_seconds)
    policies = _policies(policy or [])
    pasts: Mapping[str, Past]
    if _is_trace(source):
        pasts = {Path(source).resolve().name: _of_trace(source, policies, timeout_ms, step_seconds, step_policy_ms)}
    else:
        topic_id, records = open_journal(source, client_config(bootstrap, config, prefix))
        pasts = run_journal(
            records, policies, topic_id=topic_id, timeout_ms=timeout_ms, tick_ms=tick_ms, phase_ms=phase_ms
        )
        pasts = _only(pasts, primary, source)
    found = scores(list(pasts.values()), timeout_ms)
    if as_json:
        say_json({"policies": {name: _plain(score) for name, score in found.items()}})
    else:
        _print_table(found, pasts, step_seconds if _is_trace(source) else tick_ms / 1000)
    if plot is not None:
        _draw(plot, pasts, found, in_steps=_is_trace(source) and step_seconds is None)


def _is_trace(source: str) -> bool:
    return source != TOPIC and Path(source).is_dir()


def _check_usage(source: str, *, plot: Path | None, primary: str | None, step_seconds: float | None) -> None:
    from infra.plot import FORMATS, check  # noqa: PLC0415

    if _is_trace(source) and primary is not None:
        raise typer.BadParameter("a trace has no primaries; this is of a journal", param_hint="--primary")
    if not _is_trace(source) and step_seconds is not None:
        raise typer.BadParameter("a journal knows its time; this is of a trace directory", param_hint="--step-seconds")
    if plot is not None:
        if plot.suffix not in FORMATS:
            raise typer.BadParameter(f"{plot} ends neither in {' nor in '.join(FORMATS)}", param_hint="--plot")
        check()


def _policies(files: list[Path]) -> dict[str, Policy]:
    """The built-in policy, and each file's by its stem."""
    from infra.configuration import read_policy  # noqa: PLC0415
    from schemas.records import Policy  # noqa: PLC0415
    from streams.backtest import YARDSTICKS  # noqa: PLC0415

    found = {_BUILT_IN: Policy()}
    for path in files:
        if path.stem in found or path.stem in YARDSTICKS:
            raise typer.BadParameter(f"{path}: {path.stem!r} is shown already; rename the file", param_hint="--policy")
        found[path.stem] = read_policy(path)
    return found


def _of_trace(
    source: str,
    policies: Mapping[str, Policy],
    timeout_ms: float,
    step_seconds: float | None,
    step_policy_ms: int | None,
) -> Past:
    import numpy as np  # noqa: PLC0415

    from streams.backtest import STEP_POLICY_MS, Past, course_of, run_trace, yardsticks  # noqa: PLC0415
    from streams.trace_files import read_trace  # noqa: PLC0415

    trace = read_trace(Path(source))
    course = course_of(trace, timeout_ms)
    runs = {name: run_trace(trace, policy, step_policy_ms or STEP_POLICY_MS) for name, policy in policies.items()}
    return Past(course, runs | yardsticks(course), np.arange(len(trace.rtt_ms)) * 1000 * (step_seconds or 1))


def _only(pasts: Mapping[str, Past], primary: str | None, source: str) -> Mapping[str, Past]:
    from schemas.errors import JournalError  # noqa: PLC0415

    if not pasts:
        raise JournalError("has no configured primary that was measured", where=source)
    if primary is None:
        return pasts
    if primary not in pasts:
        raise JournalError(f"{primary} was not measured in it", where=source, do=f"there is {', '.join(pasts)}")
    return {primary: pasts[primary]}


def _plain(score: Score) -> dict[str, float]:
    from dataclasses import asdict  # noqa: PLC0415

    return {name: round(value, 6) for name, value in asdict(score).items()}


def _print_table(found: Mapping[str, Score], pasts: Mapping[str, Past], step_s: float | None) -> None:
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    steps = next(iter(found.values())).steps
    of = sum(len(past.course.cost_ms) for past in pasts.values())
    table = Table(
        title=Text(", ".join(pasts), style="bold"),
        caption=f"the last {steps} of {of} steps" + (f", {_duration(steps * step_s)}" if step_s else ""),
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("", no_wrap=True)
    for column in ("regret ms", "mean ms", "switches", "lost", "bad", "nowhere", "decide µs"):
        table.add_column(column, justify="right")
    for name, score in found.items():
        bad = f"{score.bad_ratio:.2%}" + (f", {_duration(score.bad_ratio * steps * step_s)}" if step_s else "")
        table.add_row(
            Text(name),
            f"{score.regret_ms:.2f}",
            f"{score.mean_cost_ms:.1f}",
            str(score.switches),
            f"{score.lost_ratio:.2%}",
            bad,
            f"{score.nowhere_ratio:.2%}",
            f"{score.decide_us_p50:.1f}",
        )
    Console().print(table)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.1f} d"


def _draw(plot: Path, pasts: Mapping[str, Past], found: Mapping[str, Score], *, in_steps: bool) -> None:
    from infra.plot import draw  # noqa: PLC0415
    from schemas.errors import ProximaError  # noqa: PLC0415

    if len(pasts) > 1:
        raise ProximaError(
            f"a picture shows one primary, and there are {', '.join(pasts)}", do="say which with --primary"
        )
    [(name, past)] = pasts.items()
    draw(plot, past, found, title=name, in_steps=in_steps)
