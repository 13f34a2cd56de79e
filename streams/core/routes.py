"""What BGP says of a primary's candidates: where no route leads any more, nobody has to wait for probes to fail.

A withdrawal or a lost peer is known within a tenth of a second, silence after seconds.

*No route.* When a quorum of the monitors that speak of a region say that no peer leads there any more, its path is
closed at once (NO_ROUTE). Probes have the last word: they confirm it (DOWN stays when the route is back), or they go on
being answered, which clears it: there was a way that BGP does not know.

*Unsettled.* A route that was lost while others are left, or that changed, moves the traffic to another path, of which
the averages know nothing yet. For `SETTLE_MS` such a candidate is not chosen while there is another; a target in use
stays.

Of a monitor's several views of a router (before policy, after, the router's own choice) the emptiest counts. A monitor
that loses a router knows nothing of it any more, neither good nor bad. Times are journal time.

*Silence.* A monitor that has ever said that it is alive, and then nothing for `SILENT_MS`, knows nothing either: what
it alone had closed is open again, and probes decide. Silence opens and never closes. One that begins anew has to say
everything anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import numpy as np

from schemas.records import Array, RouteChange, RouteEvent
from streams.core.paths import Paths
from streams.core.views import needed

SETTLE_MS: Final = 5_000
CLEAR_MS: Final = 3_000  # answers to probes sent so long after the route was gone are no stragglers
SILENT_MS: Final = 30_000  # three times what a monitor says that it is alive in
_NO_NEWS: Final = frozenset((RouteChange.PEER_UP, RouteChange.CHURN, RouteChange.ALIVE))
_MONITORS_MAX: Final = 1000  # times views: whoever invents monitors must not make a snapshot that the broker refuses


class Routes:
    """Of one primary: peers that lead to each candidate, as each monitor said last."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self._left: dict[str, dict[str, int]] = state.get("left", {})  # "monitor view" -> region -> peers left
        self._gone_at_ms: dict[str, int] = state.get("gone_at_ms", {})  # regions without a route, since when
        self._settled_at_ms: dict[str, int] = state.get("settled_at_ms", {})
        self._heard_at_ms: dict[str, int] = state.get("heard_at_ms", {})  # monitors that say that they are alive

    def take(self, event: RouteEvent, candidates: Mapping[str, int], quorum_ratio: float, now_ms: int) -> bool:
        """Take an event in; True when it has to be decided upon at once."""
        monitor, says_alive = event.agent_id, event.kind == RouteChange.ALIVE
        if says_alive or monitor in self._heard_at_ms:
            self._heard_at_ms[monitor] = now_ms
            _bound(self._heard_at_ms)
        if says_alive and not event.over_ms:
            its = [self._left.pop(key) for key in list(self._left) if _monitor(key) == monitor]
            return self._open({region for regions in its for region in regions}, quorum_ratio, now_ms)
        if event.kind in _NO_NEWS:
            return False
        concerned = {r.region_id: r.peers_left for r in event.regions if r.region_id in candidates}
        known = self._left.setdefault(f"{event.agent_id} {event.view}", {})
        news = False
        for region, left in concerned.items():
            if event.kind == RouteChange.ROUTER_LOST and left == 0:
                known.pop(region, None)
            else:
                known[region] = left
            was_gone = self._is_gone(region)
            if self._says_none(region, quorum_ratio, now_ms):
                # Said again it is no news: probes may have cleared it.
                self._gone_at_ms.setdefault(region, now_ms)
            else:
                self._gone_at_ms.pop(region, None)
            if left and event.kind not in (RouteChange.REACHABLE, RouteChange.ROUTER_LOST):
                self._settled_at_ms[region] = now_ms + SETTLE_MS
                news = True
            news |= was_gone != self._is_gone(region)
        _bound(self._left)
        return news

    def only_of(self, agents: Collection[str], quorum_ratio: float) -> None:
        """Forget what any other monitor said: what it alone had closed is open again. Silence is judged at a tick."""
        self._left = {key: its for key, its in self._left.items() if _monitor(key) in agents}
        self._heard_at_ms = {monitor: at_ms for monitor, at_ms in self._heard_at_ms.items() if monitor in agents}
        self._open(list(self._gone_at_ms), quorum_ratio, 0)

    @property
    def some_gone(self) -> bool:
        """Whether there is a region, candidate or not, that no route leads to."""
        return any(map(self._is_gone, self._gone_at_ms))

    def gone(self, paths: Paths, candidates: Mapping[str, int], quorum_ratio: float, now_ms: int) -> Array | None:
        """(targets,) bool: no route leads there, and no probe says otherwise; None: nobody."""
        if self._heard_at_ms:
            self._open([r for r in self._gone_at_ms if self._is_gone(r)], quorum_ratio, now_ms)
        for region in [r for r in self._gone_at_ms if self._is_gone(r)]:
            if region in candidates and _answers(paths, candidates[region], self._gone_at_ms[region] + CLEAR_MS):
                self._gone_at_ms[region] = _CLEARED
        return _marked([r for r in self._gone_at_ms if self._is_gone(r)], candidates)

    def unsettled(self, candidates: Mapping[str, int], now_ms: int) -> Array | None:
        """(targets,) bool: the route there has just changed; None: nobody."""
        if self._settled_at_ms:
            self._settled_at_ms = {r: at_ms for r, at_ms in self._settled_at_ms.items() if at_ms > now_ms}
        return _marked(self._settled_at_ms, candidates)

    def save(self) -> dict[str, Any]:
        """Plain data for a snapshot."""
        return {
            "left": self._left,
            "gone_at_ms": self._gone_at_ms,
            "settled_at_ms": self._settled_at_ms,
            "heard_at_ms": self._heard_at_ms,
        }

    def _is_gone(self, region: str) -> bool:
        return self._gone_at_ms.get(region, _CLEARED) != _CLEARED

    def _open(self, regions: Iterable[str], quorum_ratio: float, now_ms: int) -> bool:
        """Let go of those that no quorum calls gone any more; whether one was."""
        opened = [r for r in regions if not self._says_none(r, quorum_ratio, now_ms)]
        news = any(map(self._is_gone, opened))
        for region in opened:
            self._gone_at_ms.pop(region, None)
        return news

    def _says_none(self, region: str, quorum_ratio: float, now_ms: int) -> bool:
        least: dict[str, int] = {}
        for key, regions in self._left.items():
            monitor = _monitor(key)
            if region in regions and now_ms - self._heard_at_ms.get(monitor, now_ms) < SILENT_MS:
                least[monitor] = min(regions[region], least.get(monitor, regions[region]))
        none = sum(left == 0 for left in least.values())
        return none > 0 and none >= int(needed(np.array(len(least)), quorum_ratio))


_CLEARED: Final = -1  # no route is known, and probes are answered all the same


def _monitor(key: str) -> str:
    return key.split(" ", 1)[0]


def _bound(by_monitor: dict[str, Any]) -> None:
    if len(by_monitor) > _MONITORS_MAX:
        del by_monitor[next(iter(by_monitor))]


def _answers(paths: Paths, target: int, since_ms: int) -> bool:
    """Whether a probe sent since then was answered, by agents' clocks: they and the journal's agree within a second."""
    c = paths.columns
    return bool(np.count_nonzero((c["target"] == target) & (c["answered_pane_at_ms"] >= since_ms)))


def _marked(regions: Any, candidates: Mapping[str, int]) -> Array | None:
    numbers = [candidates[r] for r in regions if r in candidates]
    if not numbers:
        return None
    found = np.zeros(len(candidates), bool)
    found[numbers] = True
    return found
