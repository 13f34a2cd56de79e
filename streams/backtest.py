"""History under other policies: what following each of them would have cost, beside yardsticks.

A *course* is what every candidate cost at every step; a *run* is what one policy or yardstick had chosen when the step
began, so from the steps before it. `score` compares the two over the last three quarters of the steps; the first
quarter is for learning. Courses come from recorded traces (here) or from a journal (`backtest_journal`), and are
judged by the same code.

What a step costs is the round-trip time of the candidate in use; a lost probe, an answer later than the timeout, and
having no target cost the timeout. *Regret* is that cost above the best candidate's of the same step.

Yardsticks:

    oracle       the best candidate of the very step: nobody can do better
    static       once and for all the candidate of lowest mean cost in the first quarter
    last-value   the best candidate of the step before
    ewma         the lowest exponential mean of the cost, alpha 0.3

*Time in a trace.* A policy's durations are written for live probing, and a trace's step may be minutes. So a step
stands for `STEP_POLICY_MS` of the policy's time, whatever it was on the clock: one policy for all traces, only the
timing scaled to the step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter_ns
from typing import Final, Protocol

import numpy as np

from schemas.records import Array, FailoverConfiguration, Outcome, PathPanes, Policy, ProbeBatch
from schemas.validate import RTT_MS_MAX
from streams.core.decision import Published
from streams.core.engine import FailoverEngine
from streams.core.panes import Flush
from streams.replay import engine_under, without_weights
from streams.trace_files import Trace

STEP_POLICY_MS: Final = 3000
TIMEOUT_MS: Final = 1000.0
EWMA_ALPHA: Final = 0.3
NOWHERE: Final = -1  # in `Run.chosen`: no target
# A bad target: at least half lost, or slower than the best by this ratio and by this much.
BAD_LOST_RATIO: Final = 0.5
BAD_COST_RATIO: Final = 1.5
BAD_COST_EXCESS_MS: Final = 10.0
ORACLE: Final = "oracle"
YARDSTICKS: Final = (ORACLE, "static", "last-value", "ewma")


@dataclass(frozen=True, slots=True)
class Course:
    """What each candidate cost and how much of it was lost, step by step; both (steps, candidates), without NaN."""

    candidates: tuple[str, ...]
    cost_ms: Array
    lost_ratio: Array

    @property
    def scored_from(self) -> int:
        """The first step that counts."""
        return len(self.cost_ms) // 4


@dataclass(frozen=True, slots=True)
class Run:
    """`chosen` (steps,): number of the candidate in use as each step began, or NOWHERE; `decide_us` (decisions,)."""

    chosen: Array
    decide_us: Array


@dataclass(frozen=True, slots=True)
class Score:
    """How a policy did over the steps that count; ratios are shares of these steps, costs their means."""

    regret_ms: float
    switches: int
    lost_ratio: float
    steps: int
    decide_us_p50: float
    mean_cost_ms: float
    bad_ratio: float
    nowhere_ratio: float


@dataclass(frozen=True, slots=True)
class Past:
    """One primary: what its candidates cost, what each policy and yardstick had in use, and when each step began."""

    course: Course
    runs: dict[str, Run]
    step_at_ms: Array  # (steps,)


def scores(pasts: Sequence[Past], timeout_ms: float) -> dict[str, Score]:
    """The score over all of these primaries of every policy and yardstick, by name."""
    names = pasts[0].runs
    return {name: score([(past.course, past.runs[name]) for past in pasts], timeout_ms) for name in names}


def course_of(trace: Trace, timeout_ms: float) -> Course:
    """A trace's costs: lost probes, and answers that came later than the timeout, at the timeout."""
    lost = ~(trace.rtt_ms <= timeout_ms)  # true for NaN
    return Course(trace.candidates, np.where(lost, timeout_ms, trace.rtt_ms), lost.astype(np.float64))


