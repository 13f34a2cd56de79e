"""What a primary's agents say together about each target: one agent's view is a suspicion, a quorum's is a fact.

Of each metric the value counts that a quorum of the reporting agents finds to be so bad *or worse*: with three agents
and a majority the middle one, with two the better one. So no agent alone makes a path look bad, nor look good.

An agent that gets no answer from any of several targets has lost its own network, not eleven regions: it is suspect,
and its view does not count. Only if several agents report and all of them get no answer at all is it the world.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from schemas.records import Array, Policy
from streams.core.numbers import proven_share
from streams.core.paths import EDGES_MS, MEANS, SUM, Paths
from streams.core.stretch import Picture

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

    def part(self, cells: slice) -> PathMetrics:
        """Some of the targets, or one moment of several, without suspects."""
        return PathMetrics(**{name: getattr(self, name)[cells] for name in _ARRAYS})


_ARRAYS: Final = tuple(f.name for f in fields(PathMetrics))[:-1]


def metrics(paths: Paths, targets: int, policy: Policy, observed_ms: float) -> PathMetrics:
    """All agents' views joined by target, as they are now. Shapes: (views,) in the columns, (targets,) out."""
    found, suspects = metrics_at(paths, paths.picture(), targets, policy, np.array([observed_ms]))
    return replace(found, suspects=suspects[0])


