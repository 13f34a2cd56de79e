"""What an engine says of its paths to the stage that looks at the whole network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from schemas.records import Array, GraphUpdate, RouteEvent
from streams.core.numbers import significant
from streams.core.ranked import Ranked
from streams.core.transits import Transits

_ROUTES_AGAIN_MS: Final = 60_000


@dataclass(slots=True)
class GraphSays:
    """`sequence`: of the last update. It is a time, the journal's, so that no other engine version repeats it.

    Routes are said when they change, and again after `_ROUTES_AGAIN_MS`, for an overview that lost some.
    """

    sequence: int = 0
    routes_at_ms: int = 0  # when they were said last; 0: they have to be said
    transits: Transits = field(default_factory=Transits)

    def route(self, event: RouteEvent) -> None:
        """What BGP says."""
        if self.transits.take(event):
            self.routes_at_ms = 0

    def only_of(self, agents: Collection[str]) -> None:
        """Forget what any other agent said of routes."""
        if self.transits.only_of(agents):
            self.routes_at_ms = 0

    def update(
        self,
        primary: str,
        ranked: Ranked,
        now_ms: int,
        *,
        target: str | None,
        bandwidth_bps: Array,
        agents: Sequence[str],
        foretold: str | None = None,
    ) -> GraphUpdate:
        """All paths as ranked at this moment; `bandwidth_bps` (targets,), as measured last.

        `foretold`: the target whose path a trusted model says will be disrupted soon.
        """
        self.sequence = max(self.sequence + 1, now_ms)
        says_routes = now_ms - self.routes_at_ms >= _ROUTES_AGAIN_MS
        if says_routes:
            self.routes_at_ms = now_ms
        m = ranked.metrics
        fresh = m.trusted & (m.age_ms <= ranked.policy.stale_after_ms)
        state = fresh * GraphUpdate.FRESH + m.down * GraphUpdate.DOWN + ranked.eligible * GraphUpdate.ELIGIBLE
        if foretold is not None:
            state[ranked.regions.index(foretold)] |= GraphUpdate.FORETOLD
        measured = {
            "latency_ms": m.latency_ms,
            "usual_latency_ms": m.slow_latency_ms,
            "delay_variation_ms": m.delay_variation_ms,
            "bandwidth_bps": bandwidth_bps,
            "loss_ratio": m.loss_ratio,
            "loss_now_ratio": m.fast_loss_ratio,
            "weight": ranked.score,
            "confidence": m.confidence,
        }
        columns = dict(zip(measured, significant(np.array(list(measured.values()))), strict=True))
        return GraphUpdate(
            primary_region=primary,
            sequence=self.sequence,
            decided_at_ms=now_ms,
            target_region=target,
            targets=ranked.regions,
            agents=sorted(set(agents).difference(ranked.suspects)),
            silent_agents=list(ranked.suspects),
            says_routes=says_routes,
            routes=self.transits.ways() if says_routes else [],
            **GraphUpdate.packed(state=np.asarray(state, np.uint8), **columns),
        )

    def save(self) -> dict[str, Any]:
        """Plain data for a snapshot."""
        return {"sequence": self.sequence, "routes_at_ms": self.routes_at_ms, "transits": self.transits.save()}

    @classmethod
    def load(cls, plain: Mapping[str, Any]) -> GraphSays:
        """The state again."""
        return cls(plain.get("sequence", 0), plain.get("routes_at_ms", 0), Transits(plain.get("transits")))
