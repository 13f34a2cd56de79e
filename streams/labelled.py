"""Round-trip times in which a person marked where the level changed, and what the predictor makes of them.

    probe,at_utc,rtt_ms,change_point
    11119,2016-10-18T00:01:00,179.011235,0        an empty rtt_ms is no answer; 1: the level changes here

A file is run through the code that the engine runs: probes become panes, panes become path state, and the `Predictor`
predicts after every step and learns when the next three are over. One thing differs: what a disruption is, here the
person says. The policy is the default one, with all durations stretched so that a step is a moment of prediction.

Nothing is mended: the first line that says something else is an error with its file and number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from schemas.errors import TraceError
from schemas.records import Array, Outcome, Policy, ProbeBatch
from schemas.validate import RTT_MS_MAX
from streams.core.influence import Influence
from streams.core.outcomes import Outcomes
from streams.core.panes import Flush
from streams.core.paths import Paths
from streams.core.prediction import Predictor
from streams.core.scorecard import Scorecard
from streams.core.skill import auc, auc_within, brier, ece, skill, skill_low
from streams.core.views import PathMetrics, metrics
from streams.trace_files import csv_rows

HEADER: Final = ("probe", "at_utc", "rtt_ms", "change_point")
HORIZON_STEPS: Final = 3
SKIP_STEPS: Final = 200  # of each probe: what a model says before it has learnt anything is not counted
_STEPS_MAX: Final = 1_000_000
_BLOCK_STEPS: Final = 180  # of a probe: half a day at 240 s, well beyond how long disruptions come in clusters
_SEED: Final = 20161018


@dataclass(frozen=True, slots=True)
class Labelled:
    """Probes side by side; arrays (steps, probes)."""

    probes: tuple[str, ...]
    began_ms: int  # Unix; of the first step
    step_ms: int
    there: Array  # bool: the file says something
    rtt_ms: Array  # NaN where nothing was answered
    begun: Array  # bool: change points


@dataclass(frozen=True, slots=True)
class Predicted:
    """What was said and what came, the steps that count; arrays (predictions,)."""

    path: Array
    step: Array
    probability: Array
    climatology: Array
    hit: Array


# -- the file


def read_labelled(path: Path) -> Labelled:
    """A file's probes on one grid of steps; raises TraceError with the line."""
    rows = csv_rows(path)
    header = next(rows, (1, []))[1]
    if tuple(header) != HEADER:
        raise TraceError(f"the header is {','.join(header)[:80]!r}, not {','.join(HEADER)!r}", where=f"{path}, line 1")
    names: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    columns: list[tuple[int, int, float, bool]] = []
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(HEADER):
            raise TraceError(f"there are {len(row)} values, not {len(HEADER)}", where=where)
        if not row[0]:
            raise TraceError("probe is empty", where=where)
        number, at_s = names.setdefault(row[0], len(names)), _at_s(row[1], where)
        if (number, at_s) in seen:
            raise TraceError(f"probe {row[0][:40]} was at {row[1]} already", where=where)
        seen.add((number, at_s))
        if row[3] not in ("0", "1"):
            raise TraceError(f"change_point is {row[3][:40]!r}, neither 0 nor 1", where=where)
        columns.append((number, at_s, _rtt_ms(row[2], where), row[3] == "1"))
    if not columns:
        raise TraceError("there is no line below the header", where=str(path))
    probe, at, rtt_ms, begun = (np.array(column) for column in zip(*columns, strict=True))
    return _on_a_grid(tuple(names), probe, at, rtt_ms, begun, where=str(path))


def _on_a_grid(
    names: tuple[str, ...], probe: Array, at_s: Array, rtt_ms: Array, begun: Array, *, where: str
) -> Labelled:
    order = np.lexsort((at_s, probe))
    gaps = np.diff(at_s[order])[np.diff(probe[order]) == 0]
    step_s = max(int(np.median(gaps)), 1) if len(gaps) else 240
    step = (at_s - at_s.min()) // step_s
    for each in range(len(names)):  # two of a probe may fall into one step, by a second
        rows = np.flatnonzero(probe == each)
        rows = rows[np.argsort(at_s[rows], kind="stable")]
        count = np.arange(len(rows))
        step[rows] = np.maximum.accumulate(step[rows] - count) + count
    steps = int(step.max()) + 1
    if steps * len(names) > max(_STEPS_MAX, 20 * len(probe)):
        raise TraceError(f"it has {len(probe)} lines for {steps} steps of {step_s} s", where=where)
    shape = steps, len(names)
    there, marked, rtt = np.zeros(shape, bool), np.zeros(shape, bool), np.full(shape, np.nan)
    there[step, probe], marked[step, probe], rtt[step, probe] = True, begun, rtt_ms
    return Labelled(names, int(at_s.min()) * 1000, step_s * 1000, there, rtt, marked)