def metrics_at(
    paths: Paths, picture: Picture, targets: int, policy: Policy, observed_ms: Array
) -> tuple[PathMetrics, list[tuple[str, ...]]]:
    """The same at several moments, and whose view does not count at each of them.

    Shapes: (moments, ...) in the picture, (moments,) the time, (moments * targets,) out, moment by moment.
    """
    moments, agents = len(observed_ms), len(paths.agents)
    agent, target = (
        _numbered(paths.columns["agent"], moments, agents), _numbered(paths.columns["target"], moments, targets)
    )  # fmt: skip
    cells = moments * targets
    heard_at = picture.heard_at.reshape(-1)
    age = (observed_ms[:, None] - picture.heard_at).reshape(-1)  # infinite: never
    reports = age <= policy.stale_after_ms
    unanswered_run = picture.unanswered_run.reshape(-1)
    silent_at_all = reports & (unanswered_run + picture.shared_run.reshape(-1) >= policy.down_after_probes)
    suspect, world = _suspects(agent, (moments, agents), reports, silent_at_all)
    # What an agent lost together with all the rest is held against a path only if it was the world.
    silent = silent_at_all
    if np.count_nonzero(silent_at_all):
        silent = reports & (unanswered_run >= policy.down_after_probes)
        silent |= silent_at_all & np.repeat(world, len(paths.columns["agent"]))
    some_suspect = np.count_nonzero(suspect) > 0
    believed = reports & ~suspect.reshape(-1)[agent] if some_suspect else reports

    reporting = np.bincount(target, believed, cells)
    trusted = reporting > 0
    heard = np.full(cells, -np.inf)
    np.maximum.at(heard, target, heard_at)
    counts = believed
    if np.count_nonzero(trusted) < cells:
        # Of a target that nobody believed reports, the last that was heard is kept: its average did not change since.
        lately = np.isfinite(heard_at) & (
            np.where(np.isfinite(heard), heard, 0)[target] - heard_at <= policy.stale_after_ms
        )
        counts = np.where(trusted[target], believed, lately)
    unanswered: Array = np.zeros(cells)
    vetoed: Array = np.zeros(cells, bool)
    if np.count_nonzero(silent):
        unanswered = np.bincount(target, silent & believed, cells)
        must = np.tile(np.array([a in policy.must_be_healthy for a in paths.agents]), moments)[agent]
        vetoed = np.bincount(target, silent & believed & must, cells) > 0

    sums = picture.sums[0] if moments == 1 else picture.sums.transpose(1, 0, 2).reshape(len(SUM), -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = _values(sums, picture)
    place, width = paths.slots(targets)
    latency, slow_latency, loss, now_loss, variation, error = _agreed(
        values, counts, (_numbered(place, moments, targets * width), width), cells, policy.quorum_ratio
    )
    fresh = np.where(counts, sums[SUM["slow_sent"]] * np.exp(age / -policy.slow_tau_ms), 0.0)
    samples = np.bincount(target, fresh, cells)
    return PathMetrics(
        latency_ms=np.exp(latency),
        slow_latency_ms=np.exp(slow_latency),
        loss_ratio=loss,
        fast_loss_ratio=now_loss,
        delay_variation_ms=variation,
        log_latency_error=error,
        samples=samples,
        confidence=samples / (samples + policy.confidence_samples),
        age_ms=np.where(heard == -np.inf, np.nan, (observed_ms[:, None] - heard.reshape(moments, -1)).reshape(-1)),
        trusted=trusted,
        down=trusted & (unanswered >= needed(reporting, policy.quorum_ratio)),
        vetoed=vetoed,
        suspicion_ratio=unanswered / np.maximum(reporting, 1),
    ), _names(paths, suspect) if some_suspect else [()] * moments


def _numbered(numbers: Array, moments: int, count: int) -> Array:
    """(moments * views,) numbers below `count`, those of each moment above those of the one before."""
    if moments == 1:
        return numbers
    return (np.arange(0, moments * count, count)[:, None] + numbers if count else np.tile(numbers, moments)).reshape(-1)


def _names(paths: Paths, suspect: Array) -> list[tuple[str, ...]]:
    """Of each moment the agents that (moments, agents) says are suspect, in order of name."""
    return [tuple(sorted(paths.agents[i] for i in np.flatnonzero(of))) for of in suspect]


def _values(sums: Array, picture: Picture) -> Array:
    """(6, views): ln latency, ln slow latency, loss, loss now, delay variation, standard error of ln latency.

    From (len(SUM), views), and what else is pictured, moment by moment.
    """
    fast, slow, step, _, _ = sums[:MEANS] / sums[MEANS : 2 * MEANS]
    fast_answered, slow_answered = sums[MEANS : MEANS + 2]
    slow[slow_answered <= _REMEMBERED_MIN] = np.nan
    losses = slice(MEANS - 2, MEANS), slice(2 * MEANS - 2, 2 * MEANS)
    now_loss, slow_loss = proven_share(sums[losses[0]], sums[losses[1]], _LOSS_Z)
    now_loss = np.maximum(now_loss, picture.surge_ratio.reshape(-1))
    error = _MEAN_TO_DEVIATION * step / np.sqrt(np.maximum(2 * sums[SUM["fast_panes"]] - 1, 1))
    latency = np.maximum(np.where(fast_answered > _HEARD_MIN, fast, slow), np.log(picture.level_ms.reshape(-1)))
    variation = _quantile_ms(picture.variation.reshape(-1, picture.variation.shape[-1]))
    return np.array((latency, slow, np.fmax(now_loss, slow_loss), now_loss, variation, error))


def needed(reporting: Array, quorum_ratio: float) -> Array:
    """How many agents have to agree, of so many that report: the ratio, and where several report never one alone."""
    return np.maximum(np.ceil(quorum_ratio * reporting - 1e-9), np.minimum(2, reporting)).astype(np.int64)


def _suspects(agent: Array, shape: tuple[int, int], reports: Array, silent: Array) -> tuple[Array, Array]:
    """(moments, agents) bool: gets no answer from any of several targets, or fell silent beside others.

    And (moments,) bool: all of several get none. `agent` (moments * views,) numbers those of each moment anew.
    """
    cells = shape[0] * shape[1]
    reporting = np.bincount(agent, weights=reports, minlength=cells).reshape(shape)
    alive = reporting > 0
    gone = ~alive
    if np.count_nonzero(gone):  # if all are, nobody is there to be fallen silent beside
        gone &= alive.any(axis=1, keepdims=True)
    if not np.count_nonzero(silent):
        return gone, np.zeros(shape[0], bool)
    unanswered = np.bincount(agent, weights=silent, minlength=cells).reshape(shape)
    silenced = (reporting >= 2) & (unanswered == reporting)
    world = (silenced.sum(axis=1) >= 2) & (silenced.sum(axis=1) == alive.sum(axis=1))
    return (silenced & ~world[:, None]) | gone, world


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
    into = np.minimum(np.maximum(1 - (reached.reshape(-1)[cell] - wanted) / count, 0.0), 1.0)
    return np.where(total > _REMEMBERED_MIN, _BOUNDS_MS[at] + into * _WIDTHS_MS[at], np.nan)
