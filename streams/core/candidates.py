"""A primary's candidates, as configuration and catalogue name them: their numbers, and what is known before measuring.

All of it is worked out when one of the two changes, and not at every tick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from schemas.records import Array, FailoverConfiguration, Region
from streams.core.baseline import baseline_weights, great_circle_km
from streams.core.weights import Scale

Catalogue = Mapping[str, Region]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """In the configuration's order, by which everything else numbers them; every array is (targets,)."""

    regions: list[str]
    numbers: dict[str, int]
    in_catalogue: Array  # bool: the primary is there, and the candidate too
    capacity: Array  # ratio to the primary's
    distance_km: Array  # from the primary
    configured: Array  # the baseline weight that the configuration gives; NaN: none
    known: Array  # bool: in the catalogue or given a weight
    baseline: Array  # in (0, 1], with all of their capacity
    name_order: Array  # place in alphabetical order
    scale: Scale
    proximity_scale_km: float

    @classmethod
    def of(cls, configuration: FailoverConfiguration, catalogue: Catalogue) -> Candidates:
        """What both say now; a region that the catalogue does not name is nowhere in particular."""
        home = catalogue.get(configuration.primary_region)
        found = [catalogue.get(region) for region in configuration.potential_failover_regions]
        latitude, longitude = (
            np.array([getattr(r, a) if r else 0.0 for r in found]) for a in ("latitude", "longitude")
        )
        return cls._placed(
            configuration,
            in_catalogue=np.array([home is not None and r is not None for r in found]),
            capacity=np.array([r.capacity_ratio if r else 1.0 for r in found]),
            distance_km=(
                great_circle_km(home.latitude, home.longitude, latitude, longitude) if home else np.zeros(len(found))
            ),
        )

    @classmethod
    def _placed(
        cls, configuration: FailoverConfiguration, *, in_catalogue: Array, capacity: Array, distance_km: Array
    ) -> Candidates:
        regions, policy = configuration.potential_failover_regions, configuration.policy
        configured = np.array([configuration.weights.get(r, np.nan) for r in regions])
        return cls(
            regions=regions,
            numbers={region: i for i, region in enumerate(regions)},
            in_catalogue=in_catalogue,
            capacity=capacity,
            distance_km=distance_km,
            configured=configured,
            known=in_catalogue | ~np.isnan(configured),
            baseline=_baseline(distance_km, capacity, policy.proximity_scale_km, configured),
            name_order=np.argsort(np.argsort(regions)),
            scale=Scale.of(policy),
            proximity_scale_km=policy.proximity_scale_km,
        )

    def baseline_at(self, capacity_ratio: Array) -> Array:
        """(targets,) baseline weights in (0, 1] with so much of each capacity."""
        return _baseline(self.distance_km, self.capacity * capacity_ratio, self.proximity_scale_km, self.configured)

    def save(self) -> dict[str, Array]:
        """What the catalogue said, for a snapshot: arrays."""
        return {"in_catalogue": self.in_catalogue, "capacity": self.capacity, "distance_km": self.distance_km}

    @classmethod
    def load(cls, configuration: FailoverConfiguration, arrays: Mapping[str, Array]) -> Candidates:
        """As they were, without the catalogue."""
        return cls._placed(
            configuration,
            in_catalogue=arrays["in_catalogue"],
            capacity=arrays["capacity"],
            distance_km=arrays["distance_km"],
        )


def _baseline(distance_km: Array, capacity: Array, scale_km: float, configured: Array) -> Array:
    weights = baseline_weights(distance_km, capacity, scale_km)
    return np.where(np.isnan(configured), weights, configured)
