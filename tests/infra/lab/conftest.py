"""One lab for the tests of this folder, where there may be one; elsewhere they are skipped, and that is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.lab.lab import Lab
from infra.lab.spec import LabSpec
from tests.network import skip_without_lab

EXAMPLE = Path(__file__).parents[3] / "infra" / "examples" / "lab.toml"


def spec(name: str) -> LabSpec:
    """The example, under a name of its own: other labs may run beside."""
    return LabSpec.read(EXAMPLE).model_copy(update={"name": name})


@pytest.fixture(scope="session")
def lab_is_possible() -> None:
    skip_without_lab()


@pytest.fixture(scope="module")
def lab(lab_is_possible: None) -> Iterator[Lab]:
    with Lab.start(spec(f"t{os.getpid()}")) as running:  # tests may run in several processes
        running.wait_for_routes()
        yield running
