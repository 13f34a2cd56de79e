"""Whether the path to a target is bad now: against what it was before by ratio and by amount, or by proven loss.

It is the definition that predictions are judged by (`disruption_*` of the policy). The path's own baseline is its slow
average while it is well; while it is bad, or something has been done to it, the baseline stands still, for otherwise
whatever lasts would become usual. After `NEW_NORMAL_MS` it does: a path that was moved for good is no emergency.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from schemas.records import Policy

LATENCY: Final = "latency_ms"
LOSS: Final = "loss_ratio"
NEW_NORMAL_MS: Final = 30 * 60_000
# Loss comes in handfuls: under a loss of a fifth, four in ten batches of 20 probes prove nothing by themselves. So a
# sight without proof takes back half of one with proof, and only three of them in a row all. And it takes one with
# proof more than `disruption_ticks`, for what one handful proves is seen twice.
_SIGHT: Final = 2  # in halves
_LOSS_SIGHTS_MORE: Final = 1
_WELL_SIGHTS: Final = 3
_SURE: Final = 0.5  # confidence from which a path's average is its own


class Sight(NamedTuple):
    """A path as decide last said; NaN where nobody knows."""

    latency_ms: float
    usual_ms: float  # slow average
    loss_ratio: float  # as the ranking counts it
    loss_now_ratio: float  # what the last probes prove
    confidence: float
    is_fresh: bool
    is_down: bool
    is_foretold: bool = False  # a trusted prediction says that it will be disrupted

    def value(self, metric: str) -> float:
        """What an action is measured by; a path that does not answer loses everything."""
        if metric == LATENCY:
            return self.latency_ms
        return 1.0 if self.is_down else max(self.loss_ratio, 0.0)


@dataclass(slots=True)
class Degradation:
    """State of one path: its baseline, how much speaks for its being bad, and for how many sights it was well."""

    baseline_ms: float = math.nan
    bad: int = 0
    well: int = 0
    since_ms: int = 0  # journal time at which it was first seen to be bad
    metric: str = LATENCY

    def see(self, sight: Sight, policy: Policy, now_ms: int, *, is_mended: bool) -> None:
        """Take the next sight in; `is_mended`: something is, or is about to be, done to this path."""
        if not sight.is_fresh and not sight.is_down:
            return  # nobody looked: neither good nor bad
        metric = self._wrong(sight, policy)
        if metric is not None:
            self.since_ms = now_ms if not self.bad else self.since_ms
            self.bad, self.well, self.metric = self.bad + _SIGHT, 0, metric
            if now_ms - self.since_ms >= NEW_NORMAL_MS and metric == LATENCY and not is_mended:
                self.baseline_ms, self.bad = sight.usual_ms, 0
            return
        self.well += 1
        forgiving = self.metric == LATENCY or self.well >= _WELL_SIGHTS
        self.bad = 0 if forgiving else max(min(self.bad, self._needed(policy)) - 1, 0)
        if self.bad:
            return
        if not is_mended and sight.confidence >= _SURE and math.isfinite(sight.usual_ms):
            # The slow average still remembers what was bad: it is believed upwards only as far as the path is so now.
            self.baseline_ms = min(sight.usual_ms, sight.latency_ms * policy.disruption_latency_ratio)

    def is_bad(self, policy: Policy) -> bool:
        """So often in a row that it is no accident, of a path that was seen to be well before."""
        return not math.isnan(self.baseline_ms) and self.bad >= self._needed(policy)

    def _needed(self, policy: Policy) -> int:
        return _SIGHT * (policy.disruption_ticks + (_LOSS_SIGHTS_MORE if self.metric == LOSS else 0))

    def limit_ms(self, policy: Policy) -> float:
        """Latency above which the path is bad; NaN while nothing is known."""
        by_ratio = self.baseline_ms * policy.disruption_latency_ratio
        return max(by_ratio, self.baseline_ms + policy.disruption_latency_excess_ms)

    def _wrong(self, sight: Sight, policy: Policy) -> str | None:
        if sight.is_down or sight.loss_now_ratio >= policy.disruption_loss_ratio:
            return LOSS
        return LATENCY if sight.latency_ms > self.limit_ms(policy) else None

    def save(self) -> dict[str, Any]:
        """Plain data; a baseline that nobody knows is null."""
        return asdict(self) | {"baseline_ms": None if math.isnan(self.baseline_ms) else self.baseline_ms}

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Degradation:
        """The state again."""
        known = plain["baseline_ms"]
        return cls(**plain | {"baseline_ms": math.nan if known is None else known})
