"""Whether the mean of a series has fallen for good: river's Page-Hinkley test, its state kept as five numbers.

The test adds up how far each value lies below the mean so far, less an allowance, and alarms when the sum has risen by
a threshold from its lowest. Between values only the numbers are kept, so that a snapshot holds them; the detector is
made of them anew for each value, which comes once in minutes. Source: E. S. Page 1954; D. V. Hinkley 1971.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any


@contextmanager
def _on_demand(name: str) -> Iterator[None]:
    """Whoever imports this module meanwhile gets one that is loaded when something of it is first used."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = later = ModuleType(name)

    def leave() -> None:
        if sys.modules.get(name) is later:
            del sys.modules[name]

    def load(attribute: str) -> Any:
        leave()  # somebody needs it already while it is imported
        return getattr(import_module(name), attribute)

    later.__dict__["__getattr__"] = load
    try:
        yield
    finally:
        leave()


with _on_demand("scipy.stats"):  # for a test beside ours, and it takes half of the time that a stage needs to start
    from river.drift import PageHinkley as Detector


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
        test = Detector(self.values_min, self.allowance, self.threshold, self.forget, mode="down")
        mean = test._x_mean
        mean.n, mean._mean = float(self.values), self.mean
        test._sum_decrease, test._max_decrease = self.total, self.highest
        test.update(value)
        if test.drift_detected:
            return self.begun(), True
        now = {"values": int(mean.n), "mean": mean.get(), "total": test._sum_decrease, "highest": test._max_decrease}
        return replace(self, **now), False

    def begun(self) -> PageHinkley:
        """The same test before its first value."""
        return PageHinkley(self.threshold, self.allowance, self.values_min, self.forget)

    def save(self) -> dict[str, Any]:
        """Numbers by name."""
        return asdict(self)
