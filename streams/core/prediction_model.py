"""A Bayesian logistic regression, learnt online: weights begin as believed, and move as far as labels outweigh belief.

Disruptions are rare, so a model that begins with nothing learns from the first few whatever they happen to show. This
one begins with a normal prior (`prediction_signs.py` argues the weights), and each batch of labels is a step of Newton
on the posterior (Laplace's approximation: its precision is that of the prior plus the curvature of all labels). Scales
are fixed and the steps are of second order, so no rate is to be tuned, and signs that go together share their weight.

Predictions whose horizons overlap see the same disruption several times, so a label counts for a share of one only.
What was learnt long ago weighs less than what is new, but never less than the prior.

All sums are numpy's own and none is a BLAS's, so that the same labels give the same bits.
Source: D. J. Spiegelhalter, S. L. Lauritzen 1990; D. J. C. MacKay 1992.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from schemas.records import Array

SOLVE_EVERY: Final = 64  # labels: a step costs 40 us, whatever it is made of
# The curvature is that of the weights before the step, and far from them it is another.
_STEP_MAX: Final = 0.5


class LogisticModel:
    """`weights` (signs,), `precision` (signs, signs) of their posterior, `gradient` of labels not yet solved for."""

    def __init__(self, weights: Array, deviations: Array) -> None:
        """The prior: mean and standard deviation of each weight."""
        self._prior = np.diag(1.0 / deviations**2)
        self.weights = weights.astype(np.float64)
        self.precision = self._prior.copy()
        self.gradient = np.zeros(len(weights))
        self.waiting = 0  # labels in the gradient
        self.labels = 0

    def probabilities(self, signs: Array) -> Array:
        """(rows,) in (0, 1), of (rows, signs)."""
        odds = np.einsum("ni,i->n", signs, self.weights)
        return 1.0 / (1.0 + np.exp(np.minimum(np.maximum(-odds, -30.0), 30.0)))  # type: ignore[no-any-return]

    def learn(self, signs: Array, hit: Array, share: float) -> None:
        """Labels: (rows, signs) and (rows,) bool; each counts for a share of one."""
        if not len(hit):
            return
        p = self.probabilities(signs)
        self.gradient += np.einsum("n,ni->i", share * (hit - p), signs)
        self.precision += np.einsum("ni,nj->ij", signs * (share * p * (1 - p))[:, None], signs)
        self.labels += len(hit)
        self.waiting += len(hit)
        if self.waiting >= SOLVE_EVERY:
            step = _solve(self.precision, self.gradient)
            self.weights = self.weights + step * min(1.0, _STEP_MAX / max(float(np.abs(step).max()), 1e-300))
            self.gradient = np.zeros(len(step))
            self.waiting = 0

    def forget(self, keep: float) -> None:
        """Let what was learnt so far weigh a share of what it did; the prior keeps its weight."""
        self.precision -= self._prior
        self.precision *= keep
        self.precision += self._prior

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        return (
            {"waiting": self.waiting, "labels": self.labels},
            {"weights": self.weights, "precision": self.precision, "gradient": self.gradient},
        )

    def restore(self, scalars: dict[str, Any], arrays: dict[str, Array]) -> None:
        """The state again, of a model with the same prior."""
        self.waiting, self.labels = scalars["waiting"], scalars["labels"]
        self.weights, self.precision, self.gradient = (
            arrays[name].copy() for name in ("weights", "precision", "gradient")
        )


def _solve(matrix: Array, vector: Array) -> Array:
    """What `matrix` makes `vector` of: by Gauss and Jordan; symmetric and positive, it needs no pivots."""
    rows = np.concatenate((matrix, vector[:, None]), axis=1)
    for i in range(len(vector)):
        row = rows[i] / rows[i, i]
        rows -= rows[:, i, None] * row
        rows[i] = row
    return rows[:, -1]