def score(runs: Iterable[tuple[Course, Run]], timeout_ms: float) -> Score:
    """One policy's score over its primaries, each step of each counted once; raises ValueError without a run."""
    pairs = list(runs)
    judged = np.concatenate([_judged(course, run, timeout_ms) for course, run in pairs], axis=1)
    cost, best, lost, bad, nowhere = judged
    return Score(
        regret_ms=float((cost - best).mean()),
        switches=sum(_switches(run.chosen[course.scored_from :]) for course, run in pairs),
        lost_ratio=float(lost.mean()),
        steps=judged.shape[1],
        decide_us_p50=float(np.median(np.concatenate([run.decide_us for _, run in pairs]))),
        mean_cost_ms=float(cost.mean()),
        bad_ratio=float(bad.mean()),
        nowhere_ratio=float(nowhere.mean()),
    )


def _judged(course: Course, run: Run, timeout_ms: float) -> Array:
    """(5, steps that count): cost of the target in use, cost of the best, share lost, whether bad, whether nowhere."""
    steps = np.arange(course.scored_from, len(course.cost_ms))
    chosen = run.chosen[steps]
    nowhere = chosen == NOWHERE
    cost = np.where(nowhere, timeout_ms, course.cost_ms[steps, chosen])
    lost = np.where(nowhere, 1.0, course.lost_ratio[steps, chosen])
    best = course.cost_ms[steps].min(axis=1)
    slow = (cost > BAD_COST_RATIO * best) & (cost > best + BAD_COST_EXCESS_MS)
    return np.stack((cost, best, lost, (lost >= BAD_LOST_RATIO) | slow, nowhere))


def _switches(chosen: Array) -> int:
    """Changes from one candidate to another, with or without a time of no target between them."""
    somewhere = chosen[chosen != NOWHERE]
    return int((somewhere[1:] != somewhere[:-1]).sum())


# -- yardsticks -------------------------------------------------------------------------------------------------------


class _Yardstick(Protocol):
    def see(self, cost_ms: Array) -> int:
        """Take in what a step's candidates cost, (candidates,); the candidate for the next step."""


class _LastValue:
    def see(self, cost_ms: Array) -> int:
        return int(cost_ms.argmin())


class _Ewma:
    def __init__(self) -> None:
        self._mean: Array | None = None

    def see(self, cost_ms: Array) -> int:
        """The first step's cost is the first mean."""
        mean = self._mean
        self._mean = cost_ms if mean is None else mean + EWMA_ALPHA * (cost_ms - mean)
        return int(self._mean.argmin())


class _Static:
    def __init__(self, steps: int) -> None:
        self._left, self._total = steps, np.zeros(1)

    def see(self, cost_ms: Array) -> int:
        """While it learns, the best so far."""
        if self._left > 0:
            self._left, self._total = self._left - 1, self._total + cost_ms
        return int(self._total.argmin())


def yardsticks(course: Course) -> dict[str, Run]:
    """All of them, by name."""
    return {name: yardstick(name, course) for name in YARDSTICKS}


def yardstick(name: str, course: Course) -> Run:
    """What one of `YARDSTICKS` would have chosen; before it has seen anything, the first candidate."""
    chooser: _Yardstick = _LastValue()
    if name == "ewma":
        chooser = _Ewma()
    elif name == "static":
        chooser = _Static(course.scored_from)
    chosen, decide_us = [], []
    for cost_ms in course.cost_ms:
        started_ns = perf_counter_ns()
        chosen.append(chooser.see(cost_ms))
        decide_us.append((perf_counter_ns() - started_ns) / 1000)
    # The oracle is who knows the last value one step early.
    return Run(np.array(chosen if name == ORACLE else [0, *chosen[:-1]]), np.array(decide_us))


# -- the engine -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Decisions:
    """What the engines of one policy decided, by primary and journal time: the target, and the microseconds taken.

    Keyed by time: a rollback folds again what was folded before, and finds the same.
    """

    of: dict[str, dict[int, tuple[str | None, float]]] = field(default_factory=dict)
    # Called with every record of panes that an engine takes in.
    measured: Callable[[FailoverConfiguration, PathPanes, int], None] | None = None


