"""Baseline weight of a path, before anything is measured: geographic proximity times capacity."""

from __future__ import annotations

import numpy as np

from schemas.records import Array

_EARTH_RADIUS_KM = 6371.0088  # IUGG mean radius


def great_circle_km(latitude: float, longitude: float, latitudes: Array, longitudes: Array) -> Array:
    """Distance from one point to each of many, kilometres; degrees in, (regions,) out. Source: haversine formula."""
    phi, phis = np.radians(latitude), np.radians(latitudes)
    half_dphi, half_dlambda = (phis - phi) / 2, np.radians(longitudes - longitude) / 2
    h = np.sin(half_dphi) ** 2 + np.cos(phi) * np.cos(phis) * np.sin(half_dlambda) ** 2
    distance: Array = 2 * _EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(h, 0, 1)))
    return distance


def baseline_weights(distance_km: Array, capacity_ratio: Array, proximity_scale_km: float) -> Array:
    """(regions,) in (0, 1]: 1/(1 + distance/scale) times capacity; higher capacity or proximity never lowers it."""
    proximity = 1.0 / (1.0 + distance_km / proximity_scale_km)
    return np.clip(proximity * capacity_ratio, 1e-6, 1.0)
