"""A lab's file: every mistake is said with its place, and addresses are nobody else's."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from infra.lab.spec import LabSpec
from schemas.errors import ConfigError
from schemas.records import RegionCatalog
from schemas.validate import mistakes
from tests.infra.lab.conftest import EXAMPLE

TWO = """
[[regions]]
id = "a"
latitude = 0
longitude = 0
[[regions]]
id = "b"
latitude = 1
longitude = 1
"""
REPLAY = """
[[links]]
between = ["a", "b"]
trace = "series.csv"
step_seconds = 2
"""


def test_the_example_is_a_lab_whose_catalogue_proxima_takes() -> None:
    spec = LabSpec.read(EXAMPLE)
    assert [r.id for r in spec.regions] == ["eu-west-1", "eu-central-1", "us-east-1"]
    assert mistakes(RegionCatalog(1, spec.catalogue())) == []
    assert sum(link.standby for link in spec.links) == 1


def test_nobody_has_anothers_address_or_number() -> None:
    spec = LabSpec.read(EXAMPLE)
    addresses = [spec.address(r.id) for r in spec.regions] + [a for link in spec.links for a in spec.ends(link)]
    addresses += [spec.address_v6(r.id) for r in spec.regions] + [a for link in spec.links for a in spec.ends_v6(link)]
    assert len(set(addresses)) == len(addresses)
    assert len({spec.as_number(n) for n in spec.nodes}) == len(spec.nodes)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ('[[links]]\nbetween = ["a", "c"]', "ends at c, which is no region"),
        ('[[links]]\nbetween = ["a", "a"]', "from a node to itself"),
        ('[[links]]\nbetween = ["a", "b"]\n[[links]]\nbetween = ["b", "a"]', "more than one link"),
        ('[[links]]\nbetween = ["a", "b"]\nloss_ratio = 2', "links.0.loss_ratio"),
        ('[[links]]\nbetween = ["a", "b"]\ndelay = 2', "links.0.delay"),
        ('[[links]]\nbetween = ["a", "b"]\n[[regions]]\nid = "a"\nlatitude = 0\nlongitude = 0', "named twice: a"),
        ('[[links]]\nbetween = ["a", "b"]\nstep_seconds = 1', "trace and step_seconds go together"),
        (REPLAY + "delay_ms = 1", "either delay_ms or trace"),
        ("[[links", "Expected"),
        ("", "links"),
    ],
)
def test_a_mistake_is_said_with_its_place(tmp_path: Path, added: str, said: str) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(TWO + added)
    with pytest.raises(ConfigError, match=r"lab\.toml") as failure:
        LabSpec.read(path)
    assert said in str(failure.value)


@pytest.mark.parametrize(
    ("series", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"step,rtt\n0,1\n", "series.csv, line 1"),
        (b"step,rtt_ms\n0,1\n1,fast\n", "series.csv, line 3"),
        (b"step,rtt_ms\n", "there is no step in it"),
        (b"step,rtt_ms\n" + b"".join(b"%d,1\n" % i for i in range(15_001)), "15000 are the most"),
    ],
)
def test_a_trace_that_is_none_is_said_with_its_link_file_and_line(
    tmp_path: Path, series: bytes | None, said: str
) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(TWO + REPLAY)
    if series is not None:
        (tmp_path / "series.csv").write_bytes(series)
    with pytest.raises(ConfigError) as failure:
        LabSpec.read(path)
    for part in ("links.0", str(tmp_path / "series.csv"), said):
        assert part in str(failure.value)


@pytest.mark.parametrize("name", ["series.csv", "series.csv.gz"])
def test_a_trace_is_found_beside_the_labs_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(TWO + REPLAY.replace("series.csv", name))
    series = b"step,rtt_ms\n0,10.5\n1,\n2,30\n"
    (tmp_path / name).write_bytes(gzip.compress(series) if name.endswith("gz") else series)
    link = LabSpec.read(path).links[0]
    assert link.rtt_ms == [10.5, None, 30.0]
    assert link.step_seconds == 2
