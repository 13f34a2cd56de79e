"""One file a role: every mistake at once, the environment wins, nothing unknown passes, examples load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.configuration import read_draft
from schemas.config import (
    ClientConfig,
    GatewayConfig,
    ProbeConfig,
    ReadinessConfig,
    RespondConfig,
    RoleConfig,
    RoutesConfig,
    SinkConfig,
    WorkerConfig,
    load,
)
from schemas.errors import ConfigError
from schemas.webhook import Destination

EXAMPLES = Path(__file__).parents[2] / "infra" / "examples"
ROLES: dict[str, type[RoleConfig]] = {
    "worker.toml": WorkerConfig,
    "sink.toml": SinkConfig,
    "cassandra.toml": SinkConfig,
    "dynamodb.toml": SinkConfig,
    "probe.toml": ProbeConfig,
    "readiness.toml": ReadinessConfig,
    "routes.toml": RoutesConfig,
    "respond.toml": RespondConfig,
    "webhook.toml": SinkConfig,
    "gateway.toml": GatewayConfig,
}


def written(folder: Path, text: str) -> Path:
    path = folder / "role.toml"
    path.write_text(text)
    return path


def mistakes(role: type[RoleConfig], path: Path | None, environment: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        load(role, path, environment or {})
    return raised.value.mistakes


def test_without_file_and_environment_there_are_defaults() -> None:
    assert load(WorkerConfig, None, {}) == WorkerConfig()
    assert load(ClientConfig, None, {}).kafka.bootstrap == "127.0.0.1:9092"


def test_every_mistake_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, """
colour = "red"
[kafka]
bootstrap = 9092
hosts = ["a"]
[intake]
tick_ms = 5
[decide]
tick_ms = "soon"
[worker]
stages = []
""")  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        load(WorkerConfig, path, {})
    places = sorted(m.split(":")[0] for m in raised.value.mistakes)
    assert places == [
        "colour", "decide.tick_ms", "intake.tick_ms", "kafka.bootstrap", "kafka.hosts", "worker.stages"
    ]  # fmt: skip
    assert str(path) in str(raised.value)


def test_a_mistake_in_a_list_has_its_number(tmp_path: Path) -> None:
    path = written(tmp_path, """
