"""Stage 3: what decide says of every primary, folded into one picture of the network (`stage.py`: crash-safe).

Its verdicts go back to the primaries' journals, by way of intake.
"""

from __future__ import annotations

from typing import Final

from schemas.config import Overview as OverviewConfig
from streams.broker import Broker
from streams.network_fold import NetworkFold
from streams.stage import FoldStage

JOURNAL: Final = "graph-updates"


class Overview(FoldStage[NetworkFold]):
    """One engine for the whole network."""

    name = "overview"

    def __init__(self, broker: Broker, config: OverviewConfig, worker: str) -> None:
        super().__init__(broker, config, worker, JOURNAL)
        self._config = config

    def _fold_of(self, partition: int) -> NetworkFold:
        return NetworkFold(
            topic=JOURNAL,
            topic_id=self._broker.topic_id(JOURNAL),
            partition=partition,
            tick_ms=self._config.tick_ms,
            phase_ms=self._config.phase_ms,
        )
