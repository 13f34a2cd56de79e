"""What may be asked of an actuator, and what an actuator may say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.codec import decode, encode, to_plain
from schemas.records import ActionResult, FailoverConfiguration, PathAction, Remedy, RemedyLimits
from schemas.remedies import DETAIL_MAX
from schemas.validate import mistakes

REMEDY = Remedy("via-t2", "us", "LOCAL_PREFERENCE", "edge", value=200.0)
ACTION = PathAction("a1", 1, "eu", "us", "via-t2", "LOCAL_PREFERENCE", "APPLY", "edge", 200.0, 1, 2, 1, "slow")
RESULT = ActionResult("a1", "eu", "via-t2", "edge", "APPLY", "APPLIED", "done", "CLOSED", 1)


def configuration(*remedies: Remedy, limits: RemedyLimits | None = None) -> FailoverConfiguration:
    return FailoverConfiguration("eu", ["us"], 1, remedies=list(remedies), remedy_limits=limits or RemedyLimits())


def test_a_configuration_with_a_remedy_is_read_as_it_was_written() -> None:
    written = configuration(REMEDY, replace(REMEDY, remedy_id="more", kind="BANDWIDTH", value=2e9, cost=5))
    assert mistakes(written) == []
    assert decode(encode(written), FailoverConfiguration) == written


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"remedy_id": "via t2; reboot"}, "remedy_id 'via t2; reboot' does not match"),
        ({"actuator": "http://10.0.0.1/"}, "actuator 'http://10.0.0.1/' does not match"),
        ({"target_region": "ap"}, "target_region ap is no candidate"),
        ({"kind": "SHELL"}, "kind 'SHELL' is unknown"),
        ({"value": -1.0}, "value of LOCAL_PREFERENCE is -1"),
        ({"value": float("nan")}, "value of LOCAL_PREFERENCE is nan"),
        ({"value": 100.5}, "no whole number"),
        ({"kind": "AS_PATH_PREPEND", "value": 11.0}, "value of AS_PATH_PREPEND is 11, not within 1 to 10"),
        ({"kind": "LINK", "value": 1.0}, "value of LINK is 1, not within 0 to 0"),
        ({"gain_ratio": 0.0}, "gain_ratio is 0"),
        ({"verify_within_ms": 10}, "verify_within_ms is 10"),
    ],
)
def test_a_remedy_that_no_actuator_should_see_is_refused(wrong: dict[str, object], what: str) -> None:
    found = mistakes(configuration(replace(REMEDY, **wrong)))  # type: ignore[arg-type]
    assert any(what in m and m.startswith("remedy ") for m in found), found


def test_a_remedy_has_a_name_of_its_own_and_limits_are_limits() -> None:
    assert mistakes(configuration(REMEDY, REMEDY)) == ["remedy via-t2 is given twice"]
    assert "remedy_limits.window_ms is 0" in mistakes(configuration(limits=RemedyLimits(window_ms=0)))[0]
    wrong = RemedyLimits(breaker_open_ms=2, breaker_open_ms_max=1)
    assert "breaker_open_ms must not be above" in mistakes(configuration(limits=wrong))[0]


@pytest.mark.parametrize(
    "wrong",
    [{"action_id": "a; b"}, {"operation": "TOGGLE"}, {"kind": "SHELL"}, {"value": float("inf")}, {"actuator": "$(id)"}],
)
def test_an_action_that_overview_would_not_write_is_told_by_its_looks(wrong: dict[str, object]) -> None:
    assert mistakes(ACTION) == []
    assert mistakes(replace(ACTION, **wrong)) != []  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"outcome": "FINE"}, {"operation": ""}, {"detail": "x" * (DETAIL_MAX + 1)}])
def test_a_result_says_one_of_the_things_that_results_say(wrong: dict[str, object]) -> None:
    assert mistakes(RESULT) == []
    assert len(mistakes(replace(RESULT, **wrong))) == 1  # type: ignore[arg-type]


def test_an_action_carries_no_command_address_or_interface() -> None:
    """What a remedy does is in the actuator's own file: whoever writes to Kafka cannot say it."""
    told = {"action_id", "sequence", "primary_region", "target_region", "remedy_id", "kind", "operation", "actuator"}
    numbers = {"value", "planned_at_ms", "expires_at_ms", "config_version", "expected_gain"}
    assert to_plain(ACTION).keys() == told | numbers | {"reason", "verification"}
