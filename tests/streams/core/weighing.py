"""Weights asked for one metric or path at a time, by name: what the stories and properties are told in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from schemas.records import Array, Policy
from streams.core.weights import METRICS, Said, Scale, network_weight


def rows(columns: Mapping[str, Array]) -> Array:
    """(metrics, paths) of columns by metric."""
    return np.stack([columns[metric] for metric in METRICS])


def shares(
    measured: Mapping[str, Array], injected: Mapping[str, Array], confidence: Array, policy: Policy
) -> dict[str, Array]:
    """ln of each metric's share of the network weight, and `uncertainty`, and what one source moved; each (paths,)."""
    found = network_weight(rows(measured), Said.by_one(rows(injected)), confidence, policy, Scale.of(policy))
    moved = np.zeros(len(confidence)) if found.moved is None else found.moved.sum(axis=0)
    own = dict(zip(METRICS, found.contributions, strict=True))
    return own | {"uncertainty": found.uncertainty, "injected": moved}


def impairment(metric: str, values: Array, policy: Policy) -> Array:
    """(paths,) of one metric's values."""
    row = METRICS.index(metric)
    table = np.full((len(METRICS), len(values)), np.nan)
    table[row] = values
    return Scale.of(policy).impairment(table)[row]  # type: ignore[no-any-return]


def at_impairment(metric: str, impairments: Array, policy: Policy) -> Array:
    """(paths,) values of one metric."""
    row = METRICS.index(metric)
    return Scale.of(policy).at_impairment(np.tile(impairments, (len(METRICS), 1)))[row]  # type: ignore[no-any-return]
