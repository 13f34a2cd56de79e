"""The loop of `proxima routes`: routers' sessions into the table, and what changes there onto `bgp-events`.

Events are handed to Kafka only while it takes them (`IN_FLIGHT_MAX` unconfirmed at most): while it is away, changes
stay in the table, where they cost nothing, and are told as where everything stands when it is back. So reading the
routers' sessions never waits, and nothing that matters is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

from prometheus_client.core import Metric

from producers.publisher import Publisher
from producers.routes.following import NOTHING, Families, following
from producers.routes.listener import Listener
from producers.routes.table import MINUTE_MS, RouteTable
from producers.signals import told_to_end
from schemas import config
from schemas.observed import Observed, Pulse, counter, gauge
from schemas.records import Region, RouteEvent

log = logging.getLogger(__name__)

TOPIC: Final = "bgp-events"
ALIVE_EVERY_S: Final = 10.0  # a third of what makes a monitor silent (streams/core/routes.py)
_STUCK_S: Final = 60.0
IN_FLIGHT_MAX: Final = 500  # a quarter of what the publisher's client holds: handing over never blocks
Subscribe = Callable[[Callable[[list[Region]], None]], Callable[[], None]]


class RouteMonitor(Observed):
    """Listens until told to stop. Make it, and run it, where an event loop runs."""

    def __init__(self, settings: config.Routes, publisher: Publisher, families: Families = NOTHING) -> None:
        self._settings, self._publisher = settings, publisher
        self._table = RouteTable(settings.agent_id, settings.primary_region)
        self._listener = Listener(settings, self._table, families)
        self._events = 0
        self._listens = False
        self._pulse = Pulse("the route monitor's loop", _STUCK_S + settings.settle_ms / 1000)
        self.observe()

    def figures(self) -> Iterator[Metric]:
        """Routers' sessions and peers, and what came by them."""
        heard, (up, peers) = self._listener.heard, self._table.peers
        yield gauge("proxima_bmp_sessions", "Routers that are connected.", self._listener.sessions)
        yield counter("proxima_bmp_refused_sessions", "Connections that were not admitted.", self._listener.refused)
        about = "Peers of connected routers that are followed, by whether they are up."
        yield gauge("proxima_bmp_peers", about, {("up",): up, ("down",): peers - up}, "state")
        yield counter("proxima_bmp_messages", "BMP messages that came.", heard.messages)
        yield counter("proxima_bmp_unparsed_messages", "BMP messages of which nothing could be made.", heard.unparsed)
        yield counter("proxima_bmp_resyncs", "How often bytes that are no BMP were skipped.", heard.resyncs)
        changes = {("announced",): heard.announced, ("withdrawn",): heard.withdrawn}
        yield counter("proxima_bmp_prefixes", "Prefixes of all UPDATEs, followed or not.", changes, "change")
        yield counter("proxima_route_events", "RouteEvents that were handed over.", self._events)

    def stuck(self) -> str:
        """The loop's."""
        return self._pulse.stuck() if self._listens else ""

    def unready(self) -> str:
        """It listens once it knows the regions, and is of use once a router is there."""
        if not self._listens:
            return "it does not listen yet: no regions are known"
        return "" if self._listener.sessions else "no router is connected"

    async def run(self, stop: asyncio.Future[None], opened: Callable[[int], None] = lambda _port: None) -> None:
        """Listen until `stop` is done; `opened` is told the port. Raises RouteError: it cannot listen there."""
        opened(await self._listener.open())
        self._listens = True
        loop = asyncio.get_running_loop()
        began_s = alive_at = loop.time()
        minute_at = began_s + MINUTE_MS / 1000
        try:
            while not stop.done():
                self._pulse.beat()
                await asyncio.wait((stop,), timeout=self._settings.settle_ms / 1000)
                if loop.time() >= alive_at and self._room > 0:
                    # The first goes before everything else: what an earlier process said is void.
                    over_ms = int(1000 * (loop.time() - began_s)) if alive_at > began_s else 0
                    self._publish(self._table.alive(time.time_ns() // 1_000_000, over_ms))
                    alive_at = loop.time() + ALIVE_EVERY_S
                if loop.time() >= minute_at:
                    minute_at = max(minute_at + MINUTE_MS / 1000, loop.time())
                    self._table.minute(time.time_ns() // 1_000_000)
                self._tell()
        finally:
            self._listener.close()
            self.unobserve()
        self._tell()

    def follow(self, regions: Iterable[Region]) -> None:
        """Follow these regions' prefixes from now on; in the event loop's thread."""
        self._listener.follow(following(regions))

    def _tell(self) -> None:
        for event in self._table.tell(self._room) if self._room > 0 else ():
            self._publish(event)

    @property
    def _room(self) -> int:
        return IN_FLIGHT_MAX - self._publisher.stats.in_flight

    def _publish(self, event: RouteEvent) -> None:
        self._events += 1
        self._publisher.publish(TOPIC, self._settings.agent_id, event)


def run(role: config.RoutesConfig, subscribe: Subscribe) -> None:
    """`proxima routes`: listen until SIGTERM or SIGINT, then flush.

    `subscribe` is given what takes the regions, now and whenever they change (from any thread), and returns what ends
    that. Raises RouteError: it cannot listen; DeliveryError: events were left at the end.
    """
    with Publisher(
        role.kafka.bootstrap, client_id=f"routes-{role.routes.agent_id}", topic_prefix=role.kafka.topic_prefix
    ) as publisher:
        asyncio.run(_until_signalled(role.routes, publisher, subscribe))


async def _until_signalled(settings: config.Routes, publisher: Publisher, subscribe: Subscribe) -> None:
    stop, loop = told_to_end(), asyncio.get_running_loop()
    monitor = RouteMonitor(settings, publisher)
    known: asyncio.Future[None] = loop.create_future()

    def follow(regions: list[Region]) -> None:
        monitor.follow(regions)
        if not known.done():
            known.set_result(None)

    def changed(regions: list[Region]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(follow, regions)

    unsubscribe = subscribe(changed)
    try:
        # A router that came before would say everything twice.
        await asyncio.wait((known, stop), return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():
            await monitor.run(stop)
    finally:
        unsubscribe()
