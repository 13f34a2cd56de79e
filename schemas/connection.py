"""How a process reaches Kafka: by which protocol, as whom, and whom it believes to be the broker.

    [kafka]  security_protocol, sasl_mechanism, username, ca_file ...   in Kafka's own words
    use(connection)              at the start of a process: from now on every client of it connects so
    client_settings(bootstrap)   for librdkafka;  ssl_context(), in_use() for clients in Python
    refused(...), forbidden(...) what is said when brokers do not let us in, or do not let us do something

One process has one identity, so it is a matter of the process, as its log is, and no function hands it on. The brokers
decide what that identity may do (`schemas/rights.py` is what each role needs).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.errors import ConfigError, KafkaUnavailableError
from schemas.rights import Grant, holders

# Names of librdkafka's errors that no patience mends: the broker, or we, refused the other.
_REFUSED: Final = ("_AUTHENTICATION", "_SSL")


class Connection(BaseModel):
    """What `[kafka]` says of security; a plain connection without an identity unless it does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="SASL_SSL wherever others could listen"
    )
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    username: str = Field("", description="of SASL: the principal is User:USERNAME")
    password: str = Field("", repr=False, description="by PROXIMA_KAFKA__PASSWORD, never in the file")
    password_file: Path | None = Field(None, description="one line, for nobody else to read")
    ca_file: Path | None = Field(None, description="who signs the brokers' certificates (PEM); none: the system's list")
    certificate_file: Path | None = Field(None, description="ours, where brokers ask for one (PEM)")
    key_file: Path | None = Field(None, description="its key (PEM, unencrypted)")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        has_password = bool(self.password) or self.password_file is not None
        if self.is_sasl and not (self.username and has_password):
            what = "needs username, and password_file or PROXIMA_KAFKA__PASSWORD"
            raise ValueError(f"security_protocol {self.security_protocol} {what}")
        if not self.is_sasl and (self.username or has_password):
            raise ValueError(f"a username or password means nothing with security_protocol {self.security_protocol}")
        if not self.is_tls and (self.ca_file or self.certificate_file or self.key_file):
            raise ValueError(f"ca_file, certificate_file and key_file mean nothing with {self.security_protocol}")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if self.sasl_mechanism == "PLAIN" and self.security_protocol == "SASL_PLAINTEXT":
            raise ValueError("PLAIN would send the password in the clear: use SCRAM, or SASL_SSL")
        return self

    @property
    def is_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    @property
    def is_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL")

    def secret(self) -> str:
        """The password, from where it is; raises ConfigError when its file cannot be read."""
        if self.password_file is None:
            return self.password
        try:
            found = self.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"kafka.password_file: {error}"]) from None
        if not found:
            raise ConfigError([f"kafka.password_file: {self.password_file} is empty"])
        return found


_connection = Connection()
_password = ""
_settings: dict[str, str] = {}


def use(connection: Connection) -> None:
    """Connect so from now on. Raises ConfigError: a file that it names cannot be read."""
    global _connection, _password, _settings  # noqa: PLW0603 - who a process is, is a matter of the process
    password = connection.secret()
    for name in ("ca_file", "certificate_file", "key_file"):
        path: Path | None = getattr(connection, name)
        if path is not None:
            _check_readable(name, path)
    _connection, _password = connection, password
    _settings = _in_words_of_librdkafka(connection, password)


def in_use() -> Connection:
    """What `use` was given last."""
    return _connection


def password_in_use() -> str:
    """The password that goes with it, as it was read then."""
    return _password


def client_settings(bootstrap: str) -> dict[str, Any]:
    """Address and security of a librdkafka client."""
    return {"bootstrap.servers": bootstrap, **_settings}


def ssl_context() -> ssl.SSLContext | None:
    """For clients that want Python's; None: without TLS."""
    if not _connection.is_tls:
        return None
    context = ssl.create_default_context(cafile=_connection.ca_file)
    if _connection.certificate_file is not None:
        context.load_cert_chain(_connection.certificate_file, _connection.key_file)
    return context


class Refusal:
    """An `error_cb` that remembers why a broker and we cannot come together; empty: nothing of that kind was said."""

    def __init__(self) -> None:
        self.what = ""

    def __call__(self, error: Any) -> None:
        if is_refusal(error):
            self.what = error.str()


def is_refusal(error: Any) -> bool:
    """Whether librdkafka's error is one that trying again does not mend."""
    return error.name() in _REFUSED


def refused(what: str, bootstrap: str) -> KafkaUnavailableError:
    """A refusal in one line: who was refused, why, and what to look at."""
    return KafkaUnavailableError(f"{_who()} is refused: {_cause(what)}", where=bootstrap, do=_remedy(what))


def forbidden(lacking: Sequence[Grant], bootstrap: str) -> KafkaUnavailableError:
    """A right that we lack in one line: who we are, which it is, and which roles have it."""
    what, do = denial(lacking)
    return KafkaUnavailableError(what, where=bootstrap, do=do)


def denial(lacking: Sequence[Grant]) -> tuple[str, str]:
    """The same as what is wrong and what to do, for errors of another kind and for logs."""
    operations: dict[str, list[str]] = {}
    for each in lacking:
        of = {"TOPIC": each.name, "GROUP": f"group {each.name}", "CLUSTER": "the cluster"}[each.kind]
        operations.setdefault(of, []).append(each.operation)
    what = ", ".join(f"{' and '.join(dict.fromkeys(its))} on {of}" for of, its in operations.items())
    names = [f"`{role}`" for role in holders(lacking)]
    come = f"come as {' or '.join((', '.join(names[:-1]), names[-1])) if names[1:] else names[0]}" if names else ""
    says = "`proxima topics acls` says what each role needs"
    return f"{_who()} is not allowed: {what}", f"{come or 'come as a role that may'}; {says}"


def _who() -> str:
    return f"user {_connection.username}" if _connection.is_sasl else "this client"


def _cause(what: str) -> str:
    """Without the address and state that librdkafka puts around it."""
    for start in ("SASL authentication error: ", "SSL handshake failed: ", "SASL handshake failed: "):
        if start in what:
            what = start + what.partition(start)[2]
    return what.partition(" (after ")[0].replace("\n", " ").strip()


def _remedy(what: str) -> str:
    if "SASL" in what:
        return "look at kafka.username, its password, and kafka.sasl_mechanism"
    if "certificate" in what:
        return "look at kafka.ca_file: does it hold the certificate that signed the broker's?"
    return "look at kafka.security_protocol, and at what the broker's listener speaks"


def _check_readable(name: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError([f"kafka.{name}: {error}"]) from None


def _in_words_of_librdkafka(connection: Connection, password: str) -> dict[str, str]:
    if connection.security_protocol == "PLAINTEXT":
        return {}
    found: dict[str, str] = {"security.protocol": connection.security_protocol}
    if connection.is_sasl:
        found |= {
            "sasl.mechanisms": connection.sasl_mechanism,
            "sasl.username": connection.username,
            "sasl.password": password,
        }
    for key, path in (
        ("ssl.ca.location", connection.ca_file),
        ("ssl.certificate.location", connection.certificate_file),
        ("ssl.key.location", connection.key_file),
    ):
        if path is not None:
            found[key] = str(path)
    return found