[probe]
agent_id = "a/1"
primary_region = "eu-west-1"
targets = [{region = "eu-central-1", address = "x"}, {region = "NO", address = "", port = 0}]
""")  # fmt: skip
    assert sorted(m.split(":")[0] for m in mistakes(ProbeConfig, path)) == [
        "probe.targets.1.address",
        "probe.targets.1.port",
        "probe.targets.1.region",
    ]


def test_what_a_role_needs_and_nobody_says_is_missing() -> None:
    assert [m.split(":")[0] for m in mistakes(ProbeConfig, None)] == ["probe"]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, '[kafka]\nbootstrap = "file:1"\ntopic_prefix = "p-"\n')
    found = load(ClientConfig, path, {"PROXIMA_KAFKA__BOOTSTRAP": "environment:2"})
    assert found.kafka.bootstrap == "environment:2"
    assert found.kafka.topic_prefix == "p-"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PROXIMA_INTAKE__TICK_MS", "500", 500),
        ("PROXIMA_WORKER__STAGES", '["decide"]', ("decide",)),
        ("PROXIMA_WORKER__SESSION_TIMEOUT_S", "7.5", 7.5),
        ("PROXIMA_WORKER__NAME", "worker-7", "worker-7"),
        ("PROXIMA_WORKER__NAME", '"quoted"', "quoted"),
        ("PROXIMA_WORKER__NAME", "7", "7"),
        ("PROXIMA_WORKER__NAME", "2026-11-23", "2026-11-23"),
        ("PROXIMA_KAFKA__TOPIC_PREFIX", "1.", "1."),
    ],
)
def test_a_variable_reads_as_toml_would(name: str, text: str, value: Any) -> None:
    section, key = name.removeprefix("PROXIMA_").lower().split("__")
    assert getattr(getattr(load(WorkerConfig, None, {name: text}), section), key) == value


def test_a_mistake_in_the_environment_is_one_too() -> None:
    found = mistakes(WorkerConfig, None, {"PROXIMA_INTAKE__TICK_MS": "soon", "PROXIMA_KAFKA__HOST": "x"})
    assert sorted(m.split(":")[0] for m in found) == ["intake.tick_ms", "kafka.host"]


def test_variables_of_other_roles_and_other_programs_are_left_alone() -> None:
    others = {"PROXIMA_PROBE__TICK_MS": "x", "PROXIMA_SOAK": "1", "KAFKA__BOOTSTRAP": "x", "PROXIMA_": "", "HOME": "/"}
    assert load(SinkConfig, None, others) == SinkConfig()


@pytest.mark.parametrize("text", ["[kafka", "kafka = [", "\x00", "a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=r"role\.toml"):
        load(ClientConfig, path, {})


def test_a_file_that_is_not_utf_8_or_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "role.toml"
    with pytest.raises(ConfigError, match=r"no such file.*role.toml.*examples"):
        load(ClientConfig, path, {})
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"role\.toml"):
        load(ClientConfig, path, {})
    with pytest.raises(ConfigError):
        load(ClientConfig, tmp_path, {})


@pytest.mark.parametrize("prefix", ["a b", "ü", "x" * 101, "a/b", "ok!"])
def test_a_prefix_that_no_topic_can_begin_with_is_refused(prefix: str) -> None:
    assert [m.split(":")[0] for m in mistakes(ClientConfig, None, {"PROXIMA_KAFKA__TOPIC_PREFIX": prefix})] == [
        "kafka.topic_prefix"
    ]


@pytest.mark.parametrize(("file", "role"), ROLES.items())
def test_the_examples_load_and_say_the_defaults(file: str, role: type[RoleConfig]) -> None:
    found = load(role, EXAMPLES / file, {})
    if file == "webhook.toml":
        assert isinstance(found, SinkConfig)
        (destination,) = found.webhook.destinations
        given = {name: getattr(destination, name) for name in ("name", "url", "secret_env")}
        assert destination == Destination(**given), "an example that differs from the defaults should say why"
    elif role not in (ProbeConfig, ReadinessConfig, RoutesConfig):
        assert found == role(), "an example that differs from the defaults should say why"


@pytest.mark.parametrize("url", [
    "https://exa mple.com/", "https://h.example/\r\nX: y", "https://h..example/", "https://.h/", "https://h.example:0/",
    "https://h\u00e9.example/", "ftp://h.example/", "https:///x", "https://user@h.example/", "http://h.example/",
])  # fmt: skip
def test_what_can_be_no_address_of_a_webhook_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        Destination(name="d", url=url, secret_env=("S",))
    for good in ("https://h.example", "https://h.example.:8443/a?b=%20", "https://[2001:db8::1]/", "http://localhost/"):
        assert Destination(name="d", url=good, secret_env=("S",)).url == good


@pytest.mark.parametrize("file", ["regions.toml", "config.toml", "remedies.toml"])
def test_the_examples_of_what_decides_have_no_mistake(file: str) -> None:
    draft = read_draft(EXAMPLES / file)
    assert draft.catalogue is not None or draft.configurations


def test_the_examples_fit_each_other() -> None:
    catalogue = read_draft(EXAMPLES / "regions.toml").catalogue
    assert catalogue is not None
    known = {region.region_id for region in catalogue.regions}
    for configuration in read_draft(EXAMPLES / "config.toml").configurations:
        assert {configuration.primary_region, *configuration.potential_failover_regions} <= known


def test_every_example_is_loaded_by_a_test_here() -> None:
    """Others' examples have their tests beside their role's."""
    assert {*ROLES, "regions.toml", "config.toml"} <= {p.name for p in EXAMPLES.glob("*.toml")}
    for example in EXAMPLES.glob("*.toml"):
        assert "#" in example.read_text(), f"{example.name} explains nothing"


def test_a_plan_that_needs_more_probes_a_second_than_allowed_is_a_mistake(tmp_path: Path) -> None:
    text = """
        [probe]
        agent_id = "eu-west-1/a"
        primary_region = "eu-west-1"
        rate_max_per_s = 100
        probes_per_tick = 60
        targets = [{region = "us-east-1", address = "192.0.2.1"}, {region = "us-east-2", address = "192.0.2.2"}]
    """
    (mistake,) = mistakes(ProbeConfig, written(tmp_path, text))
    assert "120 probes in 1000 ms are 120 a second, above rate_max_per_s = 100" in mistake


def test_a_prober_whose_limits_contradict_each_other_is_a_mistake(tmp_path: Path) -> None:
    begin = '[readiness]\nagent_id = "a"\nprimary_region = "b"\n'
    for more, said in (("timeout_ms = 500", "answer_ms_max"), ("breaker_open_s = 90", "breaker_open_s_max")):
        (mistake,) = mistakes(ReadinessConfig, written(tmp_path, begin + more))
        assert said in mistake
