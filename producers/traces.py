"""Recorded measurements of real networks (`data/`, sources and licences in its README), as arrays.

Nothing here is invented or smoothed: a series is what was measured, in order, with NaN where a probe was lost.
Everything is read once a process; arrays are read-only because all share them.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float32]

OVERLAY: Final = (
    "Haifa_Santiago/Haifa_Santiago",
    "Haifa_Santiago/Haifa_Boston_Santiago",
    "Haifa_Santiago/Haifa_Curitiba_Santiago",
    "Haifa_Santiago/Haifa_Dublin_Santiago",
    "HongKong_Kazakhstan/HongKong_Kazakhstan",
    "HongKong_Kazakhstan/HongKong_Latvia_Kazakhstan",
    "Singapore_HongKong/Singapore_HongKong",
    "Singapore_HongKong/Singapore_Narita_HongKong",
    "Singapore_HongKong/Singapore_Tokyo_HongKong",
)
# Most are of 240 s (HongKong_Kazakhstan: 120 s; the others' is not documented and about 240 s).
STEP_S: Final = 240


@dataclass(frozen=True, slots=True)
class CloudRegion:
    """A region as its operator lists it; `zones` is None where the list does not say."""

    region_id: str
    name: str
    zones: int | None
    latitude: float
    longitude: float


@cache
def overlay_rtt_ms(path: str) -> Series:
    """(steps,) round-trip times of one of the `OVERLAY` paths; NaN: lost."""
    return _series(row["rtt_ms"] for row in _rows(f"overlay_rtt/{path}.csv.gz"))


@cache
def labelled_rtt_ms() -> Mapping[str, Series]:
    """(steps,) round-trip times of each RIPE Atlas probe to one root server, by the probe's number; NaN: lost."""
    by_probe: dict[str, list[str]] = {}
    for row in _rows("labelled_rtt/ripe_atlas_2016-10-18_2016-10-25.csv.gz"):
        by_probe.setdefault(row["probe"], []).append(row["rtt_ms"])
    return {probe: _series(texts) for probe, texts in by_probe.items()}


@cache
def all_rtt_ms() -> Mapping[str, Series]:
    """Every recorded series by name, always in the same order."""
    return {**{path: overlay_rtt_ms(path) for path in OVERLAY}, **labelled_rtt_ms()}


@cache
def cloud_regions() -> Mapping[str, CloudRegion]:
    """21 AWS regions by id."""
    return {
        row["region"]: CloudRegion(
            row["region"],
            row["name"],
            int(row["zones"]) if row["zones"] else None,
            float(row["latitude"]),
            float(row["longitude"]),
        )
        for row in _rows("cloud_regions/aws_regions.csv")
    }


@cache
def cloud_rtt_ms() -> Mapping[tuple[str, str], float]:
    """Mean round-trip time of a short ping from each region to each other one, milliseconds."""
    return {(row["src"], row["dst"]): float(row["avg_rtt_ms"]) for row in _rows("cloud_regions/aws_rtt_ms.csv")}


@cache
def cloud_throughput_bps() -> Mapping[tuple[str, str], Mapping[str, float]]:
    """Received throughput of 64 connections between regions, bits a second, by the month of the measurement."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in _rows("cloud_regions/aws_throughput_bps.csv"):
        found.setdefault((row["src"], row["dst"]), {})[row["measured"]] = float(row["received_bps"])
    return found


def _rows(path: str) -> Iterator[dict[str, str]]:
    packed = files("producers").joinpath("data", path).read_bytes()
    raw = gzip.decompress(packed) if path.endswith(".gz") else packed
    return csv.DictReader(io.StringIO(raw.decode()))


def _series(texts: Iterator[str] | list[str]) -> Series:
    series = np.array([float(text) if text else np.nan for text in texts], np.float32)
    series.setflags(write=False)
    return series
