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
# Arrays, for numpy makes one of a number at every call.
_ONE, _ODDS_LEAST, _ODDS_MOST = np.array(1.0), np.array(-30.0), np.array(30.0)


class LogisticModel:
    """`weights` (signs,), `precision` (signs, signs) of their posterior, `gradient` of labels not yet solved for."""

    def __init__(self, weights: Array, deviations: Array) -> None:
        """The prior: mean and standard deviation of each weight."""
        self._prior = np.diag(1.0 / deviations**2)
        self.weights = weights.astype(np.float64)
        self._sums = np.vstack((self._prior, np.zeros(len(weights))))  # one array, for labels add to both at once
        self._later: list[tuple[Array, Array, float]] = []  # signs, hits and what older ones keep: not yet added
        self._share = 1.0  # of these
        self.waiting = 0  # labels not yet solved for
        self.labels = 0

    @property
    def precision(self) -> Array:
        """(signs, signs)"""
        self._settle()
        return self._sums[:-1]

    @property
    def gradient(self) -> Array:
        """(signs,)"""
        self._settle()
        return self._sums[-1]  # type: ignore[no-any-return]

    def probabilities(self, signs: Array) -> Array:
        """(rows,) in (0, 1), of (rows, signs)."""
        odds = np.einsum("ni,i->n", signs, self.weights)
        against = np.exp(np.minimum(np.maximum(np.negative(odds, odds), _ODDS_LEAST), _ODDS_MOST))
        against += _ONE
        return np.divide(_ONE, against, against)  # type: ignore[no-any-return]

    def learn(self, signs: Array, hit: Array, share: float, keep: float = 1.0) -> None:
        """Labels: (rows, signs) and (rows,) bool; each counts for a share of one.

        What was learnt before them weighs `keep` of what it did; the prior keeps its weight.
        """
        if share != self._share or len(self._later) == SOLVE_EVERY:
            self._settle()
            self._share = share
        self._later.append((signs, hit, keep))
        self.labels += len(hit)
        self.waiting += len(hit)
        if self.waiting >= SOLVE_EVERY:
            step = _solve(self.precision, self.gradient)
            self.weights = self.weights + step * min(1.0, _STEP_MAX / max(float(np.abs(step).max()), 1e-300))
            self.gradient[:] = 0
            self.waiting = 0

    def _settle(self) -> None:
        """Add what waits, in its order; the weights are still those that it would have met when it came.

        So it makes no bit's difference when this is done, and many small batches cost little more than a large one.
        """
        if not self._later:
            return
        later, self._later = self._later, []
        signs, hit = later[0][:2]
        if len(later) > 1:
            signs, hit = (np.concatenate([labels[column] for labels in later]) for column in (0, 1))
        p = self.probabilities(signs)
        counts = np.empty((len(hit), len(self._sums)))
        np.multiply(signs, (self._share * p * (_ONE - p))[:, None], counts[:, :-1])
        np.multiply(hit - p, self._share, counts[:, -1])
        precision, end = self._sums[:-1], 0
        for _, its_hit, keep in later:
            begin, end = end, end + len(its_hit)
            if keep != 1.0:
                precision -= self._prior
                precision *= keep
                precision += self._prior
            if end > begin:
                self._sums += np.einsum("ni,nj->ij", counts[begin:end], signs[begin:end])

    def save(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Scalars and arrays for a snapshot."""
        return (
            {"waiting": self.waiting, "labels": self.labels},
            {"weights": self.weights, "precision": self.precision, "gradient": self.gradient},
        )

    def restore(self, scalars: dict[str, Any], arrays: dict[str, Array]) -> None:
        """The state again, of a model with the same prior."""
        self.waiting, self.labels = scalars["waiting"], scalars["labels"]
        self.weights = arrays["weights"].copy()
        self._sums = np.vstack((arrays["precision"], arrays["gradient"]))


def _solve(matrix: Array, vector: Array) -> Array:
    """What `matrix` makes `vector` of: by Gauss and Jordan; symmetric and positive, it needs no pivots."""
    rows = np.concatenate((matrix, vector[:, None]), axis=1)
    for i in range(len(vector)):
        row = rows[i] / rows[i, i]
        rows -= rows[:, i, None] * row
        rows[i] = row
    return rows[:, -1]
