"""A directory of recorded round-trip times: one CSV a candidate, as `proxima backtest` takes them.

    tokyo.csv      step,rtt_ms       the file's name without .csv or .csv.gz is the candidate
                   0,281.5
                   1,                an empty value is a lost probe

All files have the same steps, whole numbers that rise. Anything else in the directory is left alone. Nothing is mended:
the first line that says something else is an error with its file and number, for a row that is skipped would shift one
path against the others.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from schemas.errors import TraceError
from schemas.records import Array

HEADER: Final = ("step", "rtt_ms")
STEPS_MIN: Final = 4  # a quarter of them is for learning
_ENDINGS: Final = (".csv.gz", ".csv")


@dataclass(frozen=True, slots=True)
class Trace:
    """What every candidate's path did: `rtt_ms` is (steps, candidates), NaN where the probe was lost."""

    candidates: tuple[str, ...]
    rtt_ms: Array


def read_trace(folder: Path) -> Trace:
    """The directory's series side by side, candidates in order of name; raises TraceError."""
    files = _files(folder)
    columns: list[Array] = []
    first: tuple[str, list[int]] | None = None
    for path in files.values():
        steps, rtt_ms = read_series(path)
        if len(steps) < STEPS_MIN:
            raise TraceError(f"there are {len(steps)} steps, and {STEPS_MIN} are the least", where=str(path))
        if first is None:
            first = path.name, steps
        elif steps != first[1]:
            raise TraceError(_difference(steps, *first), where=str(path))
        columns.append(rtt_ms)
    return Trace(tuple(files), np.column_stack(columns))


def read_series(path: Path) -> tuple[list[int], Array]:
    """Steps and (steps,) round-trip times of one file, NaN where the probe was lost; raises TraceError."""
    steps: list[int] = []
    rtt_ms: list[float] = []
    rows = csv_rows(path)
    header = next(rows, (1, []))[1]
    if tuple(header) != HEADER:
        raise TraceError(f"the header is {','.join(header)[:60]!r}, not {','.join(HEADER)!r}", where=f"{path}, line 1")
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(HEADER):
            raise TraceError(f"there are {len(row)} values, not {len(HEADER)}", where=where)
        step = _step(row[0], where)
        if steps and step <= steps[-1]:
            raise TraceError(f"step {step} comes after step {steps[-1]}", where=where)
        steps.append(step)
        rtt_ms.append(_rtt_ms(row[1], where))
    if not steps:
        raise TraceError("there is no step in it", where=str(path))
    return steps, np.array(rtt_ms)


def _files(folder: Path) -> dict[str, Path]:
    """Files by candidate, in order of name."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror}", where=str(folder)) from None
    found: dict[str, Path] = {}
    for path in paths:
        ending = next((e for e in _ENDINGS if path.name.endswith(e)), None)
        if ending is None or path.name.startswith("."):
            continue
        name = path.name.removesuffix(ending)
        if name in found:
            raise TraceError(f"{name} is there twice: {found[name].name} and {path.name}", where=str(folder))
        found[name] = path
    if not found:
        raise TraceError(
            "there is no .csv or .csv.gz in it",
            where=str(folder),
            do=f"a trace directory has one a candidate, with the header {','.join(HEADER)}",
        )
    return dict(sorted(found.items()))


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and values of every line that is not empty, of a .csv or .csv.gz; raises TraceError."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8-sig")
    except OSError as error:  # gzip's own error is one too, without a strerror
        raise TraceError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TraceError(f"cannot be read: {error}", where=str(path)) from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if row:
                yield reader.line_num, [value.strip() for value in row]
    except csv.Error as error:
        raise TraceError(f"is no CSV: {error}", where=f"{path}, line {reader.line_num}") from None


def _step(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise TraceError(f"step is {text[:40]!r}, not a whole number", where=where)
    return int(text)


def _rtt_ms(text: str, where: str) -> float:
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:  # false for NaN: a lost probe is empty and not a word
        raise TraceError(f"rtt_ms is {text[:40]!r}, not a number of 0 or more, nor empty", where=where)
    return value


def _difference(steps: list[int], other: str, others: list[int]) -> str:
    if len(steps) != len(others):
        return f"there are {len(steps)} steps, and {len(others)} in {other}"
    mine, its = next((a, b) for a, b in zip(steps, others, strict=True) if a != b)
    return f"it has a step {mine} where {other} has step {its}"
