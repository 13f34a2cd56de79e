"""The demo: a whole pipeline for people who want to see it, and for checks that want figures."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from infra.pipeline import Pipeline, run_folder, running
from infra.watch import run_view
from schemas.errors import ProximaError

# Before a brownout is measured: averages settle, so that nothing else moves the target meanwhile.
SETTLE_S: Final = 10.0
_POLL_S: Final = 0.05


def demo(seconds: float | None, *, as_json: bool) -> None:
    """Run until `seconds` after the start (None: until Ctrl-C): with a view, or with `as_json` for figures.

    For the figures one brownout is made and waited for, even where that takes a little longer than asked for.
    Raises ProximaError: a part does not start, or ends.
    """
    began = time.monotonic()
    until = None if seconds is None else began + seconds
    # Only the line of JSON belongs on stdout then.
    console = Console(stderr=as_json, highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def say(what: str) -> None:
        console.print(f"{time.monotonic() - began:5.1f} s  {what}")

    with run_folder() as folder:
        try:
            with ExitStack() as stack:
                with console.status("starting"):
                    pipeline = stack.enter_context(running(folder, say))
                startup_s = time.monotonic() - began
                with suppress(KeyboardInterrupt):  # that is how it ends
                    (_measure if as_json else _show)(pipeline, until, console)
                figures = pipeline.figures(startup_s)
        except ProximaError:
            console.print(f"logs are in {folder}", style="red", soft_wrap=True)
            raise
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        console.print(_in_words(figures), soft_wrap=True)


def _measure(pipeline: Pipeline, until: float | None, console: Console) -> None:
    """Let it run, with one brownout."""
    ready = time.monotonic()
    settle_s = SETTLE_S if until is None else min(SETTLE_S, max(0.0, until - ready) / 3)
    _run_until(pipeline, ready + settle_s / 2)
    # What waited while the pipeline started says nothing about it.
    pipeline.observer.forget_latencies()
    _run_until(pipeline, ready + settle_s)
    console.print(f"a brownout: {pipeline.brownout()}")
    _run_until(pipeline, until)


def _run_until(pipeline: Pipeline, until: float | None) -> None:
    while until is None or time.monotonic() < until:
        pipeline.check()
        time.sleep(_POLL_S)


def _show(pipeline: Pipeline, until: float | None, console: Console) -> None:
    """The live view; SIGUSR1 makes a brownout."""
    wanted, over = threading.Event(), threading.Event()
    told = ["press Ctrl-C to end; nothing stays behind"]

    def make_brownouts() -> None:
        while not over.is_set():
            if wanted.wait(_POLL_S):
                wanted.clear()
                told[0] = "a brownout is under way: watch a target lose its place"
                told[0] = f"a brownout: {pipeline.brownout()}"

    def is_over() -> bool:
        pipeline.check()
        return until is not None and time.monotonic() >= until

    signal.signal(signal.SIGUSR1, lambda *_: wanted.set())
    making = threading.Thread(target=make_brownouts, name="brownouts", daemon=True)
    making.start()
    pipeline.observer.forget_latencies()

    def footer() -> str:
        return f"{_hints(pipeline)}\n\n{told[0]}"

    try:
        run_view(pipeline.bootstrap, pipeline.prefix, until=is_over, footer=footer, console=console)
    finally:
        over.set()


def _hints(pipeline: Pipeline) -> str:
    """What to try in another terminal, to be copied as it stands."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "proxima" else "proxima"
    where = f"--bootstrap {pipeline.bootstrap}" + (f" --prefix {pipeline.prefix}" if pipeline.prefix else "")
    primary = pipeline.player.network.primaries[0]
    target = pipeline.observer.target(primary)
    tries = {
        f"kill -USR1 {os.getpid()}": "a brownout: a target in use loses its place",
        f"kill -9 {pipeline.deciding_pid}": "the stage that decides dies; it comes back and goes on",
        f"{program} tail failover-rankings {where}": "subscribe to every decision",
        f"{program} watch {primary} {where}": "all paths of one region",
        f"{program} inject {primary} {target} healthy 0 {where}": "say that a region is not well, for a minute",
    }
    width = max(map(len, tries))
    lines = [f"  {command:{width}}  {what}" for command, what in tries.items()]
    return "\n".join((f"Kafka {pipeline.bootstrap}   Redis {pipeline.redis_url}   In another terminal:", *lines))


def _in_words(figures: dict[str, Any]) -> str:
    return (
        f"{figures['primaries']} primaries had a target after {figures['startup_s']} s; {figures['samples_in']} samples"
        f" in, {figures['rankings_out']} rankings out, {figures['target_changes']} changes of target,"
        f" {figures['dead_letters']} dead letters; from a measurement to the weights made from it"
        f" {figures['latency_ms']['p50']} ms (p50), {figures['latency_ms']['p99']} ms (p99)"
    )
