"""Capacity of each path, as measured last, and by whom."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from schemas.records import Array, BandwidthMeasurement


class Bandwidth:
    """State of one primary's paths; `bps` is (targets,), NaN where nothing was measured."""

    def __init__(self, targets: int) -> None:
        self.bps: Array = np.full(targets, np.nan)
        self.by: dict[str, str] = {}  # target -> the agent that measured it

    def take(self, measurement: BandwidthMeasurement, numbers: Mapping[str, int]) -> None:
        """Take one in; `numbers`: of the targets, by name."""
        number = numbers.get(measurement.target_region)
        if number is not None:
            self.bps[number] = measurement.bandwidth_bps
            self.by[measurement.target_region] = measurement.agent_id

    def only_of(self, agents: Collection[str], numbers: Mapping[str, int]) -> None:
        """Forget what any other agent measured."""
        self.by = {region: agent for region, agent in self.by.items() if agent in agents}
        for region, number in numbers.items():
            if region not in self.by:
                self.bps[number] = np.nan

    def renumber(self, place: Mapping[int, int], numbers: Mapping[str, int]) -> None:
        """Targets have new numbers; `place`: the new one of each old one that is still there."""
        before, self.bps = self.bps, np.full(len(numbers), np.nan)
        self.by = {region: agent for region, agent in self.by.items() if region in numbers}
        for old, new in place.items():
            self.bps[new] = before[old]
