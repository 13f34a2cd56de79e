"""Disruptions learnt online: how probable it is that a path is disrupted within the horizon, and what came of it.

Every `prediction_every_ms` each path that is measured and not disrupted gets a probability. What came of it is known
only when the horizon is over: until then its signs wait, in journal time, and the model learns from them with the label
that arrived late. A path already disrupted gives no label. What a disruption is, the policy says; of recorded files a
person may have said it.

    signs   (`prediction_signs.py`)   what may announce a disruption, and what is believed of it
    model   (`prediction_model.py`)   a Bayesian logistic regression on them, one for all paths of a primary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from schemas.records import Array, DisruptionPrediction, PathPrediction, Policy
from streams.core.numbers import significant
from streams.core.outcomes import Climatology, Outcomes
from streams.core.prediction_model import LogisticModel
from streams.core.prediction_signs import BELIEFS, SIGNS, Signs
from streams.core.state import part
from streams.core.views import PathMetrics

MODEL: Final = "bayes-logistic-2"
_MEMORY_MS: Final = 14 * 86_400_000.0  # time constant: networks change, and what was learnt of another says little
Judge = Callable[[Outcomes], None]


@dataclass(slots=True)
class _Waiting:
    """What was said at a moment: until it is known what came of it."""

    at_ms: int
    path: Array  # (said,) numbers of those that something was said of
    signs: Array  # (targets, SIGNS), NaN where nothing was said
    said: Array  # (2, targets): probability and climatology, likewise
    hit: Array  # (targets,) bool: disrupted since


class Predictor:
    """One model for all paths of a primary, and the predictions whose labels are not known yet."""

    def __init__(self, targets: int) -> None:
        self._model = LogisticModel(*np.array(list(BELIEFS.values())).T)
        self._signs = Signs(targets)
        self._climatology = Climatology(targets)
        self._next_at_ms = 0
        self._learnt_at_ms = 0
        self._waiting: list[_Waiting] = []
        self._run = np.zeros(targets, np.int64)  # ticks for which a path has looked disrupted
        self._all = np.arange(targets)
        self._lossy = np.zeros(targets, np.int64)  # ... because of its losses

    @property
    def labels_learnt(self) -> int:
        """So many outcomes the model has learnt from."""
        return self._model.labels

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
        judge: Judge | None = None,
    ) -> list[DisruptionPrediction | None]:
        """Several ticks one after the other; what `m` has is (ticks * targets,), tick by tick.

        `judge` is told what came of each earlier prediction, in order, as soon as that is known.
        """
        looks: Array = _looks_disrupted(m, policy).reshape(len(now_ms), len(regions))
        some = [bool(np.count_nonzero(row)) for row in looks]
        found: list[DisruptionPrediction | None] = []
        for number, at_ms in enumerate(now_ms):
            cells = slice(number * len(regions), (number + 1) * len(regions))
            if self._note(looks[number], policy, at_ms, some=some[number]):
                lossy = self._overflows(m.fast_loss_ratio[cells], policy)
                self._signs.overflowed(lossy, m.latency_ms[cells])
            self._learn(policy, at_ms, judge)
            if at_ms < self._next_at_ms:
                found.append(None)
                continue
            self._next_at_ms = (at_ms // policy.prediction_every_ms + 1) * policy.prediction_every_ms
            now = m if len(now_ms) == 1 else m.part(cells)
            probability = self._predict(now, self._run < policy.disruption_ticks, policy, at_ms)
            said = self._waiting[-1].path
            if len(said) < len(regions):
                probability, named = probability[said], [regions[i] for i in said.tolist()]
            else:
                named = regions
            paths = list(map(PathPrediction, named, probability.tolist()))
            found.append(
                DisruptionPrediction(
                    primary, at_ms, policy.prediction_horizon_ms, MODEL, 0.0, self.labels_learnt, paths
                )
            )
        return found

    def told(self, m: PathMetrics, begun: Array, policy: Policy, now_ms: int, judge: Judge | None = None) -> Array:
        """One step in which another says which paths' disruptions have just begun; every measured path is predicted.

        Shapes: (targets,) bool; returns (targets,) probabilities, NaN where nothing is measured.
        """
        if np.count_nonzero(begun):
            self._begun(begun, policy, now_ms)
        self._learn(policy, now_ms, judge)
        return self._predict(m, np.ones(len(begun), bool), policy, now_ms)

    def route_changed(self, targets: list[int], policy: Policy, now_ms: int) -> None:
        """The routes to these targets are others than before."""
        self._signs.route_changed(targets, policy, now_ms)

    def _note(self, looks: Array, policy: Policy, now_ms: int, *, some: bool) -> bool:
        """Who looks disrupted now, if some do; whether any does."""
        if some:
            self._run = np.where(looks, self._run + 1, 0)
            begun = self._run == policy.disruption_ticks
            if np.count_nonzero(begun):
                self._begun(begun, policy, now_ms)
        elif np.count_nonzero(self._run):
            self._run = np.zeros(len(looks), np.int64)
            self._lossy[:] = 0
        return some

    def _overflows(self, loss_ratio: Array, policy: Policy) -> Array:
        """(targets,) bool: has lost too much for so many ticks, as of this one."""
        lossy = loss_ratio >= policy.disruption_loss_ratio
        self._lossy = np.where(lossy, self._lossy + 1, 0)
        return self._lossy == 1  # type: ignore[no-any-return]

    def _begun(self, begun: Array, policy: Policy, now_ms: int) -> None:
        self._signs.begun(begun, policy, now_ms)
        for waiting in self._waiting:
            waiting.hit |= begun

    def _learn(self, policy: Policy, now_ms: int, judge: Judge | None) -> None:
        # Predictions whose horizons overlap see the same disruption several times.
        share = min(1.0, policy.prediction_every_ms / policy.prediction_horizon_ms)
        while self._waiting and self._waiting[0].at_ms + policy.prediction_horizon_ms <= now_ms:
            due = self._waiting.pop(0)
            path, signs, said, hit = due.path, due.signs, due.said, due.hit
            if len(path) < len(hit):  # to pick some costs as much as to learn from them
                signs, said, hit = signs[path], said[:, path], hit[path]
            self._climatology.learn(path, hit)
            keep = float(np.exp((self._learnt_at_ms - now_ms) / _MEMORY_MS)) if self._learnt_at_ms else 1.0
            self._learnt_at_ms = now_ms
            self._model.learn(signs, hit, share, keep)
            if judge is not None:
                judge(Outcomes(due.at_ms, now_ms, path, said[0], said[1], hit))

    def _predict(self, m: PathMetrics, able: Array, policy: Policy, now_ms: int) -> Array:
        """(targets,) probabilities, NaN where none is said; they wait for their labels."""
        measured = np.isfinite(m.latency_ms)
        measured &= m.age_ms <= policy.stale_after_ms
        measured &= able
        path = self._all if np.count_nonzero(measured) == len(measured) else np.flatnonzero(measured)
        signs = self._signs.rows(m, measured, policy, now_ms)
        said = np.empty((2, len(measured)))
        said[0] = probability = significant(self._model.probabilities(signs))
        said[1] = self._climatology.rates()
        if len(path) < len(measured):
            said[1, ~measured] = np.nan
        self._waiting.append(_Waiting(now_ms, path, signs, said, np.zeros(len(measured), bool)))
        return probability

    def renumber(self, place: dict[int, int], targets: int) -> None:
        """Targets have new numbers: the model stays, what waits for labels starts anew."""
        self._climatology = self._climatology.renumber(place, targets)
        self._signs = self._signs.renumber(place, targets)
        self._waiting = []
        self._all = np.arange(targets)
        run, lossy = self._run, self._lossy
        self._run, self._lossy = np.zeros((2, targets), np.int64)
        for old, new in place.items():
            self._run[new], self._lossy[new] = run[old], lossy[old]

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        model, model_arrays = self._model.save()
        signs, signs_arrays = self._signs.save()
        targets = len(self._run)
        scalars = {
            "model": MODEL,
            "next_at_ms": self._next_at_ms,
            "learnt_at_ms": self._learnt_at_ms,
            "logistic": model,
            "signs": signs,
        }
        arrays = {
            "run": self._run,
            "lossy": self._lossy,
            "labels": self._climatology.labels,
            "hits": self._climatology.hits,
            "waiting.at_ms": np.array([w.at_ms for w in self._waiting], np.int64),
            "waiting.signs": np.array([w.signs for w in self._waiting]).reshape(-1, targets, SIGNS),
            "waiting.said": np.array([w.said for w in self._waiting]).reshape(-1, 2, targets),
            "waiting.hit": np.array([w.hit for w in self._waiting], bool).reshape(-1, targets),
            **{f"logistic.{name}": value for name, value in model_arrays.items()},
            **{f"signs.{name}": value for name, value in signs_arrays.items()},
        }
        return scalars, arrays

    @classmethod
    def load(cls, scalars: dict[str, Any], arrays: dict[str, Array], targets: int) -> Predictor:
        """The state again; another model's numbers are left, and this one learns from the start."""
        predictor = cls(targets)
        if scalars.get("model") != MODEL:
            return predictor
        predictor._next_at_ms, predictor._learnt_at_ms = scalars["next_at_ms"], scalars["learnt_at_ms"]
        predictor._run, predictor._lossy = arrays["run"], arrays["lossy"]
        predictor._climatology = Climatology.load(arrays["labels"], arrays["hits"])
        predictor._model.restore(scalars["logistic"], part(arrays, "logistic."))
        predictor._signs = Signs.load(scalars["signs"], part(arrays, "signs."))
        columns = (arrays[f"waiting.{name}"] for name in ("signs", "said", "hit"))
        predictor._waiting = [
            _Waiting(at_ms, np.flatnonzero(~np.isnan(said[0])), signs.copy(), said.copy(), hit.copy())
            for at_ms, signs, said, hit in zip(arrays["waiting.at_ms"].tolist(), *columns, strict=True)
        ]
        return predictor


def _looks_disrupted(m: PathMetrics, policy: Policy) -> Array:
    """(targets,) bool: lost as much, or slower than its own slow average by ratio and by amount."""
    slow = m.latency_ms > np.maximum(
        m.slow_latency_ms * policy.disruption_latency_ratio, m.slow_latency_ms + policy.disruption_latency_excess_ms
    )
    slow |= m.fast_loss_ratio >= policy.disruption_loss_ratio
    slow |= m.down
    return slow
