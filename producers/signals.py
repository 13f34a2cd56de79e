"""When a program of ours has to end: on SIGTERM, as a supervisor asks, and on SIGINT, as a terminal does."""

from __future__ import annotations

import asyncio
import signal


def told_to_end() -> asyncio.Future[None]:
    """Done when a signal asks this process to end. Call it in the main thread, where the event loop runs."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not told.done():
            told.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    return told
