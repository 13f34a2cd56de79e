"""What a primary's agents say together about each target: one agent's view is a suspicion, a quorum's is a fact.

Of each metric the value counts that a quorum of the reporting agents finds to be so bad *or worse*: with three agents
and a majority the middle one, with two the better one. So no agent alone makes a path look bad, nor look good.

An agent that gets no answer from any of several targets has lost its own network, not eleven regions: it is suspect,
and its view does not count. Only if several agents report and all of them get no answer at all is it the world.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.records import Array, Policy
from streams.core.numbers import proven_share
from streams.core.paths import EDGES_MS, Paths

_QUANTILE: Final = 0.95
_HEARD_MIN: Final = 1e-3  # of answers left in the fast window: a mean of less is a mean of nearly nothing
# How surely losses must be proven (one-sided normal quantiles): those of now to 97 %, so that one lost probe moves
# nothing; the long memory, which counts episodes, may be believed at 63 %.
_NOW_Z: Final = 1.9
_SLOW_Z: Final = 0.33
_MEAN_TO_DEVIATION: Final = 0.886  # mean distance of two normal values to their standard deviation: sqrt(pi) / 2


@dataclass(frozen=True, slots=True)
class PathMetrics:
    """What is known of each target at a moment; every array is (targets,), NaN where nothing is."""

    latency_ms: Array  # fast geometric mean; the slow one where nothing was answered lately
    slow_latency_ms: Array
    loss_ratio: Array  # worse of fast and slow, each as far as the probes prove it
    fast_loss_ratio: Array
    delay_variation_ms: Array
    log_latency_error: Array  # standard error of ln latency
    samples: Array  # decayed count in the slow window
    confidence: Array  # 0 to 1
    age_ms: Array  # observed time since the last samples
    trusted: Array  # bool: an agent that is not suspect reports it
    down: Array  # bool: a quorum of the agents that report gets no answer at all
    vetoed: Array  # bool: an agent that must be able to reach it cannot
    suspicion_ratio: Array  # share of the reporting agents that get no answer; 0 where none reports
    suspects: tuple[str, ...] = ()  # agents whose view does not count, by name


def metrics(paths: Paths, targets: int, policy: Policy, observed_ms: float) -> PathMetrics:
    """All agents' views joined by target. Shapes: (views,) in the columns, (targets,) out."""
    c, target = paths.columns, paths.columns["target"]
    age = observed_ms - c["heard_at_observed_ms"]  # infinite: never
    reports = age <= policy.stale_after_ms
    silent_at_all = reports & (c["unanswered_run"] + c["shared_run"] >= policy.down_after_probes)
    suspect, world = _suspects(c["agent"], len(paths.agents), reports, silent_at_all)
    # What an agent lost together with all the rest is held against a path only if it was the world.
    silent = silent_at_all if world else reports & (c["unanswered_run"] >= policy.down_after_probes)
    believed = reports & ~suspect[c["agent"]]

    heard = np.full(targets, -np.inf)
    np.maximum.at(heard, target, c["heard_at_observed_ms"])
    trusted = np.bincount(target, weights=believed, minlength=targets) > 0
    # Of a target that nobody believed reports, the last that was heard is kept: its average did not change since.
    ever = np.isfinite(c["heard_at_observed_ms"])
    lately = heard[target] <= c["heard_at_observed_ms"] + policy.stale_after_ms
    counts = np.where(trusted[target], believed, lately & ever)
    table = _Table(target, targets, counts, policy.quorum_ratio)

    with np.errstate(divide="ignore", invalid="ignore"):
        fast_log = np.where(c["fast_answered"] > _HEARD_MIN, c["fast_log"] / c["fast_answered"], np.nan)
        slow_log = np.where(c["slow_answered"] > 1e-6, c["slow_log"] / c["slow_answered"], np.nan)
        deviation = _MEAN_TO_DEVIATION * c["slow_step_log"] / c["slow_steps"]
        error = deviation / np.sqrt(np.maximum(2 * c["fast_panes"] - 1, 1))
    fast_loss = proven_share(c["loss_failed"], c["loss_sent"], _NOW_Z)
    loss = np.fmax(fast_loss, proven_share(c["slow_failed"], c["slow_sent"], _SLOW_Z))
    slow_sent = c["slow_sent"] * np.exp(-np.where(counts, age, 0.0) / policy.slow_tau_ms)
    samples = np.bincount(target, weights=slow_sent * counts, minlength=targets)
    heard_age = np.where(np.isfinite(heard), observed_ms - heard, np.nan)

    reporting = np.bincount(target, weights=believed, minlength=targets)
    unanswered = np.bincount(target, weights=silent & believed, minlength=targets)
    must = np.isin(c["agent"], [i for i, a in enumerate(paths.agents) if a in policy.must_be_healthy])
    return PathMetrics(
        latency_ms=np.exp(table.agreed(np.where(np.isnan(fast_log), slow_log, fast_log))),
        slow_latency_ms=np.exp(table.agreed(slow_log)),
        loss_ratio=table.agreed(loss),
        fast_loss_ratio=table.agreed(fast_loss),
        delay_variation_ms=table.agreed(_quantile_ms(paths.variation)),
        log_latency_error=table.agreed(error),
        samples=samples,
        confidence=samples / (samples + policy.confidence_samples),
        age_ms=heard_age,
        trusted=trusted,
        down=(reporting > 0) & (unanswered >= needed(reporting, policy.quorum_ratio)),
        vetoed=np.bincount(target, weights=silent & believed & must, minlength=targets) > 0,
        suspicion_ratio=unanswered / np.maximum(reporting, 1),
        suspects=tuple(sorted(paths.agents[i] for i in np.flatnonzero(suspect))),
    )


