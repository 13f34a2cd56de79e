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
from streams.core.paths import EDGES_MS, MEANS, SUM, Paths

_QUANTILE: Final = 0.95
_BOUNDS_MS: Final = np.concatenate(([0.0], EDGES_MS, [2 * EDGES_MS[-1]]))
_WIDTHS_MS: Final = np.diff(_BOUNDS_MS)
_REMEMBERED_MIN: Final = 1e-6  # the same of the slow window
_HEARD_MIN: Final = 1e-3  # of answers left in the fast window: a mean of less is a mean of nearly nothing
# How surely losses must be proven (one-sided normal quantiles): those of now to 99 %, so that one lost probe moves
# nothing; the long memory, which counts episodes, may be believed at 80 %.
_LOSS_Z: Final = np.array([[2.33], [0.84]])
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
    c, target, agent = paths.columns, paths.columns["target"], paths.columns["agent"]
    heard_at = c["heard_at_observed_ms"]
    age = observed_ms - heard_at  # infinite: never
    reports = age <= policy.stale_after_ms
    silent_at_all = reports & (c["unanswered_run"] + c["shared_run"] >= policy.down_after_probes)
    suspect, world = _suspects(agent, len(paths.agents), reports, silent_at_all)
    # What an agent lost together with all the rest is held against a path only if it was the world.
    silent = silent_at_all if world else reports & (c["unanswered_run"] >= policy.down_after_probes)
    some_suspect = np.count_nonzero(suspect) > 0
    believed = reports & ~suspect[agent] if some_suspect else reports

    reporting = np.bincount(target, believed, targets)
    trusted = reporting > 0
    heard = np.full(targets, -np.inf)
    np.maximum.at(heard, target, heard_at)
    counts = believed
    if np.count_nonzero(trusted) < targets:
        # Of a target that nobody believed reports, the last that was heard is kept: its average did not change since.
        lately = np.isfinite(heard_at) & (
            np.where(np.isfinite(heard), heard, 0)[target] - heard_at <= policy.stale_after_ms
        )
        counts = np.where(trusted[target], believed, lately)
    unanswered: Array = np.zeros(targets)
    vetoed: Array = np.zeros(targets, bool)
    if np.count_nonzero(silent):
        unanswered = np.bincount(target, silent & believed, targets)
        must = np.array([a in policy.must_be_healthy for a in paths.agents])[agent]
        vetoed = np.bincount(target, silent & believed & must, targets) > 0

    latency, slow_latency, loss, now_loss, variation, error = _agreed(
        _values(paths), counts, paths.slots(targets), targets, policy.quorum_ratio
    )
    fresh = np.where(counts, paths.sums[SUM["slow_sent"]] * np.exp(age / -policy.slow_tau_ms), 0.0)
    samples = np.bincount(target, fresh, targets)
    return PathMetrics(
        latency_ms=np.exp(latency),
        slow_latency_ms=np.exp(slow_latency),
        loss_ratio=loss,
        fast_loss_ratio=now_loss,
        delay_variation_ms=variation,
        log_latency_error=error,
        samples=samples,
        confidence=samples / (samples + policy.confidence_samples),
        age_ms=np.where(heard == -np.inf, np.nan, observed_ms - heard),
        trusted=trusted,
        down=trusted & (unanswered >= needed(reporting, policy.quorum_ratio)),
        vetoed=vetoed,
        suspicion_ratio=unanswered / np.maximum(reporting, 1),
        suspects=tuple(sorted(paths.agents[i] for i in np.flatnonzero(suspect))) if some_suspect else (),
    )


def _values(paths: Paths) -> Array:
    """(6, views): ln latency, ln slow latency, loss, loss now, delay variation, standard error of ln latency."""
    sums = paths.sums
    with np.errstate(divide="ignore", invalid="ignore"):
        fast, slow, step, _, _ = sums[:MEANS] / sums[MEANS : 2 * MEANS]
    fast_answered, slow_answered = sums[MEANS : MEANS + 2]
    slow[slow_answered <= _REMEMBERED_MIN] = np.nan
    losses = slice(MEANS - 2, MEANS), slice(2 * MEANS - 2, 2 * MEANS)
    now_loss, slow_loss = proven_share(sums[losses[0]], sums[losses[1]], _LOSS_Z)
    error = _MEAN_TO_DEVIATION * step / np.sqrt(np.maximum(2 * sums[SUM["fast_panes"]] - 1, 1))
    latency = np.where(fast_answered > _HEARD_MIN, fast, slow)
    return np.array((latency, slow, np.fmax(now_loss, slow_loss), now_loss, _quantile_ms(paths.variation), error))


def needed(reporting: Array, quorum_ratio: float) -> Array:
    """How many agents have to agree, of so many that report: the ratio, and where several report never one alone."""
    return np.maximum(np.ceil(quorum_ratio * reporting - 1e-9), np.minimum(2, reporting)).astype(np.int64)


def _suspects(agent: Array, agents: int, reports: Array, silent: Array) -> tuple[Array, bool]:
    """(agents,) bool: gets no answer from any of several targets, or fell silent beside others; and: all of several."""
    reporting = np.bincount(agent, weights=reports, minlength=agents)
    alive = reporting > 0
    if not np.count_nonzero(silent):
        return ~alive & alive.any(), False
    unanswered = np.bincount(agent, weights=silent, minlength=agents)
    gone = (reporting >= 2) & (unanswered == reporting)
    world = bool(gone.sum() >= 2 and gone.sum() == alive.sum())
    return (gone & (not world)) | (~alive & alive.any()), world


def _agreed(values: Array, counts: Array, slots: tuple[Array, int], targets: int, quorum_ratio: float) -> Array:
    """(metrics, targets) from (metrics, views): what a quorum of those that have a value finds so high or higher.

    NaN where none has. Views stand in a table of targets by agents, so it is a sort along short rows.
    """
    place, width = slots
    table = np.full((len(values), targets * width), np.nan)
    table[:, place] = np.where(counts, values, np.nan)
    if width == 1:
        return table
    cells = np.sort(table.reshape(len(values), targets, width), axis=2)  # NaN last
    known = width - np.isnan(cells).sum(axis=2)
    at = np.maximum(known - needed(np.arange(width + 1), quorum_ratio)[known], 0)
    return cells.reshape(-1)[np.arange(0, cells.size, width) + at.reshape(-1)].reshape(at.shape)  # type: ignore[no-any-return]


def _quantile_ms(counts: Array) -> Array:
    """(views,) the 95th percentile of each row of bins, interpolated within its bin; NaN for an empty row."""
    bins = counts.shape[1]
    reached = np.cumsum(counts, axis=1)
    total = reached[:, -1]
    wanted = _QUANTILE * total
    at = np.minimum((reached < wanted[:, None]).sum(axis=1), bins - 1)
    cell = np.arange(0, counts.size, bins) + at
    count = counts.reshape(-1)[cell]
    with np.errstate(divide="ignore", invalid="ignore"):
        into = np.minimum(np.maximum(1 - (reached.reshape(-1)[cell] - wanted) / count, 0.0), 1.0)
    return np.where(total > _REMEMBERED_MIN, _BOUNDS_MS[at] + into * _WIDTHS_MS[at], np.nan)
