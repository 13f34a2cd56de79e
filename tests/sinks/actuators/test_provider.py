"""A provider that does what it says, and others: slow, silent, broken, lying, garbage."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from schemas.actuators import Provider, ProviderTask
from sinks.actuators.actuator import ActuatorError, Wanted
from sinks.actuators.provider import Circuit, Order, ProviderActuator
from tests.sinks.actuators.providers import Simulator, simulator

USUAL, MORE = 1_000_000_000, 4_000_000_000
APPLY = Wanted("eu", "more", "BANDWIDTH", applies=True, value=MORE)
ROLL_BACK = Wanted("eu", "more", "BANDWIDTH", applies=False, value=MORE)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with simulator(tmp_path_factory.mktemp("provider")) as its:
        yield its


def actuator(provider: Simulator, *, circuit: str = "C-1", token_file: Path | None = None) -> ProviderActuator:
    task = ProviderTask(primary="eu", remedy="more", circuit=circuit, usual_bps=USUAL, value_max=10 * USUAL)
    its = Provider(
        name="carrier", url=provider.url, token_file=token_file or provider.token_file, timeout_ms=500, settle_ms=300,
        tasks=(task,),
    )  # fmt: skip
    return ProviderActuator(its)


def test_an_honest_provider_gives_and_takes_back_and_repeating_has_no_further_effect(provider: Simulator) -> None:
    provider.behaves("honest")
    its = actuator(provider, circuit="C-honest")
    assert not its.is_so(APPLY)
    assert its.is_so(ROLL_BACK)
    its.do(APPLY, "a-1")
    its.do(APPLY, "a-1")
    assert its.is_so(APPLY)
    assert [o["order"] for key, o in provider.seen()["orders"].items() if key == "a-1"] == ["order-1"]
    its.do(ROLL_BACK, "a-2")
    assert its.is_so(ROLL_BACK)
    assert provider.seen()["circuits"]["C-honest"] == USUAL


@pytest.mark.parametrize(
    ("mode", "what"),
    [
        ("slow", "no answer within 500 ms"),
        ("hangs", "no answer within 500 ms"),
        ("garbage", "not what the API describes"),
        ("wrong", "not what the API describes"),
        ("broken", "answers 500"),
        ("yes", "said yes"),
        ("moved", "answers 307"),
        ("endless", "more than 65536 bytes"),
    ],
)
def test_a_provider_that_does_otherwise_is_a_failure_in_its_time(provider: Simulator, mode: str, what: str) -> None:
    its = actuator(provider, circuit=f"C-{mode}")
    provider.behaves(mode)
    began_s = time.monotonic()
    with pytest.raises(ActuatorError) as failed:
        its.do(APPLY, f"b-{mode}")
    assert what in str(failed.value)
    assert time.monotonic() - began_s < 2
    provider.behaves("honest")
    assert its.is_so(ROLL_BACK)


def test_a_wrong_token_and_a_provider_that_is_not_there_are_failures_that_show_no_token(
    provider: Simulator, tmp_path: Path
) -> None:
    provider.behaves("honest")
    token = tmp_path / "token"
    token.write_text("my-secret")
    with pytest.raises(ActuatorError, match="answers 401") as failed:
        actuator(provider, token_file=token).is_so(APPLY)
    assert "my-secret" not in str(failed.value)
    with pytest.raises(ActuatorError, match="token cannot be read"):
        actuator(provider, token_file=tmp_path / "none").is_so(APPLY)
    nobody = Simulator("http://127.0.0.1:1", provider.token_file)
    with pytest.raises(ActuatorError, match="127"):
        actuator(nobody).is_so(APPLY)


def test_what_is_not_in_its_file_is_refused_before_anybody_is_asked(provider: Simulator) -> None:
    its = actuator(provider)
    asked = len(provider.seen()["requests"])
    others = (
        Wanted("ap", "more", "BANDWIDTH", applies=True, value=MORE),
        Wanted("eu", "most", "BANDWIDTH", applies=True, value=MORE),
        Wanted("eu", "more", "LINK", applies=True, value=0),
        Wanted("eu", "more", "BANDWIDTH", applies=True, value=11 * USUAL),
    )
    for wanted in others:
        assert its.refuses(wanted) is not None
    assert its.refuses(APPLY) is None
    assert len(provider.seen()["requests"]) == asked


def test_the_description_of_the_api_is_what_the_actuator_reads() -> None:
    api = json.loads(files("infra.provider").joinpath("openapi.json").read_text())
    for model in (Circuit, Order):
        described: dict[str, Any] = api["components"]["schemas"][model.__name__]
        read = model.model_json_schema()
        assert described["required"] == read["required"]
        for name, its in described["properties"].items():
            ours = read["properties"][name]
            assert {k: its.get(k) for k in ("type", "minimum", "maximum", "minLength", "maxLength")} == {
                k: ours.get(k) for k in ("type", "minimum", "maximum", "minLength", "maxLength")
            }
    assert set(api["paths"]) == {"/v1/circuits/{circuit}", "/v1/circuits/{circuit}/bandwidth"}
