"""As whom a process comes to Kafka: what is a mistake, and that a secret stays one."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas import connection
from schemas.config import ClientConfig, Kafka, RoleConfig, SinkConfig, WorkerConfig, load
from schemas.errors import ConfigError

SECRET = "correct-horse"  # noqa: S105


def mistakes(text: str, tmp_path: Path, role: type[RoleConfig] = ClientConfig, **environment: str) -> str:
    path = tmp_path / "role.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(role, path, {f"PROXIMA_{name}": value for name, value in environment.items()})
    return "\n".join(raised.value.mistakes)


@pytest.mark.parametrize(("text", "said"), [
    ('security_protocol = "TLS"', "'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
    ('security_protocol = "SASL_SSL"', "needs username, and password_file or PROXIMA_KAFKA__PASSWORD"),
    ('security_protocol = "SASL_SSL"\nusername = "ann"', "needs username, and password_file"),
    ('username = "ann"', "means nothing with security_protocol PLAINTEXT"),
    ('ca_file = "/x"', "mean nothing with PLAINTEXT"),
    ('security_protocol = "SSL"\nkey_file = "/x"', "go together"),
    ('security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\nusername = "a"\npassword_file = "x"',
     "would send the password in the clear"),
])  # fmt: skip
def test_what_makes_no_sense_is_a_mistake(text: str, said: str, tmp_path: Path) -> None:
    assert said in mistakes(f"[kafka]\n{text}\n", tmp_path)


@pytest.mark.parametrize(("role", "section"), [(ClientConfig, "kafka"), (WorkerConfig, "kafka"),
                                               (SinkConfig, "cassandra")])  # fmt: skip
def test_a_password_in_a_configuration_file_is_refused_and_not_repeated(
    role: type[RoleConfig], section: str, tmp_path: Path
) -> None:
    said = mistakes(f'[{section}]\nusername = "ann"\npassword = "{SECRET}"\n', tmp_path, role)
    assert f"{section}.password" in said
    assert f"PROXIMA_{section.upper()}__PASSWORD" in said
    assert SECRET not in said


@pytest.mark.parametrize(("section", "text"), [
    ("redis.url", f'[redis]\nurl = "redis://:{SECRET}@cache:6379/0"\n'),
    ("redis.url", f'[redis]\nurl = "rediss://proxima:{SECRET}@cache:6379/0"\n'),
    ("webhook.destinations.0.url", f'[[webhook.destinations]]\nname = "a"\nurl = "https://a:{SECRET}@b/c"\n'),
])  # fmt: skip
def test_a_password_within_an_address_in_a_file_is_refused_too(section: str, text: str, tmp_path: Path) -> None:
    said = mistakes(text, tmp_path, SinkConfig)
    assert f"{section}: no password in an address" in said
    assert SECRET not in said


def test_a_name_in_brokers_addresses_is_no_address() -> None:
    with pytest.raises(ConfigError) as raised:
        load(ClientConfig, None, {"PROXIMA_KAFKA__BOOTSTRAP": f"ann:{SECRET}@broker:9092"})
    assert "kafka.bootstrap" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_an_address_with_a_users_name_alone_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "sink.toml"
    path.write_text('[redis]\nurl = "rediss://proxima@cache:6379/0"\n')
    assert load(SinkConfig, path, {}).redis.url == "rediss://proxima@cache:6379/0"


def test_a_password_comes_from_the_environment_or_a_file_and_is_never_shown(tmp_path: Path) -> None:
    given = {"PROXIMA_KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "PROXIMA_KAFKA__USERNAME": "ann"}
    by_environment = load(ClientConfig, None, given | {"PROXIMA_KAFKA__PASSWORD": SECRET}).kafka
    assert by_environment.secret() == SECRET
    assert SECRET not in repr(by_environment) + str(by_environment)
    (tmp_path / "password").write_text(f"{SECRET}\n")
    by_file = load(ClientConfig, None, given | {"PROXIMA_KAFKA__PASSWORD_FILE": str(tmp_path / "password")}).kafka
    assert by_file.secret() == SECRET


def test_a_number_is_a_password_too() -> None:
    given = {"PROXIMA_KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "PROXIMA_KAFKA__USERNAME": "7",
             "PROXIMA_KAFKA__PASSWORD": "12345"}  # fmt: skip
    assert load(ClientConfig, None, given).kafka.secret() == "12345"


@pytest.mark.parametrize("field", ["password_file", "ca_file", "certificate_file"])
def test_a_file_that_cannot_be_read_is_said_before_anybody_connects(field: str, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("x")
    files = {"password_file": there, "ca_file": there, "certificate_file": there, "key_file": there}
    missing = Kafka(security_protocol="SASL_SSL", username="a", **(files | {field: tmp_path / "missing"}))
    with pytest.raises(ConfigError, match=rf"kafka\.{field}.*No such file"):
        connection.use(missing)
    assert connection.client_settings("b:1") == {"bootstrap.servers": "b:1"}, "nothing of it is in use"


def test_an_empty_password_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        Kafka(security_protocol="SASL_SSL", username="a", password_file=tmp_path / "empty").secret()


def test_every_setting_has_librdkafkas_word_for_it(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("x")
    connection.use(
        Kafka(
            security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-256", username="ann", password=SECRET,
            ca_file=there, certificate_file=there, key_file=there,
        )
    )  # fmt: skip
    try:
        assert connection.client_settings("b:1") == {
            "bootstrap.servers": "b:1",
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "SCRAM-SHA-256",
            "sasl.username": "ann",
            "sasl.password": SECRET,
            "ssl.ca.location": str(there),
            "ssl.certificate.location": str(there),
            "ssl.key.location": str(there),
        }
    finally:
        connection.use(Kafka())
    assert connection.client_settings("b:1") == {"bootstrap.servers": "b:1"}
