"""Paths that congest gradually: a queue grows, then probes are lost; with false starts, ramps and noise between.

    day = congesting(seed)                         a trace, and the episodes in it
    judged(day, chosen_of(day, Policy()))          what a run's choices were worth

The nearest of three paths congests every twenty minutes or so. Half of the time the queue drains again before anything
is lost. All paths drift slowly, and now and then change their level for good. The nearest stays the nearest while its
queue grows: whoever looks at delays alone has no reason to leave it before the first probe is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.records import Array
from streams.trace_files import Trace

STEP_MS: Final = 3000
DAY_STEPS: Final = 86_400_000 // STEP_MS
DEVELOPMENT: Final = range(3)
JUDGING: Final = range(1000, 1005)
_LEVELS_MS: Final = {"near": 40.0, "middle": 75.0, "far": 95.0}
# So long after a move a loss on the path that was left makes it a right one.
_SOON_STEPS: Final = 180_000 // STEP_MS
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Episode:
    """Steps: the queue begins to grow, the first probe is lost (None: a false start), and all is over."""

    begins: int
    first_lost: int | None
    ends: int


@dataclass(frozen=True, slots=True)
class Day:
    """A trace, and when its first path congested."""

    trace: Trace
    episodes: list[Episode]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of the steps judged: real episodes that found the path in use, those left in time, and false moves a day."""

    episodes: int
    left_in_time: int
    false_moves_per_day: float

    @property
    def in_time_ratio(self) -> float:
        return self.left_in_time / max(self.episodes, 1)


def congesting(seed: int, days: float = 1.0, misleading_from: float = math.inf) -> Day:
    """The same for the same seed; seeds of development and of judging are kept apart by who uses them.

    From a day on it is misleading: every queue that grows drains again, and what is lost is lost without a warning.
    """
    rng = np.random.default_rng([seed, 20])
    steps = round(days * DAY_STEPS)
    rtt_ms = np.column_stack([_quiet(rng, steps, level) for level in _LEVELS_MS.values()])
    episodes = []
    full_ms = rng.uniform(14, 28)  # a path's buffer is what it is
    step = int(rng.integers(100, 400))
    while step < steps - 400:
        congest = _mislead if step >= misleading_from * DAY_STEPS else _congest
        episode = congest(rng, rtt_ms[:, 0], step, full_ms * rng.uniform(0.93, 1.07), real=rng.random() < 0.5)
        episodes.append(episode)
        step = episode.ends + int(rng.exponential(250)) + 60
    return Day(Trace(tuple(_LEVELS_MS), rtt_ms), episodes)


def judged(day: Day, chosen: Array, from_step: int = 0) -> Verdict:
    """`chosen` (steps,): number of the path in use as each step began. Judged from a step on: before it is learnt.

    A move is false if it leaves the congesting path though no probe is lost there soon, and is none of its return.
    """
    found = [e for e in day.episodes if e.first_lost is not None and e.begins >= from_step and chosen[e.begins] == 0]
    in_time = sum(int(chosen[e.first_lost] != 0) for e in found)
    left = np.flatnonzero((chosen[:-1] == 0) & (chosen[1:] != 0)) + 1
    lost = np.isnan(day.trace.rtt_ms[:, 0])
    false = [m for m in left[left >= from_step].tolist() if not lost[max(m - 5, 0) : m + _SOON_STEPS].any()]
    return Verdict(len(found), in_time, len(false) * DAY_STEPS / max(len(chosen) - from_step, 1))


def _quiet(rng: Rng, steps: int, level_ms: float) -> Array:
    """(steps,) a level with slow waves, changes of route, and a queue of gamma form above it."""
    at = np.arange(steps)
    waves = sum(
        rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * (at / rng.uniform(300, 4000) + rng.random())) for _ in range(3)
    )
    changes = np.zeros(steps)
    for step in rng.integers(0, steps, max(1, steps // 8000)).tolist():
        changes[step:] += rng.uniform(-3, 3)
    spikes = np.where(rng.random(steps) < 0.002, rng.uniform(5, 40, steps), 0.0)
    return level_ms + waves + changes + rng.gamma(2.0, rng.uniform(0.3, 1.0), steps) + spikes


def _congest(rng: Rng, rtt_ms: Array, begins: int, full_ms: float, *, real: bool) -> Episode:
    """Let a queue grow on a path, and overflow if it is real; changes `rtt_ms` (steps,)."""
    ramp = int(rng.integers(20, 80))  # one to four minutes
    grown = 1.0 if real else rng.uniform(0.2, 0.7)
    queue = full_ms * grown * np.linspace(0, 1, ramp) ** rng.uniform(0.7, 2.0)
    until = begins + ramp
    if real:
        until += int(rng.integers(20, 80))
        queue = np.append(queue, np.full(until - begins - ramp, full_ms))
    drain = int(rng.integers(3, 15))
    queue = np.append(queue, np.linspace(queue[-1], 0, drain))
    # The fuller the queue, the more it varies.
    rtt_ms[begins : begins + len(queue)] += queue * (1 + rng.normal(0, 0.12, len(queue)))
    first_lost = None
    if real:
        share = rng.uniform(0.3, 0.8)
        lost = begins + ramp + np.flatnonzero(rng.random(until - begins - ramp) < share)
        lost = lost if len(lost) else np.array([begins + ramp])
        rtt_ms[lost] = np.nan
        first_lost = int(lost[0])
    return Episode(begins, first_lost, begins + len(queue))


def _mislead(rng: Rng, rtt_ms: Array, begins: int, full_ms: float, *, real: bool) -> Episode:
    """The queue of a real episode that drains again, or losses without one."""
    if not real:
        part = np.array(rtt_ms)
        episode = _congest(rng, part, begins, full_ms, real=True)
        rtt_ms[:] = np.where(np.isnan(part), rtt_ms, part)
        return Episode(begins, None, episode.ends)
    ends = begins + int(rng.integers(20, 80))
    rtt_ms[begins:ends][rng.random(ends - begins) < 0.5] = np.nan
    rtt_ms[begins] = np.nan
    return Episode(begins, begins, ends)
