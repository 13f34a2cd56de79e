"""Models of disruptions compared honestly: river's progressive validation, labels three steps late, a recorded week.

Every model sees the same signs of the same paths in the same order (`prediction_signs.py`), and learns from each label
when its horizon is over. A result has the figures of `proxima scorecard`, skill against climatology, and the CPU time
of one prediction and its label. docs/prediction.md has a table of them, and what follows.

Yardsticks: `climatology`, a path's own past rate, and `persistence`, how often disruptions followed within a horizon of
one on any path, and how often otherwise.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from river import anomaly, base, compose, evaluate, forest, linear_model, metrics, optim, preprocessing, tree

from schemas.records import Array
from streams.core.outcomes import Climatology
from streams.core.prediction_model import LogisticModel
from streams.core.prediction_signs import BELIEFS, Signs
from streams.labelled import HORIZON_STEPS, Predicted, moments, policy_of, read_labelled, scores, that_count

WEEK = Path(__file__).parents[2] / "producers/data/labelled_rtt/ripe_atlas_2016-10-18_2016-10-25.csv.gz"
_USUAL = 0.01
Row = dict[str, float]
_ABOUT = ("step", "path", "since")  # what is known beside the signs


class _Model(base.Classifier):  # type: ignore[misc]
    """river's two verbs."""

    def _of(self, x: Row) -> float:
        raise NotImplementedError

    def predict_proba_one(self, x: Row) -> dict[bool, float]:
        p = self._of(x)
        return {False: 1 - p, True: p}


class Ours(_Model):
    """The engine's model, one row at a time."""

    def __init__(self, spread: float = 1.0) -> None:
        self.spread = spread
        weights, deviations = np.array(list(BELIEFS.values())).T
        self._model = LogisticModel(weights, deviations * spread)

    def learn_one(self, x: Row, y: bool) -> None:
        self._model.learn(_signs(x), np.array([y]), 1 / HORIZON_STEPS)

    def _of(self, x: Row) -> float:
        return float(self._model.probabilities(_signs(x))[0])


class Rates(_Model):
    """How often it came, by some key of the row."""

    def __init__(self, key: str, before: float) -> None:
        self.key, self.before = key, before
        self._labels, self._hits = Counter[float](), Counter[float]()

    def learn_one(self, x: Row, y: bool) -> None:
        self._labels[x[self.key]] += 1
        self._hits[x[self.key]] += y

    def _of(self, x: Row) -> float:
        return (self._hits[x[self.key]] + self.before * _USUAL) / (self._labels[x[self.key]] + self.before)


class WithAnomaly(_Model):
    """Half-space trees say how odd a row is; a logistic regression takes it as one more sign."""

    def __init__(self) -> None:
        self._trees = compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=1, window_size=1000))
        self._rest = preprocessing.StandardScaler() | _regression(optim.SGD(0.005))

    def _more(self, x: Row) -> Row:
        signs = {name: x[name] for name in BELIEFS}
        return signs | {"odd": self._trees.score_one(signs)}

    def learn_one(self, x: Row, y: bool) -> None:
        self._rest.learn_one(self._more(x), y)
        self._trees.learn_one({name: x[name] for name in BELIEFS})

    def _of(self, x: Row) -> float:
        return float(self._rest.predict_proba_one(self._more(x))[True])


def _signs(x: Row) -> Array:
    return np.array([[x[name] for name in BELIEFS]])


def _regression(optimizer: Any) -> Any:
    return linear_model.LogisticRegression(optimizer=optimizer, l2=1e-4, intercept_init=-4.6)


def _on_signs(model: Any) -> Any:
    return compose.Discard(*_ABOUT, "usual") | model


def _scaled(model: Any) -> Any:
    return _on_signs(preprocessing.StandardScaler() | model)


MODELS: dict[str, Callable[[], Any]] = {
    "climatology": lambda: Rates("path", 100),
    "persistence": lambda: Rates("since", 100),
    "ours": Ours,
    "ours, ten times the spread": lambda: Ours(10.0),
    "logistic, SGD 0.02": lambda: _scaled(_regression(optim.SGD(0.02))),
    "logistic, SGD 0.005": lambda: _scaled(_regression(optim.SGD(0.005))),
    "logistic, AdaGrad 0.02": lambda: _scaled(_regression(optim.AdaGrad(0.02))),
    "logistic, Adam 0.001": lambda: _scaled(_regression(optim.Adam(0.001))),
    "logistic, FTRL": lambda: _scaled(_regression(optim.FTRLProximal(alpha=0.05))),
    "logistic, half-space trees too": WithAnomaly,
    "Hoeffding adaptive tree": lambda: _on_signs(tree.HoeffdingAdaptiveTreeClassifier(seed=1)),
    "adaptive random forest": lambda: _on_signs(forest.ARFClassifier(n_models=5, seed=1)),
}


def run() -> Iterator[dict[str, Any]]:
    rows, step, path, usual = _rows()
    for name, make in MODELS.items():
        said, spent = _progressive(rows, make())
        hit, counts = np.array([came for _, came in rows]), step >= 0
        found = scores(Predicted(*(each[counts] for each in (path, step, said, usual, hit))))
        yield {
            "model": name,
            **{k: round(found[k], 4) for k in ("auc_pooled", "auc_within", "skill", "skill_low", "ece")},
            "us_a_prediction_and_label": round(spent * 1e6 / len(rows), 1),
        }


def _progressive(rows: list[tuple[Row, bool]], model: Any) -> tuple[Array, float]:
    """(rows,) probabilities, each said before the labels of the last three steps were known; and CPU seconds."""
    started = time.process_time()
    reports = evaluate.iter_progressive_val_score(
        rows, model, metrics.LogLoss(), moment="step", delay=HORIZON_STEPS, yield_predictions=True
    )
    said = [report["Prediction"].get(True, 0.0) if report["Prediction"] else _USUAL for report in reports]
    return np.array(said[: len(rows)]), time.process_time() - started


def _rows() -> tuple[list[tuple[Row, bool]], Array, Array, Array]:
    """Rows with their labels, in order; and of each its step (-1: it does not count), path and climatology."""
    week = read_labelled(WEEK)
    policy, count = policy_of(week.step_ms), len(week.probes)
    signs, climatology, counts = Signs(count), Climatology(count), that_count(week)
    last, rows, places, waiting = -HORIZON_STEPS, [], [], list[tuple[Array, Array]]()
    steps = len(week.there) - HORIZON_STEPS
    for step, (now_ms, seen, begun) in enumerate(moments(week, policy)):
        if step >= steps:
            break
        if begun.any():
            signs.begun(begun, policy, now_ms)
            last = step
        if len(waiting) == HORIZON_STEPS:
            climatology.learn(*waiting.pop(0))
        measured = ~np.isnan(seen.latency_ms) & (seen.age_ms <= policy.stale_after_ms)
        at = signs.rows(seen, measured, policy, now_ms)
        hit = np.asarray(week.begun[step + 1 : step + 1 + HORIZON_STEPS].any(axis=0))
        usual = climatology.rates()
        paths = np.flatnonzero(measured)
        for path in paths.tolist():
            about = {"step": step, "path": path, "since": float(step - last < HORIZON_STEPS)}
            rows.append((dict(zip(BELIEFS, at[path].tolist(), strict=True)) | about, bool(hit[path])))
            places.append((step if counts[step, path] else -1, path, usual[path]))
        waiting.append((paths, hit[paths]))
    at_step, of_path, usual = (np.array(column) for column in zip(*places, strict=True))
    return rows, at_step, of_path, usual
