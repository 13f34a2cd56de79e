"""Gates: what a candidate has to pass to be eligible, however good its score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from schemas.records import Array

# Gates in order: the first that holds is the reason.
UNKNOWN_REGION: Final = "UNKNOWN_REGION"
DRAINED: Final = "DRAINED"
UNHEALTHY: Final = "UNHEALTHY"
NO_ROUTE: Final = "NO_ROUTE"
NO_CAPACITY: Final = "NO_CAPACITY"
DOWN: Final = "DOWN"
VETOED: Final = "VETOED"
NOT_READY: Final = "NOT_READY"
EJECTED: Final = "EJECTED"
STALE: Final = "STALE"
NO_DATA: Final = "NO_DATA"
GATES: Final = (
    UNKNOWN_REGION, DRAINED, UNHEALTHY, NO_ROUTE, DOWN, VETOED, NOT_READY, EJECTED, NO_CAPACITY, STALE, NO_DATA
)  # fmt: skip
# Never chosen, not even in PANIC: known to be dead, or ruled out by an operator.
DEAD: Final = frozenset((UNKNOWN_REGION, DRAINED, UNHEALTHY, NO_ROUTE, DOWN))


def passed(gates: Mapping[str, Array | None], cells: int) -> tuple[list[str | None], Array, Array]:
    """Of each cell the first gate that holds it back, None: none does; bool (cells,): eligible; and known to be dead.

    Shapes: each gate is bool (cells,), in order; None: it holds nobody back.
    """
    closed = {name: gate for name, gate in gates.items() if gate is not None and np.count_nonzero(gate)}
    reasons = np.full(cells, None, object)
    eligible, dead = np.ones(cells, bool), np.zeros(cells, bool)
    for name, gate in reversed(closed.items()):
        reasons[gate] = name
        eligible &= ~gate
        if name in DEAD:
            dead |= gate
    return reasons.tolist(), eligible, dead
