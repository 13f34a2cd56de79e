"""The actuators' own file: typed throughout, bounded, and every mistake at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.configuration import read_draft
from schemas.actuators import ActuatorsConfig, Frr, Links, Provider
from schemas.config import load
from schemas.errors import ConfigError
from schemas.records import RemedyKind

EXAMPLES = Path(__file__).parents[2] / "infra" / "examples"
FRR = """
[[frr]]
name = "edge"
routers = [{{name = "r", as_number = 65001}}]
[[frr.tasks]]
primary = "eu"
remedy = "x"
kind = "{kind}"
{bounds}
at = [{{router = "{router}", neighbor = "{neighbor}", {route_map}}}]
"""


def found(tmp_path: Path, text: str) -> str:
    path = tmp_path / "actuators.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load(ActuatorsConfig, path, {})
    return "; ".join(wrong.value.mistakes)


def frr(**change: str) -> str:
    right = {"kind": "LOCAL_PREFERENCE", "bounds": "value_max = 300", "router": "r", "neighbor": "10.0.0.1",
             "route_map": 'route_map = "m"'}  # fmt: skip
    return FRR.format(**right | change)


def test_the_example_is_a_dry_run_with_every_kind_of_actuator() -> None:
    config = load(ActuatorsConfig, EXAMPLES / "actuators.toml", {})
    assert config.actuators.dry_run
    assert config.frr
    assert config.links
    assert config.providers


def test_the_examples_of_remedies_and_actuators_fit_each_other() -> None:
    config = load(ActuatorsConfig, EXAMPLES / "actuators.toml", {})
    every: list[Frr | Links | Provider] = [*config.frr, *config.links, *config.providers]
    tasks = {(a.name, t.primary, t.remedy) for a in every for t in a.tasks}
    (configuration,) = read_draft(EXAMPLES / "remedies.toml").configurations
    assert {(r.actuator, configuration.primary_region, r.remedy_id) for r in configuration.remedies} == tasks
    assert {r.kind for r in configuration.remedies} == set(RemedyKind)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"kind": "SHELL"}, "kind"),
        ({"bounds": "value_min = 400\nvalue_max = 300"}, "value_min is above value_max"),
        ({"kind": "AS_PATH_PREPEND", "bounds": "value_max = 11"}, "value_max is above 10"),
        ({"router": "other"}, "other, which is none of the routers"),
        ({"neighbor": "10.0.0.1; reload"}, "neighbor"),
        ({"route_map": 'route_map = "m permit 10\\nno router bgp"'}, "route_map"),
        ({"route_map": "entry = 5"}, "needs a route_map"),
    ],
)
def test_what_could_be_another_command_is_a_mistake(tmp_path: Path, change: dict[str, str], what: str) -> None:
    assert what in found(tmp_path, frr(**change))


def test_a_name_is_one_actuators_and_a_remedy_has_one_task(tmp_path: Path) -> None:
    assert "more than one actuator is called edge" in found(tmp_path, frr() + frr())
    task = '{primary = "eu", remedy = "x", device = "eth0"}'
    assert "more than one task for eu/x" in found(tmp_path, f'[[links]]\nname = "l"\ntasks = [{task}, {task}]')


@pytest.mark.parametrize("device", ["../etc", "eth0 up; reboot", "-batch", "", "a" * 16])
def test_a_device_is_a_device(tmp_path: Path, device: str) -> None:
    text = f'[[links]]\nname = "l"\ntasks = [{{primary = "eu", remedy = "x", device = "{device}"}}]'
    assert "links.0.tasks.0.device" in found(tmp_path, text)


@pytest.mark.parametrize("url", ["ftp://x", "https://user:secret@host", "https://host/?q=1", "file:///etc/passwd"])
def test_a_provider_is_an_address_without_secrets(tmp_path: Path, url: str) -> None:
    task = '{primary = "eu", remedy = "x", circuit = "C", usual_bps = 1, value_max = 2}'
    assert "providers.0.url" in found(tmp_path, f'[[providers]]\nname = "p"\nurl = "{url}"\ntasks = [{task}]')
