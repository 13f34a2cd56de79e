"""Operators' directives in force: pins, drains and freezes, each until it expires in journal time.

They come before everything that is measured. The same id again replaces a directive, and with an expiry that has
passed ends it; the very same directive again changes nothing. Of several pins the latest given counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from schemas.codec import from_plain, to_plain
from schemas.records import Directive, DirectiveInForce, Event, OperatorDirective

# At once, of a primary: its rankings carry them all.
_IN_FORCE_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Orders:
    """What operators order at a moment."""

    pinned: str | None
    drained: frozenset[str]
    frozen: bool
    shown: list[DirectiveInForce]
    executed: str | None = None  # where the primary's traffic was moved to


NO_ORDERS: Final = Orders(None, frozenset(), frozen=False, shown=[])


class Directives:
    """Of one primary, in the order in which they were given."""

    def __init__(self) -> None:
        self._given: dict[str, OperatorDirective] = {}

    def give(
        self, directive: OperatorDirective, primary: str, candidates: Collection[str], now_ms: int
    ) -> Event | None:
        """Take one in; what has to be said of it: None if it does not concern this primary."""
        if self._given.get(directive.directive_id) == directive and directive.expires_at_ms > now_ms:
            return Event.DIRECTIVE_ACCEPTED  # given twice: the answer is the same
        known = self._given.pop(directive.directive_id, None)
        if directive.primary_region not in (None, primary):
            return None if known is None else Event.DIRECTIVE_ENDED
        if directive.expires_at_ms <= now_ms:
            return None if known is None else Event.DIRECTIVE_ENDED
        if directive.region is not None and directive.region not in candidates:
            if directive.primary_region is None:  # a region that others fail over to
                return None if known is None else Event.DIRECTIVE_ENDED
            return Event.DIRECTIVE_REJECTED
        self._given[directive.directive_id] = directive
        if len(self._given) > _IN_FORCE_MAX:
            del self._given[min(self._given, key=lambda i: (self._given[i].expires_at_ms, i))]
        return Event.DIRECTIVE_ACCEPTED

    def expire(self, now_ms: int) -> bool:
        """Drop those whose time is over; True if there was one."""
        over = [i for i, d in self._given.items() if d.expires_at_ms <= now_ms]
        for directive_id in over:
            del self._given[directive_id]
        return bool(over)

    def until_ms(self, now_ms: int) -> float:
        """When, after this moment, the first of them expires; infinity: never."""
        return min((d.expires_at_ms for d in self._given.values() if d.expires_at_ms > now_ms), default=math.inf)

    def orders(self, candidates: Collection[str]) -> Orders:
        """What they come to now, for these candidates."""
        if not self._given:
            return NO_ORDERS
        given = list(self._given.values())
        pins = [d.region for d in given if d.kind == Directive.PIN and d.region in candidates]
        return Orders(
            pinned=pins[-1] if pins else None,
            drained=frozenset(d.region for d in given if d.kind == Directive.DRAIN and d.region is not None),
            executed=next((d.region for d in reversed(given) if d.kind == Directive.EXECUTED), None),
            frozen=any(d.kind == Directive.FREEZE for d in given),
            shown=[
                DirectiveInForce(d.directive_id, d.kind, d.region, d.expires_at_ms, d.author, d.reason) for d in given
            ],
        )

    def save(self) -> list[dict[str, Any]]:
        """Plain data for a snapshot."""
        return [to_plain(d) for d in self._given.values()]

    @classmethod
    def load(cls, plain: list[dict[str, Any]]) -> Directives:
        """The state again."""
        found = cls()
        found._given = {p["directive_id"]: from_plain(OperatorDirective, p) for p in plain}
        return found
