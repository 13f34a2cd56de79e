"""Page-Hinkley: whether the mean of a series has fallen for good.

The test adds up how far each value lies below the mean so far, less an allowance, and alarms when the sum has risen by
a threshold from its lowest. It is river's `drift.PageHinkley(mode="down")`, kept as five numbers, so that a snapshot
holds it; a test runs the two side by side. Source: E. S. Page 1954; D. V. Hinkley 1971.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class PageHinkley:
    """`values` seen since the last alarm, their `mean`, the sum and the most it was."""

    threshold: float
    allowance: float
    values_min: int
    forget: float = 0.9999
    values: int = 0
    mean: float = 0.0
    total: float = 0.0
    highest: float = 0.0

    def step(self, value: float) -> tuple[PageHinkley, bool]:
        """The state after a value, and whether the mean has fallen; after an alarm it begins anew."""
        values = self.values + 1
        mean = self.mean + (value - self.mean) / values
        total = self.forget * self.total + (value - mean + self.allowance)
        highest = max(self.highest, total)
        if values >= self.values_min and highest - total > self.threshold:
            return self.begun(), True
        return replace(self, values=values, mean=mean, total=total, highest=highest), False

    def begun(self) -> PageHinkley:
        """The same test before its first value."""
        return PageHinkley(self.threshold, self.allowance, self.values_min, self.forget)

    def save(self) -> dict[str, Any]:
        """Numbers by name."""
        return asdict(self)
