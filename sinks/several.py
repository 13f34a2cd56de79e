"""Several sinks in one process, each in a thread of its own: none waits for another, or ends because another did."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from schemas.errors import ProximaError
from sinks.gauges import Counts
from sinks.runner import SinkRunner

log = logging.getLogger(__name__)

_LOOK_S = 0.2


class Several:
    """Runs until every runner has ended, as one runner would."""

    def __init__(self, runners: Mapping[str, SinkRunner]) -> None:
        self._runners = runners
        self.errors: list[BaseException] = []

    def stop(self) -> None:
        """Flush, commit and leave the groups, soon."""
        for runner in self._runners.values():
            runner.stop()

    def run(self) -> Counts:
        """Block until all have ended; returns the sums. Raises the first error that one of them ended with."""
        threads = [
            threading.Thread(target=self._run, args=item, name=f"sink {item[0]}") for item in self._runners.items()
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(_LOOK_S)  # in pieces: a signal's handler runs in this thread
        if self.errors:
            raise self.errors[0]
        counts = [runner.counts for runner in self._runners.values()]
        return Counts(
            taken=sum(c.taken for c in counts),
            repeated=sum(c.repeated for c in counts),
            dead_letters=sum(c.dead_letters for c in counts),
        )

    def _run(self, name: str, runner: SinkRunner) -> None:
        try:
            runner.run()
        except ProximaError as error:
            self.errors.append(error)
            log.error("sink %s has ended: %s", name, error)
        except BaseException as error:
            self.errors.append(error)
            log.exception("sink %s has ended", name)
