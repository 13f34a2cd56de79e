"""Numbers that decisions rest on: rounding before anything is compared or published, bounds, quantiles."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from schemas.records import Array


def significant(values: npt.ArrayLike, digits: int = 6) -> Array:
    """Values rounded to `digits` significant digits; any shape; 0, NaN and infinities stay as they are.

    Decisions compare and publish only such numbers, so that a last bit that differs between processors decides nothing.
    """
    values = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.floor(np.log10(np.abs(values)))
    ordinary = np.isfinite(magnitude)
    # One above 1e308 has no power of ten at all: the last before 0 (a weight that faded for hours) keep fewer digits.
    all_ordinary = np.count_nonzero(ordinary) == ordinary.size
    if not all_ordinary:
        magnitude = np.where(ordinary, magnitude, 0.0)
    shift = np.minimum(digits - 1 + _POWERS - magnitude, 2 * _POWERS).astype(np.intp)
    # A power of ten below 1 has no exact float64: divide by the exact one where the value is large.
    up, down = _UP.take(shift), _DOWN.take(shift)
    rounded = np.rint(values * up / down) / up * down
    return rounded if all_ordinary else np.where(ordinary, rounded, values)


_POWERS: Final = 307
# 10^max(k, 0) for k from -307 to 307.
_UP: Final = 10.0 ** np.maximum(np.arange(-_POWERS, _POWERS + 1), 0)
_DOWN: Final = _UP[::-1].copy()


def proven_share(failed: Array, sent: Array, z: Array | float) -> Array:
    """Lower bound of a failure ratio: what so few probes prove, so that one lost probe is no loss of 10 %.

    Shapes: both (paths,), decayed counts of 0 or more. Returns (paths,), in [0, 1]; NaN where nothing was sent.
    `z`: quantile of the standard normal distribution, 1.645 for one-sided 95 %. Source: E. B. Wilson 1927.
    """
    z2 = z * z
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = failed / sent
        # Multiplied out by `sent`, which may have faded to next to nothing: no power of it may stand below the line.
        low = (failed + z2 / 2 - z * np.sqrt(failed * (1 - ratio) + z2 / 4)) / (sent + z2)
    return np.where(failed > 0, np.minimum(np.maximum(low, 0.0), 1.0), ratio)


def normal_cdf(z: Array) -> Array:
    """Probability that a standard normal variable is at most z; any shape."""
    return ndtr(z)  # type: ignore[no-any-return]
