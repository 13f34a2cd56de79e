"""The command line as people run it: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from infra.processes import ChildProcess

# Not `proxima`: what stands on the PATH may be another checkout's.
PROXIMA = (sys.executable, "-m", "infra.cli")
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120
Run = subprocess.CompletedProcess[str]


def environment(**variables: str) -> dict[str, str]:
    """Ours without Proxima's variables, and these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PROXIMA_")}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def proxima(*arguments: str | Path, stdout: Any = subprocess.PIPE, **variables: Any) -> Run:
    """Run a command to its end."""
    argv = [*PROXIMA, *map(str, arguments)]
    return subprocess.run(
        argv,
        env=environment(**variables),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def succeeds(*arguments: str | Path, **variables: str) -> str:
    """What a command prints that has to succeed."""
    done = proxima(*arguments, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(*arguments: str | Path, **variables: str) -> list[dict[str, Any]]:
    """JSON lines of a command that has to succeed; NaN is no JSON."""
    printed = succeeds(*arguments, **variables).splitlines()
    return [json.loads(line, parse_constant=_no_json) for line in printed]


def fails(code: int, *arguments: str | Path, **variables: str) -> str:
    """What a command says on stderr that has to fail with this code, without a traceback."""
    done = proxima(*arguments, **variables)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


def running(*arguments: str | Path, log_path: Path, **variables: str) -> ChildProcess:
    """A command that goes on; it dies with us."""
    argv = [*PROXIMA, *map(str, arguments)]
    return ChildProcess.start(argv, name=str(arguments[0]), log_path=log_path, env=environment(**variables))


def _no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")