def noting_engine(policy: Policy, decisions: Decisions) -> type[FailoverEngine]:
    """FailoverEngine with this policy in place of every configuration's own, noting what it decides."""

    class Noting(without_weights(engine_under(policy))):  # type: ignore[misc]
        _spent_ns = 0

        def panes(self, panes: PathPanes, now_ms: int, observed_ms: float, appended_at_ms: int) -> None:
            started_ns = perf_counter_ns()
            super().panes(panes, now_ms, observed_ms, appended_at_ms)
            self._spent_ns += perf_counter_ns() - started_ns
            if decisions.measured is not None:
                decisions.measured(self.configuration, panes, appended_at_ms)

        def tick(self, now_ms: int, observed_ms: float) -> list[Published]:
            started_ns = perf_counter_ns()
            published: list[Published] = super().tick(now_ms, observed_ms)
            spent_us = (self._spent_ns + perf_counter_ns() - started_ns) / 1000
            decisions.of.setdefault(self.primary, {})[now_ms] = self.target, spent_us
            self._spent_ns = 0
            return published

    return Noting


def run_trace(trace: Trace, policy: Policy, step_policy_ms: int = STEP_POLICY_MS) -> Run:
    """The real engine over a trace: one agent probes every candidate once a step, and the engine decides after it.

    No candidate is nearer than another: all have the same weight, so only the network tells them apart.
    """
    regions = region_ids(trace.candidates)
    configuration = FailoverConfiguration(_PRIMARY, regions, 1, weights=dict.fromkeys(regions, 1.0))
    decisions = Decisions()
    engine = noting_engine(policy, decisions)(configuration, {})
    for step, panes in enumerate(_panes(trace, regions, step_policy_ms)):
        over_ms = (step + 1) * step_policy_ms
        engine.panes(panes, over_ms, over_ms, over_ms)
        engine.tick(over_ms, over_ms)
    number: Mapping[str | None, int] = {region: i for i, region in enumerate(regions)}
    targets, spent_us = zip(*decisions.of[_PRIMARY].values(), strict=True)
    chosen = [NOWHERE, *(number.get(target, NOWHERE) for target in targets[:-1])]
    return Run(np.array(chosen), np.array(spent_us))


_PRIMARY: Final = "trace-primary"


def region_ids(names: Sequence[str]) -> list[str]:
    """A region id for each name, in their order: all different, and as readable as region ids can be."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50] or "candidate"
        ids = (plain if n == 1 else f"{plain}-{n}" for n in count(1))
        found.append(next(i for i in ids if i not in found and i != _PRIMARY))
    return found


def _panes(trace: Trace, regions: list[str], pane_ms: int) -> Iterator[PathPanes]:
    """One record a step, with a row a candidate, as intake condenses them."""
    flush = Flush(pane_ms=pane_ms, ahead_ms_max=0, lateness_ms_max=0)
    # What probes can say: a time below RTT_MS_MAX, of a microsecond at least.
    rtt_ms = np.where(trace.rtt_ms < RTT_MS_MAX, np.maximum(trace.rtt_ms, 1e-3), np.nan).astype(np.float32)
    zeros = np.zeros(len(regions))
    for step, row in enumerate(rtt_ms):
        at_ms = step * pane_ms
        batch = ProbeBatch.of(
            agent_id="trace",
            primary_region=_PRIMARY,
            started_at_ms=at_ms,
            targets=regions,
            methods=["trace"],
            target_index=np.arange(len(regions)),
            method_index=zeros,
            sent_offset_ms=zeros,
            rtt_ms=row,
            outcome=np.where(np.isnan(row), Outcome.TIMED_OUT, Outcome.ANSWERED),
            code=zeros,
        )
        flush.add(batch, step, at_ms)
    whole = flush.condense()[0][_PRIMARY]
    # Condensed at once, for that is quick; rows stand in the order of panes, and a pane has one of each candidate.
    columns = whole.columns()
    entries = np.concatenate(([0], np.cumsum(columns["buckets"], dtype=np.int64)))
    for first in range(0, len(columns["buckets"]), len(regions)):
        rows = slice(first, first + len(regions))
        inside = slice(entries[rows.start], entries[rows.stop])
        cut = {name: columns[name][rows].tobytes() for name in PathPanes.ROWS}
        cut |= {name: columns[name][inside].tobytes() for name in PathPanes.ENTRIES}
        yield PathPanes(whole.pane_ms, whole.agents, whole.targets, whole.methods, **cut)
