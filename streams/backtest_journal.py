"""A journal under other policies: the same records, folded once a policy, and judged by what they themselves measured.

Every FailoverConfiguration in the journal gets the policy in question instead of its own; regions, weights and versions
stay. A step is a second of a primary (a tick) in which agents measured anything. What a candidate cost in it is what
that second's panes say: the mean round-trip time of its answered probes, with failures at the timeout. So a policy is
judged by measurements that came after its choice: the target in use as the second began, by the last decision before.

Two things are less than a trace's ground truth. The mean of a pane's answers is capped at the timeout, and not each
answer. And a candidate that was not measured in a second counts with what was last measured of it, for `CARRIED_MS`;
after that, and before its first measurement, nobody knows that it is alive, and it costs the timeout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from schemas.records import Array, FailoverConfiguration, Outcome, PathPanes, Policy
from streams.backtest import NOWHERE, Course, Decisions, Past, Run, noting_engine, yardsticks
from streams.journal import JournalRecord
from streams.replay import Replay

CARRIED_MS: Final = 10_000  # as long as a policy's own `stale_after_ms` is by default
_FAILURES: Final = [Outcome.TIMED_OUT, Outcome.REFUSED, Outcome.UNREACHABLE]


def run_journal(
    records: Iterable[JournalRecord],
    policies: Mapping[str, Policy],
    *,
    topic_id: str,
    timeout_ms: float,
    tick_ms: int = 1000,
    phase_ms: int = 300,
) -> dict[str, Past]:
    """Each primary's past under every policy and yardstick, in one pass; without a measurement, none."""
    measured = _Measured(tick_ms)
    decisions = {name: Decisions() for name in policies}
    decisions[next(iter(policies))].measured = measured.add  # the same for all of them
    replays = [
        Replay(topic_id=topic_id, tick_ms=tick_ms, phase_ms=phase_ms, engine=noting_engine(policy, decisions[name]))
        for name, policy in policies.items()
    ]
    for record in records:
        for replay in replays:
            replay.apply(record)
    found = {}
    for primary in sorted(measured.rows):
        course, step_at_ms = measured.course(primary, timeout_ms)
        runs = {name: _run(d, primary, course.candidates, step_at_ms) for name, d in decisions.items()}
        found[primary] = Past(course, runs | yardsticks(course), step_at_ms)
    return found


def _run(decisions: Decisions, primary: str, candidates: tuple[str, ...], step_at_ms: Array) -> Run:
    of = decisions.of[primary]
    number: Mapping[str | None, int] = {candidate: i for i, candidate in enumerate(candidates)}
    targets = np.array([NOWHERE, *(number.get(target, NOWHERE) for target, _ in of.values())])
    chosen = targets[np.searchsorted(np.array(list(of)), step_at_ms, side="right")]
    return Run(chosen, np.array([spent_us for _, spent_us in of.values()]))


@dataclass(slots=True)
class _Measured:
    """Rows of panes by primary: second, candidate, answered, failed, sum of round-trip times."""

    step_ms: int
    rows: dict[str, list[Array]] = field(default_factory=dict)
    _candidates: dict[str, dict[str, int]] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    def add(self, configuration: FailoverConfiguration, panes: PathPanes, appended_at_ms: int) -> None:
        """Take one record in; of regions that are no candidates, nothing."""
        primary = configuration.primary_region
        # A rollback shows the engine again what it has seen.
        key = hash((primary, appended_at_ms, panes.pane_at_ms, panes.outcomes, panes.rtt_sum_us))
        if key in self._seen:
            return
        self._seen.add(key)
        numbers = self._candidates.setdefault(primary, {})
        for region in configuration.potential_failover_regions:
            numbers.setdefault(region, len(numbers))
        wanted = set(configuration.potential_failover_regions)
        columns = panes.columns()
        place = np.array([numbers[t] if t in wanted else -1 for t in panes.targets], np.int64)[columns["target_index"]]
        outcomes = columns["outcomes"]
        rows = np.stack(
            (
                columns["pane_at_ms"] // self.step_ms,
                place,
                outcomes[:, Outcome.ANSWERED],
                outcomes[:, _FAILURES].sum(axis=1),
                columns["rtt_sum_us"],
            ),
            axis=1,
        ).astype(np.int64)
        rows = rows[(place >= 0) & (rows[:, 2] + rows[:, 3] > 0)]
        if len(rows):
            self.rows.setdefault(primary, []).append(rows)

    def course(self, primary: str, timeout_ms: float) -> tuple[Course, Array]:
        """What the primary's candidates cost, and (steps,) when each step began."""
        candidates = tuple(self._candidates[primary])
        second, place, answered, failed, sum_us = np.concatenate(self.rows[primary]).T
        seconds, row = np.unique(second, return_inverse=True)
        shape = len(seconds), len(candidates)
        at = row * len(candidates) + place
        total = {
            name: np.bincount(at, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
            for name, values in (("answered", answered), ("failed", failed), ("sum_us", sum_us))
        }
        sent = total["answered"] + total["failed"]
        with np.errstate(invalid="ignore"):
            waited_ms = np.minimum(total["sum_us"] / 1000, total["answered"] * timeout_ms)
            cost_ms = (waited_ms + total["failed"] * timeout_ms) / sent
            lost_ratio = total["failed"] / sent
        cost_ms, lost_ratio = (_carried(v, seconds * self.step_ms) for v in (cost_ms, lost_ratio))
        known = np.isfinite(cost_ms)
        course = Course(candidates, np.where(known, cost_ms, timeout_ms), np.where(known, lost_ratio, 1.0))
        return course, seconds * self.step_ms


def _carried(values: Array, at_ms: Array) -> Array:
    """(steps, candidates) with each NaN replaced by its column's last value, if that is no older than CARRIED_MS."""
    steps = np.arange(len(values))[:, None]
    latest = np.maximum.accumulate(np.where(np.isnan(values), -1, steps), axis=0)
    fresh = (latest >= 0) & (at_ms[:, None] - at_ms[latest] <= CARRIED_MS)
    return np.where(fresh, np.take_along_axis(values, latest, axis=0), np.nan)