def needed(reporting: Array, quorum_ratio: float) -> Array:
    """How many agents have to agree, of so many that report: the ratio, and where several report never one alone."""
    return np.maximum(np.ceil(quorum_ratio * reporting - 1e-9), np.minimum(2, reporting)).astype(np.int64)


def _suspects(agent: Array, agents: int, reports: Array, silent: Array) -> tuple[Array, bool]:
    """(agents,) bool: gets no answer from any of several targets, or fell silent beside others; and: all of several."""
    reporting = np.bincount(agent, weights=reports, minlength=agents)
    unanswered = np.bincount(agent, weights=silent, minlength=agents)
    alive = reporting > 0
    gone = (reporting >= 2) & (unanswered == reporting)
    world = bool(gone.sum() >= 2 and gone.sum() == alive.sum())
    return (gone & (not world)) | (~alive & alive.any()), world


class _Table:
    """Views as a table of targets by agents, so that what agents agree on is a sort along short rows."""

    def __init__(self, target: Array, targets: int, counts: Array, quorum_ratio: float) -> None:
        self._target, self._counts = target, counts
        order = np.argsort(target, kind="stable")
        views = np.bincount(target, minlength=targets)
        first = np.cumsum(views) - views
        self._slot = np.empty(len(target), np.int64)
        self._slot[order] = np.arange(len(target)) - first[target[order]]
        self._shape = (targets, max(int(views.max(initial=0)), 1))
        self._quorum_ratio = quorum_ratio

    def agreed(self, values: Array) -> Array:
        """(targets,) from (views,): the value that a quorum of those that have one finds so high or higher; or NaN."""
        table = np.full(self._shape, np.nan)
        table[self._target, self._slot] = np.where(self._counts, values, np.nan)
        if self._shape[1] == 1:
            return table[:, 0]
        table.sort(axis=1)  # NaN last
        known = (~np.isnan(table)).sum(axis=1)
        at = np.maximum(known - needed(known, self._quorum_ratio), 0)
        return np.take_along_axis(table, at[:, None], axis=1)[:, 0]


def _quantile_ms(counts: Array) -> Array:
    """(views,) the 95th percentile of each row of bins, interpolated within its bin; NaN for an empty row."""
    reached = np.cumsum(counts, axis=1)
    total = reached[:, -1]
    wanted = _QUANTILE * total
    at = (reached < wanted[:, None]).sum(axis=1).clip(0, counts.shape[1] - 1)
    rows = np.arange(len(counts))
    edges = np.concatenate(([0.0], EDGES_MS, [2 * EDGES_MS[-1]]))
    below = reached[rows, at] - counts[rows, at]
    with np.errstate(divide="ignore", invalid="ignore"):
        into = np.clip((wanted - below) / counts[rows, at], 0, 1)
        value = edges[at] + into * (edges[at + 1] - edges[at])
    return np.where(total > 1e-6, value, np.nan)
