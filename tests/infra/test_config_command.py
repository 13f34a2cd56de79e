"""Regions and configurations from a file to what a real worker goes by, and back."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.cli.config import history
from infra.configuration import as_toml, checked, in_force, numbered, read_draft
from infra.stores.reading import Version
from schemas.codec import encode, to_plain
from schemas.errors import ConfigError
from schemas.records import FailoverConfiguration, HealthEndpoint, Policy, Region, RegionCatalog
from schemas.validate import mistakes
from tests.infra.commands import fails, lines, proxima, succeeds
from tests.infra.conftest import Topics
from tests.schemas.strategies import record_of

EXAMPLES = Path(__file__).parents[2] / "infra" / "examples"
CONFIGURED = FailoverConfiguration("eu-west-1", ["us-east-1", "ap-south-1"], 1, weights={"us-east-1": 0.5})


same_folder = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def toml(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


# -- files


def test_every_mistake_in_a_file_is_found_at_once(tmp_path: Path) -> None:
    path = toml(tmp_path, """
version = 0
colour = "red"
[[regions]]
region_id = "EU"
latitude = 99
longitude = "x"
[[regions]]
region_id = "us-east-1"
latitude = 38.9
[[configurations]]
primary_region = "eu-west-1"
potential_failover_regions = ["eu-west-1", 3]
unknown = 1
[configurations.weights]
us-east-1 = "heavy"
[configurations.policy]
latency_good_ms = 70000
margin = 2
heartbeat_ms = 1.5
[[configurations]]
based_on = 4
version = 3
potential_failover_regions = []
""")  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        read_draft(path)
    found = "\n".join(raised.value.mistakes)
    for said in (
        "colour is unknown",
        "version is not above 0",
        'regions[0].longitude is "x", not a number',
        "region_id 'EU' is no region id",
        "EU: latitude is 99",
        "regions[1].longitude is missing",
        "configurations[0].unknown is unknown",
        "configurations[0].potential_failover_regions[1] is 3, not a string",
        'configurations[0].weights.us-east-1 is "heavy", not a number',
        "configurations[0].policy.margin is unknown",
        "configurations[0].policy.heartbeat_ms is 1.5",
        "configurations[0].eu-west-1 cannot be its own failover region",
        "configurations[0].policy.latency_good_ms must be above 0 and below",
        "configurations[1].primary_region is missing",
        "configurations[1].potential_failover_regions is empty",
        "configurations[1].based_on 4 is not below version 3",
        "configurations: eu-west-1 is none of the regions",
    ):
        assert said in found
    assert len(raised.value.mistakes) == 17
    assert "stand-in" not in found


BAD = """
[[regions]]
region_id = "eu-west-1"
latitude = 53
longitude = -6
[[regions]]
region_id = "us-east-1"
latitude = 98
longitude = -77
[[configurations]]
primary_region = "eu-west-1"
potential_failover_regions = ["us-east-1", "ap-south-1"]
colour = "red"
[configurations.weights]
us-east-1 = 1.5
[[configurations]]
primary_region = "mars"
potential_failover_regions = ["eu-west-1"]
load_ratio = "half"
"""
BADLY = (
    "us-east-1: latitude is 98, not within -90 to 90",
    "configurations[0].colour is unknown",
    "configurations[0].weight of us-east-1 is 1.5, not within 1e-06 to 1",
    'configurations[1].load_ratio is "half", not a number',
    "configurations: eu-west-1: ap-south-1 is none of the regions, and has no weight",
    "configurations: mars is none of the regions",
)


def test_no_mistake_hides_those_that_only_the_whole_file_shows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read_draft(toml(tmp_path, BAD))
    assert raised.value.mistakes == BADLY
    with pytest.raises(ConfigError) as raised:  # this region might be the missing one
        read_draft(toml(tmp_path, BAD.replace('"us-east-1"', "3", 1)))
    assert not [m for m in raised.value.mistakes if "none of the regions" in m]


def test_what_only_the_whole_file_shows_is_found_too(tmp_path: Path) -> None:
    path = toml(tmp_path, """
