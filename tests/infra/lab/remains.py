"""What a lab could leave behind: namespaces, processes that were started by us, and files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psutil

from infra.lab.namespaces import namespaces

FRR_OUTSIDE = Path("/var/tmp/frr")  # noqa: S108 - where FRR keeps files whatever it is told


def processes(root: int) -> set[int]:
    """All that a process has started, by process id."""
    return {p.pid for p in psutil.Process(root).children(recursive=True)}


def remains(lab: str, started: set[int]) -> list[str]:
    """What is left of a lab, those of its processes that still run included."""
    files = [*Path(tempfile.gettempdir()).glob(f"proxima-{lab}-*")]
    if FRR_OUTSIDE.is_dir():
        files += [f for f in FRR_OUTSIDE.iterdir() if f.suffix[1:].isdigit() and int(f.suffix[1:]) in started]
    running = [f"process {pid}" for pid in started if _runs(pid)]
    return [*namespaces(lab), *running, *map(str, files)]


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # init will see to those
    except psutil.NoSuchProcess:
        return False
