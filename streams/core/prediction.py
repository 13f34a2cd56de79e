"""Disruptions learnt online, in shadow: published beside the rankings, without influence on them.

Every `prediction_every_ms` each path that is measured and not disrupted gets a probability of a disruption within the
horizon. What came of it is known only when the horizon is over: until then the features wait, in journal time, and
the model learns from them with the label that arrived late. A path already disrupted gives no label.

The model is river's logistic regression on standardised features. Its state is a few numbers, saved as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from river import linear_model, optim, preprocessing, utils

from schemas.records import Array, DisruptionPrediction, PathPrediction, Policy
from streams.core.numbers import significant
from streams.core.outcomes import Climatology, Outcomes
from streams.core.views import PathMetrics

MODEL: Final = "river-logistic-1"
# Sorted: river adds up in the order of insertion, and a restored model must add up in the same.
FEATURES: Final = ("bias_recent", "delay_variation", "fast_loss", "latency_ratio", "slow_loss")
_LEARNING_RATE: Final = 0.02
_INTERCEPT_BEFORE_LABELS: Final = (
    -4.6
)  # ln(0.01 / 0.99): before it has learnt, a disruption is rare and not a coin's toss
# Of so many labels that are due at a tick: learning costs 40 us each, and a thousand paths say much the same.
_LEARN_MAX: Final = 4
_RECENT_TAU_MS: Final = 600_000.0


class Predictor:
    """One model for all paths of a primary, and the predictions whose labels are not known yet."""

    def __init__(self, targets: int) -> None:
        self._scaler = preprocessing.StandardScaler()
        self._model = linear_model.LogisticRegression(
            optimizer=optim.SGD(_LEARNING_RATE), l2=1e-4, intercept_init=_INTERCEPT_BEFORE_LABELS
        )
        self.labels_learnt = 0
        self._next_at_ms = 0
        self._seen_at_ms = 0
        self._climatology = Climatology(targets)
        self._resize(targets)

    def _resize(self, targets: int) -> None:
        self._calm = False  # nobody is disrupted, nor was lately: nothing to fade
        self._recent = np.zeros(targets)  # fading count of a path's own disruptions: they come in clusters
        self._disrupted = np.zeros(targets, bool)
        self._pending_at_ms = np.empty(0, np.int64)
        self._pending = np.empty((0, targets, len(FEATURES)))
        self._hit = np.empty((0, targets), bool)
        self._said = np.empty((0, 2, targets))  # probability and climatology, NaN where not predicted

    def step(
        self, primary: str, regions: list[str], m: PathMetrics, policy: Policy, now_ms: int
    ) -> DisruptionPrediction | None:
        """One tick: note disruptions, learn from labels that are due, predict when it is time."""
        return self.steps(primary, regions, m, policy, [now_ms])[0]

    def steps(
        self,
        primary: str,
        regions: list[str],
        m: PathMetrics,
        policy: Policy,
        now_ms: Sequence[int],
        *,
        judge: Callable[[Outcomes], None] | None = None,
    ) -> list[DisruptionPrediction | None]:
        """Several ticks one after the other; what `m` has is (ticks * targets,), tick by tick.

        `judge` is told what came of each earlier prediction, in order, as soon as that is known.
        """
        disrupted: Array = _disrupted(m, policy).reshape(len(now_ms), len(regions))
        some: list[bool] = np.any(disrupted, axis=1).tolist()
        found: list[DisruptionPrediction | None] = []
        for number, at_ms in enumerate(now_ms):
            self._note(disrupted[number], at_ms, some=some[number])
            self._learn(at_ms - policy.prediction_horizon_ms, at_ms, judge)
            if at_ms < self._next_at_ms:
                found.append(None)
                continue
            self._next_at_ms = (at_ms // policy.prediction_every_ms + 1) * policy.prediction_every_ms
            cells = slice(number * len(regions), (number + 1) * len(regions))
            found.append(self._predict(primary, regions, m.part(cells), policy, at_ms))
        return found

    def _note(self, disrupted: Array, now_ms: int, *, some: bool) -> None:
        """Who is disrupted now, if some are."""
        if some or not self._calm:
            fade = np.exp(-(now_ms - self._seen_at_ms) / _RECENT_TAU_MS) if self._seen_at_ms else 1.0
            self._recent = self._recent * fade + (disrupted & ~self._disrupted)
            self._hit |= disrupted
            self._calm = not (some or np.count_nonzero(self._recent))
        self._disrupted, self._seen_at_ms = disrupted, now_ms

    def _learn(self, due_at_ms: int, now_ms: int, judge: Callable[[Outcomes], None] | None) -> None:
        if not len(self._pending_at_ms) or self._pending_at_ms[0] > due_at_ms:
            return
        due = int(self._pending_at_ms.searchsorted(due_at_ms, "right"))
        self._judge(due, now_ms, judge)
        features = self._pending[:due].reshape(-1, len(FEATURES))
        hits = self._hit[:due].reshape(-1)
        known = np.flatnonzero(~np.isnan(features[:, 0]))  # else not predicted: not measured, or disrupted already
        if len(known) > _LEARN_MAX:
            known = np.roll(known, -self.labels_learnt)[:: -(-len(known) // _LEARN_MAX)]
        for row, hit in zip(features[known].tolist(), hits[known].tolist(), strict=True):
            x = dict(zip(FEATURES, row, strict=True))
            self._scaler.learn_one(x)
            self._model.learn_one(self._scaler.transform_one(x), hit)
            self.labels_learnt += 1
        self._pending_at_ms, self._pending, self._hit = self._pending_at_ms[due:], self._pending[due:], self._hit[due:]
        self._said = self._said[due:]

    def _judge(self, due: int, now_ms: int, judge: Callable[[Outcomes], None] | None) -> None:
        """What came of the first so many predictions that wait."""
        for said_at_ms, said, hit in zip(self._pending_at_ms[:due].tolist(), self._said, self._hit, strict=False):
            path = np.flatnonzero(~np.isnan(said[0]))
            outcomes = Outcomes(said_at_ms, now_ms, path, said[0, path], said[1, path], hit[path])
            self._climatology.learn(path, outcomes.hit)
            if judge is not None:
                judge(outcomes)

    def _probabilities(self, features: Array) -> Array:
        """(rows,) what the model says of each row, as river would one by one (13 us each)."""
        deviation = np.sqrt([self._scaler.vars.get(f, 0.0) for f in FEATURES])
        mean = np.array([self._scaler.means.get(f, 0.0) for f in FEATURES])
        scaled = np.divide(features - mean, deviation, out=np.zeros_like(features), where=deviation > 0)
        weights = np.array([self._model.weights.get(f, 0.0) for f in FEATURES])
        raw = (scaled * weights).sum(axis=1) + self._model.intercept
        return 1.0 / (1.0 + np.exp(np.clip(-raw, -500, 500)))  # type: ignore[no-any-return]

    def _predict(
        self, primary: str, regions: list[str], m: PathMetrics, policy: Policy, now_ms: int
    ) -> DisruptionPrediction:
        measured = ~np.isnan(m.latency_ms) & (m.age_ms <= policy.stale_after_ms) & ~self._disrupted
        features = np.full((len(regions), len(FEATURES)), np.nan)
        if measured.any():
            # Panes count whole microseconds, a shorter one is 0, and its logarithm would spoil the model for ever.
            fast, slow = np.maximum(m.latency_ms, 1e-3), np.maximum(m.slow_latency_ms, 1e-3)
            rows = np.column_stack(
                (
                    np.log1p(self._recent),
                    np.log1p(np.nan_to_num(m.delay_variation_ms)),
                    np.nan_to_num(m.fast_loss_ratio),
                    np.log(np.where(measured, fast / slow, 1.0)),
                    np.nan_to_num(m.loss_ratio),
                )
            )
            features[measured] = np.nan_to_num(rows[measured])
        self._pending_at_ms = np.append(self._pending_at_ms, now_ms)
        self._pending = np.concatenate((self._pending, features[None]))
        self._hit = np.concatenate((self._hit, np.zeros((1, len(regions)), bool)))
        said = np.full((1, 2, len(regions)), np.nan)
        said[0, 0, measured] = significant(self._probabilities(features[measured]))
        said[0, 1, measured] = self._climatology.rates()[measured]
        self._said = np.concatenate((self._said, said))
        paths = [PathPrediction(regions[i], float(said[0, 0, i])) for i in np.flatnonzero(measured).tolist()]
        return DisruptionPrediction(
            primary, now_ms, policy.prediction_horizon_ms, MODEL, 0.0, self.labels_learnt, paths
        )

    def renumber(self, place: dict[int, int], targets: int) -> None:
        """Targets have new numbers: the model stays, what waits for labels starts anew."""
        recent, disrupted = self._recent, self._disrupted
        self._climatology = self._climatology.renumber(place, targets)
        self._resize(targets)
        for old, new in place.items():
            self._recent[new], self._disrupted[new] = recent[old], disrupted[old]

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        weights = self._model.weights
        scalars = {
            "model": MODEL,
            "weights": [weights.get(f, 0.0) for f in FEATURES] if weights else [],
            "intercept": self._model.intercept,
            "iterations": self._model.optimizer.n_iterations,
            "counts": [self._scaler.counts.get(f, 0) for f in FEATURES],
            "means": [self._scaler.means.get(f, 0.0) for f in FEATURES],
            "vars": [self._scaler.vars.get(f, 0.0) for f in FEATURES],
            "labels_learnt": self.labels_learnt,
            "next_at_ms": self._next_at_ms,
            "seen_at_ms": self._seen_at_ms,
        }
        arrays = {
            "recent": self._recent,
            "disrupted": self._disrupted,
            "pending_at_ms": self._pending_at_ms,
            "pending": self._pending,
            "hit": self._hit,
            "said": self._said,
            "labels": self._climatology.labels,
            "hits": self._climatology.hits,
        }
        return scalars, arrays

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array]) -> Predictor:
        """The state again; another model's numbers are left, and this one learns from the start."""
        predictor = cls(len(arrays["recent"]))
        if scalars["model"] != MODEL or "said" not in arrays:
            return predictor
        if scalars["weights"]:
            predictor._model._weights = utils.VectorDict(dict(zip(FEATURES, scalars["weights"], strict=True)))
        predictor._model.intercept = scalars["intercept"]
        predictor._model.optimizer.n_iterations = scalars["iterations"]
        for name in ("counts", "means", "vars"):
            getattr(predictor._scaler, name).update(
                {f: v for f, v in zip(FEATURES, scalars[name], strict=True) if scalars["labels_learnt"]}
            )
        predictor.labels_learnt = scalars["labels_learnt"]
        predictor._next_at_ms, predictor._seen_at_ms = scalars["next_at_ms"], scalars["seen_at_ms"]
        predictor._recent, predictor._disrupted = arrays["recent"], arrays["disrupted"]
        predictor._pending_at_ms, predictor._pending, predictor._hit = (
            arrays["pending_at_ms"], arrays["pending"], arrays["hit"]
        )  # fmt: skip
        predictor._said = arrays["said"]
        predictor._climatology.labels, predictor._climatology.hits = arrays["labels"], arrays["hits"]
        return predictor


def _disrupted(m: PathMetrics, policy: Policy) -> Array:
    """(targets,) bool: lost as much, or slower than its own slow average by ratio and by amount."""
    slow = m.latency_ms > np.maximum(
        m.slow_latency_ms * policy.disruption_latency_ratio, m.slow_latency_ms + policy.disruption_latency_excess_ms
    )
    return (m.fast_loss_ratio >= policy.disruption_loss_ratio) | slow | m.down