[[regions]]
region_id = "eu-west-1"
latitude = 53
longitude = -6
agents = ["eu-west-1/a"]
[[configurations]]
primary_region = "eu-west-1"
potential_failover_regions = ["us-east-1", "ap-south-1"]
weights = {us-east-1 = 0.5}
policy = {must_be_healthy = ["eu-west-1/a", "eu-west-1/b"]}
[[configurations]]
primary_region = "eu-west-1"
potential_failover_regions = ["us-east-1"]
weights = {us-east-1 = 0.5}
""")  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        read_draft(path)
    assert raised.value.mistakes == (
        "configurations: eu-west-1 is configured twice",
        "configurations: eu-west-1: eu-west-1/b must be healthy, and is none of its agents",
        "configurations: eu-west-1: ap-south-1 is none of the regions, and has no weight",
    )


@pytest.mark.parametrize("plain", [None, [], 3, {}, {"regions": 3}, {"configurations": 3}, {"configurations": [3]},
                                   {"regions": [3], "version": "x"}, {"primary_region": None}], ids=str)  # fmt: skip
def test_whatever_a_file_holds_it_is_mistakes_and_no_exception(plain: Any) -> None:
    _, found = checked(plain)
    assert found


def test_json_and_toml_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"configurations": [to_plain(CONFIGURED)]}))
    assert read_draft(path).configurations == [CONFIGURED]
    path.write_text(json.dumps(to_plain(CONFIGURED)))
    assert read_draft(path).configurations == [CONFIGURED]
    assert read_draft(toml(tmp_path, as_toml(CONFIGURED))).configurations == [CONFIGURED]


@same_folder
@given(record=record_of("FailoverConfiguration"))
def test_whatever_is_in_force_is_printed_as_a_file_that_says_the_same(tmp_path: Path, record: Any) -> None:
    path = toml(tmp_path, as_toml(record))
    if mistakes(record):
        with pytest.raises(ConfigError):
            read_draft(path)
    else:
        assert read_draft(path).configurations == [record]


@same_folder
@given(author=st.text(st.characters(codec="utf-8")))
def test_any_author_survives_being_printed(tmp_path: Path, author: str) -> None:
    record = replace(CONFIGURED, author=author)
    assert read_draft(toml(tmp_path, as_toml(record))).configurations == [record]


def test_a_catalogue_is_printed_as_a_file_that_says_the_same(tmp_path: Path) -> None:
    health = [HealthEndpoint("https://a.example.com/", 204, "b.example.com"), HealthEndpoint("tcp://192.0.2.1:1")]
    named = Region("a", 1.5, -2.0, 'A "quoted" \\ name, ü', 0.5, health=health)
    catalogue = RegionCatalog(3, [named, Region("b", 0.0, 0.0)])
    assert read_draft(toml(tmp_path, as_toml(catalogue))).catalogue == catalogue


def test_every_mistake_in_a_health_endpoint_is_told_with_its_region(tmp_path: Path) -> None:
    text = """
        [[regions]]
        region_id = "a"
        latitude = 1.0
        longitude = 2.0
        [[regions.health]]
        expected_status = 99
        [[regions.health]]
        url = "https://me:secret@a.example.com/"
    """
    with pytest.raises(ConfigError) as raised:
        read_draft(toml(tmp_path, text))
    said = "\n".join(raised.value.mistakes)
    assert "regions[0].health[0].url is missing" in said
    assert "expected_status 99 is not within 100 to 599" in said
    assert "has a password or name in it" in said


# -- compare and set


def version(number: int, based_on: int, **changed: Any) -> FailoverConfiguration:
    return FailoverConfiguration("a", ["b"], number, based_on=based_on, **changed)


def test_in_force_is_what_compare_and_set_leaves() -> None:
    assert in_force([]) is None
    assert in_force([version(1, 0), version(3, 1), version(2, 1), version(4, 3)]) == version(4, 3)
    assert in_force([version(2, 1)]) is None, "based on something that never was"
    broken = FailoverConfiguration("a", ["a"], 1)
    assert in_force([broken, version(1, 0)]) == version(1, 0)


def test_a_file_without_versions_follows_what_is_in_force() -> None:
    open_ended = version(0, 0, author="x")
    assert numbered(open_ended, None) == version(1, 0, author="x")
    assert numbered(open_ended, version(7, 4)) == version(8, 7, author="x")
    assert numbered(version(0, 0), version(7, 4)) == version(7, 4), "it says the same: nothing changes"
    assert numbered(version(3, 2), version(7, 4)) == version(3, 2), "a file that says its version means it"


# -- commands


def test_check_needs_no_broker_and_tells_mistakes_by_exit_code(tmp_path: Path) -> None:
    assert "5 regions" in succeeds("config", "check", EXAMPLES / "regions.toml")
    assert json.loads(succeeds("config", "check", EXAMPLES / "config.toml", "--json"))["mistakes"] == []
    bad = toml(tmp_path, "[[configurations]]\nprimary_region = 'A'\npotential_failover_regions = []\n")
    said = fails(1, "config", "check", bad)
    assert said.startswith(f"proxima: {bad}: 2 mistakes:")
    done = proxima("config", "check", bad, "--json")
    assert done.returncode == 1
    assert len(json.loads(done.stdout)["mistakes"]) == 2
    assert "no such file" in fails(1, "config", "check", tmp_path / "missing.toml")


@pytest.mark.kafka
def test_an_invalid_file_changes_nothing_and_names_every_mistake(topics: Topics, tmp_path: Path) -> None:
    said = fails(1, "config", "apply", toml(tmp_path, BAD), **topics.environment)
    assert f"{len(BADLY)} mistakes" in said
    assert all(mistake in said for mistake in BADLY)
    assert lines("tail", "failover-config", "--from-beginning", "--to-end", **topics.environment) == []


@pytest.mark.kafka
def test_without_a_worker_apply_says_so_at_its_deadline(topics: Topics) -> None:
    said = fails(1, "config", "apply", EXAMPLES / "config.toml", "--timeout-s", "0.5", **topics.environment)
    assert "2 of 2 not applied" in said
    assert "eu-west-1 unanswered" in said
    assert len(lines("tail", "failover-config", "--from-beginning", "--to-end", **topics.environment)) == 2


@pytest.mark.kafka
def test_apply_waits_for_what_a_real_worker_says(worker: Topics, tmp_path: Path) -> None:
    env = worker.environment

    def apply(file: Path, *, code: int = 0) -> list[dict[str, Any]]:
        done = proxima("config", "apply", file, "--json", **env)
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    regions, configurations = EXAMPLES / "regions.toml", EXAMPLES / "config.toml"
    assert [(a["what"], a["outcome"]) for a in apply(regions)] == [("regions", "sent")]
    assert [(a["what"], a["outcome"]) for a in apply(regions)] == [("regions", "unchanged")]
    for _ in range(2):  # the second time nothing changes
        assert [(a["what"], a["version"], a["outcome"]) for a in apply(configurations)] == [
            ("eu-west-1", 1, "accepted"), ("us-east-1", 1, "accepted")
        ]  # fmt: skip

    mine = tmp_path / "mine.toml"
    mine.write_text(succeeds("config", "get", "us-east-1", **env).replace("\ndwell_ms = 5000", "\ndwell_ms = 6000"))
    [answer] = apply(mine, code=1)
    assert answer["outcome"] == "rejected", "changed, and still says that it is version 1"
    assert "version 1 by nobody named is in force" in answer["reason"]

    text = mine.read_text().replace("version = 1\nbased_on = 0", "version = 2\nbased_on = 1")
    mine.write_text(text)
    assert [(a["version"], a["outcome"]) for a in apply(mine)] == [(2, "accepted")]
    in_force_now = json.loads(succeeds("config", "get", "us-east-1", "--json", **env))
    assert (in_force_now["version"], in_force_now["policy"]["dwell_ms"]) == (2, 6000)

    mine.write_text(text.replace("version = 2\nbased_on = 1\n", "").replace("\ndwell_ms = 6000", "\ndwell_ms = 7000"))
    assert [(a["version"], a["outcome"]) for a in apply(mine)] == [(3, "accepted")], "it follows by itself"

    stranger = FailoverConfiguration("sa-east-1", ["us-east-1"], 5, based_on=4)
    mine.write_text(as_toml(stranger))
    [answer] = apply(mine, code=1)
    assert answer["outcome"] == "rejected", "decide's dead letter is an answer too"
    assert "based_on is 4" in answer["reason"]

    mine.write_text(as_toml(RegionCatalog(1, [Region("eu-west-1", 1.0, 2.0)])))
    assert "is not above 1" in fails(1, "config", "apply", mine, **env)
    watched = json.loads(succeeds("watch", "--json", **env))
    assert set(watched) == {"eu-west-1", "us-east-1"}


@pytest.mark.kafka
def test_get_shows_what_is_in_force_whatever_else_is_on_the_topic(topics: Topics) -> None:
    env = topics.environment
    assert "there is nothing yet" in fails(1, "config", "get", "eu-west-1", **env)
    first, second = (
        CONFIGURED,
        FailoverConfiguration("eu-west-1", ["us-east-1"], 2, based_on=1, policy=Policy(dwell_ms=1, dwell_min_ms=1)),
    )
    lost = FailoverConfiguration("eu-west-1", ["ap-south-1"], 9, based_on=1)
    topics.publish("failover-config", encode(first), b"garbage", b"{}", None, encode(second), encode(lost))
    typed = json.dumps({"version": 4, "regions": [{"region_id": "a", "latitude": 1, "longitude": 2}]}).encode()
    topics.publish("failover-config", typed, encode(RegionCatalog(3, [])), key="regions")
    assert json.loads(succeeds("config", "get", "eu-west-1", "--json", **env)) == to_plain(second)
    assert json.loads(succeeds("config", "get", "regions", "--json", **env))["version"] == 4
    assert "there is regions, eu-west-1" in fails(1, "config", "get", "mars", **env)
    assert succeeds("config", "get", "eu-west-1", **env).startswith("# To change it: version = 3, based_on = 2")


def test_a_terminal_obeys_nothing_that_stands_in_a_history(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = replace(CONFIGURED, author="an\x1b[31mna\r", potential_failover_regions=["us\x1b[2J-east-1"])

    class Kept:
        def configurations(self, _primary: str) -> list[Version]:
            return [Version(forged, 0)]

    monkeypatch.setattr("infra.stores.reading.store_of", lambda *_: nullcontext(Kept()))
    history("eu-west-1")
    assert capsys.readouterr().out.endswith("  version 1  by an?[31mna: us?[2J-east-1\n")
