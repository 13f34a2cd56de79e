"""A lab's file: every mistake is said with its place, and addresses are nobody else's."""

from __future__ import annotations

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
