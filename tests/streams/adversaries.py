"""Traces that are hard to follow, each for its own reason; the same for the same seed.

    for name, trace in adversaries(seed=1).items(): ...

Invented ones have three candidates or fewer and a shape that a sentence says; the others are recorded round-trip times,
grouped or damaged. NaN is a lost probe. At the default timeout each has a candidate that is worth knowing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from producers.traces import OVERLAY, labelled_rtt_ms, overlay_rtt_ms
from schemas.records import Array
from streams.trace_files import Trace

STEPS: Final = 800
BURST_STEPS: Final = 10.0  # mean length of a burst of losses
RECORDED: Final = tuple(dict.fromkeys(path.split("/")[0] for path in OVERLAY))
Rng = np.random.Generator


def adversaries(seed: int = 1) -> Mapping[str, Trace]:
    """Every trace by name, always in the same order; a trace depends on the seed and on its name alone."""
    return {name: make(np.random.default_rng([seed, zlib.crc32(name.encode())])) for name, make in _makers().items()}


def recorded(folder: str) -> Trace:
    """One of the shipped sets of overlay paths as it is."""
    paths = sorted(path for path in OVERLAY if path.startswith(f"{folder}/"))
    return Trace(tuple(Path(p).name for p in paths), np.column_stack([overlay_rtt_ms(p) for p in paths]).astype(float))


def _makers() -> dict[str, Callable[[Rng], Trace]]:
    made: dict[str, Callable[[Rng], Trace]] = {
        "times out every tenth step and is best on average": _tenth,
        "two swap every 40 steps": partial(_swap, 40),
        "two swap every 8 steps": partial(_swap, 8),
        "the best degrades slowly": _degrading,
        "gamma noise around levels close together": _noisy,
    }
    for percent in (40, 60, 80):
        made[f"the best loses {percent} % at random"] = partial(_lossy, percent / 100, False)
        made[f"the best loses {percent} % in bursts"] = partial(_lossy, percent / 100, True)
    for folder in RECORDED:
        for percent in (40, 70):
            made[f"{folder}, its best path loses {percent} %"] = partial(_damaged, folder, percent / 100)
    made |= {f"labelled series of about {level} ms": partial(_as_is, t) for level, t in _labelled().items()}
    return made


# -- invented


def _level(rng: Rng, mean_ms: float, spread_ms: float = 1.0) -> Array:
    """(STEPS,) round-trip times: a floor, and a queue of gamma form above it."""
    return mean_ms - 2 * spread_ms + rng.gamma(2.0, spread_ms, STEPS)


def _side_by_side(**paths: Array) -> Trace:
    return Trace(tuple(paths), np.column_stack(list(paths.values())))


def _tenth(rng: Rng) -> Trace:
    near = _level(rng, 20)
    near[9::10] = np.nan
    return _side_by_side(near=near, steady=_level(rng, 150), far=_level(rng, 180))


def _swap(every: int, rng: Rng) -> Trace:
    first = np.arange(STEPS) // every % 2 == 0
    low, high = _level(rng, 50), _level(rng, 100)
    return _side_by_side(a=np.where(first, low, high), b=np.where(first, high, low))


def _degrading(rng: Rng) -> Trace:
    return _side_by_side(sinking=_level(rng, 40) + np.linspace(0, 160, STEPS), steady=_level(rng, 90))


def _noisy(rng: Rng) -> Trace:
    return _side_by_side(**{f"about_{mean}": _level(rng, mean, 20.0) for mean in (100, 105, 110)})


def _lossy(share: float, bursts: bool, rng: Rng) -> Trace:
    near = _level(rng, 40)
    near[_lost(rng, STEPS, share, bursts=bursts)] = np.nan
    return _side_by_side(near=near, steady=_level(rng, 90), far=_level(rng, 120))


def _lost(rng: Rng, steps: int, share: float, *, bursts: bool) -> Array:
    """(steps,) bool, about `share` of them true: each by itself, or in bursts (Gilbert 1960: two states)."""
    if not bursts:
        return rng.random(steps) < share
    end, begin = 1 / BURST_STEPS, share / (1 - share) / BURST_STEPS
    lost, chance = np.zeros(steps, bool), rng.random(steps)
    lost[0] = chance[0] < share
    for step in range(1, steps):
        lost[step] = chance[step] >= end if lost[step - 1] else chance[step] < begin
    return lost


# -- recorded


def _damaged(folder: str, share: float, rng: Rng) -> Trace:
    """A recorded set whose path of lowest mean loses this share at random."""
    trace = recorded(folder)
    rtt_ms = trace.rtt_ms.copy()
    rtt_ms[_lost(rng, len(rtt_ms), share, bursts=False), np.nanmean(rtt_ms, axis=0).argmin()] = np.nan
    return replace(trace, rtt_ms=rtt_ms)


def _labelled() -> dict[int, Trace]:
    """Recorded series of equal length in groups of three neighbours by median, by that median."""
    found = {probe: rtt_ms.astype(float) for probe, rtt_ms in labelled_rtt_ms().items()}
    longest = max(len(rtt_ms) for rtt_ms in found.values())
    whole = [probe for probe, rtt_ms in found.items() if len(rtt_ms) == longest]
    by_level = sorted(whole, key=lambda probe: float(np.nanmedian(found[probe])))
    groups = [by_level[i : i + 3] for i in range(0, len(by_level) - 2, 3)]
    return {
        round(float(np.nanmedian(found[group[1]]))): Trace(
            tuple(f"probe_{p}" for p in group), np.column_stack([found[p] for p in group])
        )
        for group in groups
    }


def _as_is(trace: Trace, _: Rng) -> Trace:
    return trace