def _at_s(text: str, where: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(f"at_utc is {text[:40]!r}, not a time like 2016-10-18T00:01:00", where=where) from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def _rtt_ms(text: str, where: str) -> float:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = -1.0
    if text and not 0 <= value < RTT_MS_MAX:  # false for NaN: no answer is empty and not a word
        raise TraceError(f"rtt_ms is {text[:40]!r}, neither 0 to {RTT_MS_MAX} nor empty", where=where)
    return value


# -- the run


def policy_of(step_ms: int) -> Policy:
    """The default policy, slowed down or sped up until a step is a moment of prediction and the horizon is three."""
    p = Policy()
    times = step_ms / p.prediction_every_ms
    return replace(
        p,
        fast_tau_ms=p.fast_tau_ms * times,
        slow_tau_ms=p.slow_tau_ms * times,
        stale_after_ms=step_ms,
        prediction_every_ms=step_ms,
        prediction_horizon_ms=HORIZON_STEPS * step_ms,
    )


def predict(labelled: Labelled) -> Predicted:
    """Every step in order: take in what the probes saw, learn from what is three steps old, predict."""
    policy, predictor, found = policy_of(labelled.step_ms), Predictor(len(labelled.probes)), list[Outcomes]()
    for now_ms, seen, begun in moments(labelled, policy):
        predictor.told(seen, begun, policy, now_ms, found.append)
    return _that_count(labelled, found)


def moments(labelled: Labelled, policy: Policy) -> Iterator[tuple[int, PathMetrics, Array]]:
    """The end of each step, what is known of the paths then, and (probes,) whose change the person marked in it."""
    count = len(labelled.probes)
    paths, regions = Paths(), [f"probe-{number}" for number in range(count)]
    numbers = {region: number for number, region in enumerate(regions)}
    for step, (there, rtt_ms, begun) in enumerate(zip(labelled.there, labelled.rtt_ms, labelled.begun, strict=True)):
        at_ms = labelled.began_ms + step * labelled.step_ms
        now_ms = at_ms + labelled.step_ms
        flush = Flush(pane_ms=labelled.step_ms, ahead_ms_max=0, lateness_ms_max=0)
        flush.add(_batch(regions, there, rtt_ms, at_ms), step, at_ms)
        for panes in flush.condense()[0].values():
            paths.fold(panes, numbers, policy, now_ms, float(now_ms))
        yield now_ms, metrics(paths, count, policy, float(now_ms)), begun


def _batch(regions: list[str], there: Array, rtt_ms: Array, at_ms: int) -> ProbeBatch:
    seen = np.flatnonzero(there)
    zeros = np.zeros(len(seen))
    rtt_ms = np.maximum(rtt_ms[seen], 1e-3).astype(np.float32)
    return ProbeBatch.of(
        agent_id="file",
        primary_region="file",
        started_at_ms=at_ms,
        targets=regions,
        methods=["file"],
        target_index=seen,
        method_index=zeros,
        sent_offset_ms=zeros,
        rtt_ms=rtt_ms,
        outcome=np.where(np.isnan(rtt_ms), Outcome.TIMED_OUT, Outcome.ANSWERED),
        code=zeros,
    )


def that_count(labelled: Labelled) -> Array:
    """(steps, probes) bool: not a probe's first steps, nor its last, whose horizon the file does not cover."""
    before = np.cumsum(labelled.there, axis=0)
    return labelled.there & (before > SKIP_STEPS) & (before[-1] - before >= HORIZON_STEPS)  # type: ignore[no-any-return]


def _that_count(labelled: Labelled, outcomes: list[Outcomes]) -> Predicted:
    counts = that_count(labelled)
    path = np.concatenate([o.path for o in outcomes] or [np.empty(0, np.int64)])
    said = np.array([(o.said_at_ms - labelled.began_ms) // labelled.step_ms - 1 for o in outcomes], np.int64)
    step = np.repeat(said, [len(o.path) for o in outcomes])
    keep = counts[step, path]
    columns = (
        np.concatenate([getattr(o, name) for o in outcomes] or [np.empty(0)])
        for name in ("probability", "climatology", "hit")
    )
    return Predicted(path[keep], step[keep], *(column[keep] for column in columns))


def scores(of: Predicted) -> dict[str, float | int]:
    """How good the probabilities were; NaN where nothing can be said."""
    p, usual, hit = of.probability, of.climatology, of.hit
    block = of.path * (1 + of.step.max(initial=0) // _BLOCK_STEPS) + of.step // _BLOCK_STEPS
    return {
        "auc_pooled": auc(p, hit),
        "auc_within": auc_within(p, hit, of.path),
        "brier": brier(p, hit),
        "brier_climatology": brier(usual, hit),
        "skill": skill(p, usual, hit),
        "skill_low": skill_low(p, usual, hit, block, seed=_SEED),
        "ece": ece(p, hit),
        "positives_ratio": float(hit.mean()) if len(hit) else math.nan,
        "predictions": len(hit),
    }


def influence(labelled: Labelled, of: Predicted) -> dict[str, float]:
    """What these predictions would have counted, judged as they are live: at the end of the file, and at most."""
    policy, card, now, most = policy_of(labelled.step_ms), Scorecard(len(labelled.probes)), Influence(), 0.0
    begins = np.flatnonzero(np.diff(of.step, prepend=-1))
    for begin, end in zip(begins, np.append(begins, len(of.step))[1:], strict=True):
        each = slice(begin, end)
        said_at_ms = labelled.began_ms + (int(of.step[begin]) + 1) * labelled.step_ms
        known_at_ms = said_at_ms + policy.prediction_horizon_ms
        outcomes = Outcomes(
            said_at_ms, known_at_ms, of.path[each], of.probability[each], of.climatology[each], of.hit[each]
        )
        block = card.learn(outcomes, policy.prediction_horizon_ms, policy.alarm_probability)
        if block is not None:
            now = now.step(card, block, known_at_ms)
            most = max(most, now.value)
    return {"influence": now.value, "influence_max": most}
