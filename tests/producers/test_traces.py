"""The recordings are what their README says, and are told with nothing added."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from producers.traces import (
    OVERLAY,
    all_rtt_ms,
    cloud_regions,
    cloud_rtt_ms,
    cloud_throughput_bps,
    labelled_rtt_ms,
    overlay_rtt_ms,
)


def test_series_have_the_steps_and_losses_that_were_measured() -> None:
    assert [len(overlay_rtt_ms(path)) for path in OVERLAY] == [3836] * 4 + [5040] * 2 + [3836] * 3
    assert np.isnan(overlay_rtt_ms("HongKong_Kazakhstan/HongKong_Kazakhstan")).mean() == pytest.approx(0.027, abs=5e-4)
    assert len(labelled_rtt_ms()) == 16
    assert sum(len(series) for series in labelled_rtt_ms().values()) == 38_052


def test_series_are_milliseconds_and_nobody_can_change_them() -> None:
    for name, series in all_rtt_ms().items():
        answered = series[~np.isnan(series)]
        assert series.dtype == np.float32, name
        assert 1 < answered.min() <= answered.max() < 2000, name
        assert not series.flags.writeable, name


def test_each_region_has_a_round_trip_time_and_a_throughput_to_each_other_one() -> None:
    regions = set(cloud_regions())
    pairs = {(one, other) for one in regions for other in regions if one != other}
    assert len(regions) == 21
    assert set(cloud_rtt_ms()) == pairs
    assert pairs <= set(cloud_throughput_bps())
    assert cloud_regions()["us-east-1"].zones == 6
    assert cloud_regions()["af-south-1"].zones is None


def test_what_is_shipped_goes_with_its_sources_and_licence() -> None:
    data = files("producers").joinpath("data")
    readme = data.joinpath("README.md").read_text()
    for folder in (entry for entry in data.iterdir() if entry.is_dir()):
        assert f"`{folder.name}/" in readme
    assert "Permission is hereby granted" in data.joinpath("overlay_rtt", "LICENSE").read_text()
