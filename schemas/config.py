"""Configuration: one TOML file a role, for what concerns this process (addresses, files, limits).

What decides (regions, failover configurations, policies) is not here but on `failover-config`. A file is validated as
a whole: every mistake is reported at once with its place, and an unknown key is a mistake. Any value can be set by an
environment variable `PROXIMA_SECTION__KEY`, which wins over the file; variables of sections that a role does not
have are another role's. Secrets come from the environment or a file (`*_file`), and are never printed.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, ValidationError, model_validator

from schemas.connection import Connection
from schemas.errors import ConfigError
from schemas.stores import Cassandra, DynamoDb
from schemas.validate import AGENT_ID, REGION_ID
from schemas.webhook import Webhook

_PREFIX = "PROXIMA_"
_PASSWORD_IN_URL = re.compile(r"[a-z+]+://[^/?#@]*:[^/?#@]+@")
Role = TypeVar("Role", bound="RoleConfig")


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Registry(Section):
    """`[registry]`: what goes to Kafka is in Confluent's wire format then; what comes may be in either."""

    url: str = Field("", pattern=r"^(https?://[^/@?#]+[^@?#]*)?$", description="of its Confluent API; empty: none")
    register_schemas: bool = Field(True, description="at the start; else `proxima topics register` has to, before")
    credentials_file: Path | None = Field(None, description="one line, USER:PASSWORD")
    ca_file: Path | None = Field(None, description="certificates to trust instead of the system's (PEM)")
    timeout_ms: int = Field(3000, ge=10, le=60_000)


class Log(Section):
    """`[log]`: how this process says what happens, on stderr (logs.py)."""

    format: Literal["text", "json"] = Field("text", description="json: one object a line")
    level: Literal["", "DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "", description="and above; empty: INFO, and WARNING for a worker's stages"
    )


class Metrics(Section):
    """`[metrics]`: what Prometheus may scrape of this process at /metrics; beside it /healthz and /readyz."""

    port: int = Field(0, ge=0, le=65532, description="0: nothing is served; of a worker, intake's: others are above")
    listen: str = Field("127.0.0.1", min_length=1, description="address; what is said there is secret from nobody")


class RoleConfig(BaseModel):
    """A whole file; its fields are sections."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    registry: Registry = Registry()
    log: Log = Log()


class Kafka(Connection):
    """`[kafka]`: where the journal is, and as whom we come (connection.py)."""

    bootstrap: str = Field(
        "127.0.0.1:9092", pattern=r"^[^@\s]*$", description="host:port, comma-separated; a name goes into username"
    )
    topic_prefix: str = Field(
        "", pattern=r"^[a-zA-Z0-9._-]{0,100}$", description="a whole second pipeline beside the first"
    )


class Intake(Section):
    """`[intake]`: what is condensed, and how old it may be."""

    tick_ms: int = Field(1000, ge=100, le=60_000, description="length of a tick and of a pane")
    flush_samples_max: int = Field(4_000_000, ge=1000, description="a flush ends early here: a bound on memory")
    ahead_ms_max: int = Field(5000, ge=0, description="an agent's clock may be so far ahead of the broker's")
    lateness_ms_max: int = Field(6 * 3600 * 1000, ge=0, description="an outage's backlog may be so old")


class Decide(Section):
    """`[decide]`: the engine's clock and its snapshots."""

    tick_ms: int = Field(1000, ge=100, le=60_000)
    phase_ms: int = Field(
        300, ge=0, description="evaluate so long after the tick's edge: intake's flushes of the tick are in by then"
    )
    snapshot_every_ms: int = Field(5000, ge=200, description="how much is folded again after a kill, at most")
    checkpoint_every_ms: int = Field(
        24 * 3600 * 1000, ge=1000, description="of journal time: a replay folds so much, at most, before its beginning"
    )
    warm_up_ms: int = Field(
        2 * 24 * 3600 * 1000, ge=0, description="of journal time: so much history does a new model learn from, aside"
    )


class Overview(Section):
    """`[overview]`: the clock of the stage that looks at the whole network, and its snapshots."""

    tick_ms: int = Field(1000, ge=100, le=60_000)
    phase_ms: int = Field(
        600, ge=0, description="evaluate so long after the tick's edge: what decide says of the tick is in by then"
    )
    snapshot_every_ms: int = Field(10_000, ge=200, description="how much is folded again after a kill, at most")
    checkpoint_every_ms: int = Field(24 * 3600 * 1000, ge=1000, description="of journal time, as in [decide]")


class Worker(Section):
    """`[worker]`: this process among its like."""

    name: str = Field(
        "worker-1", pattern=f"^{AGENT_ID.pattern}$", description="unlike any other worker's; survives a restart"
    )
    stages: tuple[str, ...] = Field(("intake", "decide", "overview"), min_length=1)
    session_timeout_s: float = Field(6.0, ge=2, le=60, description="another takes over a dead worker's partitions then")


class WorkerConfig(RoleConfig):
    kafka: Kafka = Kafka()
    worker: Worker = Worker()
    intake: Intake = Intake()
    decide: Decide = Decide()
    overview: Overview = Overview()
    metrics: Metrics = Metrics()


class Target(Section):
    """`[[probe.targets]]`: one region, and the address that stands for it."""

    region: str = Field(pattern=f"^{REGION_ID.pattern}$")
    address: str = Field(min_length=1, description="name or address")
    port: int = Field(443, ge=1, le=65535, description="for tcp-syn and tcp-connect")
    ip: Literal["any", "v4", "v6"] = Field("any", description="of a name's addresses: the first that the resolver says")


class Bandwidth(Section):
    """`[probe.bandwidth]`, `[readiness.bandwidth]`: trains of packets to targets' responders (`proxima respond`)."""

    every_s: float = Field(300, ge=1, le=86_400, description="each path once in so long")
    port: int = Field(7420, ge=1, le=65535, description="of the responder, at each target's address")
    bytes_max: int = Field(150_000, ge=40_000, le=10_000_000, description="what one measurement may send")
    bytes_per_hour_max: int = Field(2_000_000, ge=40_000, description="what all of a path may send in any hour")


class Probe(Section):
    """`[probe]`: one agent."""

    agent_id: str = Field(pattern=f"^{AGENT_ID.pattern}$")
    primary_region: str = Field(pattern=f"^{REGION_ID.pattern}$")
    methods: tuple[str, ...] = Field(("tcp-connect",), min_length=1)
    tick_ms: int = Field(1000, ge=100, le=60_000)
    probes_per_tick: int = Field(2, ge=1, le=1000, description="to each target, by each method")
    timeout_ms: int = Field(1000, ge=10, le=60_000)
    rate_max_per_s: float = Field(20_000, gt=0, description="probes; a plan that needs more is a mistake")
    targets: tuple[Target, ...] = Field(min_length=1, max_length=1 << 16, description="as many as a batch can number")
    bandwidth: Bandwidth | None = None

    @property
    def probes(self) -> int:
        """Of a tick."""
        return len(self.targets) * len(self.methods) * self.probes_per_tick

    @model_validator(mode="after")
    def _within_the_rate(self) -> Self:
        needed_per_s = self.probes * 1000 / self.tick_ms
        if needed_per_s > self.rate_max_per_s:
            what = f"{self.probes} probes in {self.tick_ms} ms are {needed_per_s:g} a second"
            raise ValueError(f"{what}, above rate_max_per_s = {self.rate_max_per_s:g}")
        return self


class ProbeConfig(RoleConfig):
    kafka: Kafka = Kafka()
    probe: Probe
    metrics: Metrics = Metrics()


class Readiness(Section):
    """`[readiness]`: one prober; whom it checks, and the limits of path and capacity, are on `failover-config`."""

    agent_id: str = Field(pattern=f"^{AGENT_ID.pattern}$")
    primary_region: str = Field(pattern=f"^{REGION_ID.pattern}$", description="where it stands")
    period_s: float = Field(10, ge=0.2, le=3600, description="each target once in so long, all spread over it")
    timeout_ms: int = Field(2000, ge=10, le=60_000, description="of an endpoint's whole answer, and of a connection")
    answer_ms_max: int = Field(1000, ge=1, le=60_000, description="an answer that takes longer fails, though it comes")
    connects: int = Field(3, ge=1, le=20, description="connections whose middle one is the latency of the path")
    in_flight_max: int = Field(200, ge=1, le=10_000, description="targets checked at the same time")
    ca_file: Path | None = Field(None, description="certificates to trust instead of the system's (PEM)")
    breaker_failures: int = Field(3, ge=1, le=1000, description="times without an answer, then it is not asked ...")
    breaker_open_s: float = Field(10, gt=0, le=3600, description="... for so long, twice as long after each more ...")
    breaker_open_s_max: float = Field(60, gt=0, le=3600, description="... and no longer than this")
    bandwidth: Bandwidth | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.answer_ms_max > self.timeout_ms:
            raise ValueError(f"answer_ms_max = {self.answer_ms_max} is above timeout_ms = {self.timeout_ms}")
        if self.breaker_open_s > self.breaker_open_s_max:
            raise ValueError("breaker_open_s is above breaker_open_s_max")
        return self


class ReadinessConfig(RoleConfig):
    kafka: Kafka = Kafka()
    readiness: Readiness
    metrics: Metrics = Metrics()


class Routes(Section):
    """`[routes]`: one route monitor."""

    agent_id: str = Field(pattern=f"^{AGENT_ID.pattern}$")
    primary_region: str = Field(pattern=f"^{REGION_ID.pattern}$")
    listen: str = Field("127.0.0.1", min_length=1, description="address for routers' BMP sessions")
    port: int = Field(11019, ge=0, le=65535, description="0: any; the log says which")
    allow: tuple[IPvAnyNetwork, ...] = Field((), description="networks that routers may connect from; none: any")
    routers_max: int = Field(64, ge=1, le=10_000, description="BMP sessions at once")
    peers_max: int = Field(1000, ge=1, le=100_000, description="of each router that are followed: a bound on memory")
    settle_ms: int = Field(
        100, ge=1, le=60_000, description="changes within so long are told as one: a table in a few events"
    )


class RoutesConfig(RoleConfig):
    kafka: Kafka = Kafka()
    routes: Routes
    metrics: Metrics = Metrics()


class Respond(Section):
    """`[respond]`: what answers bandwidth trains."""

    bind: str = Field("0.0.0.0", min_length=1, description="address; :: takes IPv4 too")  # noqa: S104 - agents are elsewhere
    port: int = Field(7420, ge=0, le=65535, description="UDP; 0: any")
    bytes_per_hour_max: int = Field(50_000_000, ge=40_000, description="that one address may send in any hour")


class RespondConfig(RoleConfig):
    respond: Respond = Respond()
    metrics: Metrics = Metrics()


def _is_local(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


class Gateway(Section):
    """`[gateway]`: the HTTP API."""

    listen: str = Field("127.0.0.1", min_length=1, description="address; beyond this machine only with TLS")
    port: int = Field(8420, ge=0, le=65535, description="0: any; the log says which")
    tokens_file: Path = Field(Path("tokens.json"), description="made by `proxima gateway token new`; read at changes")
    tls_certificate_file: Path | None = Field(None, description="PEM, with the chain")
    tls_key_file: Path | None = Field(None, description="PEM, unencrypted")
    without_tls: bool = Field(False, description="beyond this machine in the clear: something else ends TLS")
    connections_max: int = Field(4096, ge=1, description="at once, streams and handshakes too; one more is closed")
    request_s: float = Field(
        10.0, ge=0.1, le=600, description="a TLS handshake is done within so long, then a request is whole, or its end"
    )
    body_bytes_max: int = Field(1 << 20, ge=1024, le=16 << 20, description="of a request")
    batch_max: int = Field(1000, ge=1, le=10_000, description="metrics in a request")
    ahead_ms_max: int = Field(5000, ge=0, description="observed_at_ms may be so far ahead of our clock; intake's bound")
    confirm_timeout_s: float = Field(5.0, ge=0.1, le=60, description="the broker confirms within so long, or 503")
    in_flight_max: int = Field(50_000, ge=100, description="unconfirmed records: a bound on memory")
    idempotency_s: float = Field(600, ge=1, le=86_400, description="a key is remembered so long")
    idempotency_keys_max: int = Field(10_000, ge=1, description="of one token: the oldest is forgotten")
    streams_max: int = Field(200, ge=1, description="subscribers at once")
    token_streams_max: int = Field(50, ge=1, description="of them, with one token: it leaves room for others")
    heartbeat_s: float = Field(15.0, ge=0.1, le=300, description="a line on a silent stream, so that it stays open")
    stream_lag_max: int = Field(256, ge=1, description="rankings a subscriber may be behind before it is dropped")
    stream_send_s: float = Field(10.0, ge=0.1, description="one may take so long to take an event")

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together")
        if not _is_local(self.listen) and self.tls_key_file is None and not self.without_tls:
            what = f"{self.listen} is beyond this machine, and tokens would cross the network in the clear"
            raise ValueError(f"{what}: give tls_certificate_file and tls_key_file, or say without_tls = true")
        return self


class GatewayConfig(RoleConfig):
    kafka: Kafka = Kafka()
    gateway: Gateway = Gateway()


class Redis(Section):
    """`[redis]`: where the latest ranking is served from."""

    url: str = Field("redis://127.0.0.1:6379/0", pattern=r"^(redis|rediss|unix)://")
    password_file: Path | None = Field(None, description="one line; or in an address that the environment gives")
    ca_file: Path | None = Field(None, description="who signed a rediss:// server's certificate (PEM)")
    retry_ms_max: int = Field(2000, ge=10, description="longest pause before the next try while it is down")

    def options(self) -> dict[str, Any]:
        """For redis-py, beside the address; raises ConfigError: a file cannot be read."""
        found: dict[str, Any] = {}
        if self.password_file is not None:
            try:
                found["password"] = self.password_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError([f"redis.password_file: {error}"]) from None
        if self.ca_file is not None and self.url.startswith("rediss:"):
            found["ssl_ca_certs"] = str(self.ca_file)
        return found


class JsonLines(Section):
    """`[jsonlines]`: a file of records, one JSON object a line."""

    path: Path = Path("rankings.jsonl")


class Sink(Section):
    """`[sink]`: what every sink shares."""

    name: str = Field("sink-1", pattern=f"^{AGENT_ID.pattern}$")
    batch_max: int = Field(500, ge=1, description="records between two flushes, at most")
    linger_ms: int = Field(50, ge=0, description="time between two flushes, at most, when records wait")


class SinkConfig(RoleConfig):
    kafka: Kafka = Kafka()
    sink: Sink = Sink()
    redis: Redis = Redis()
    jsonlines: JsonLines = JsonLines()
    webhook: Webhook = Webhook()
    cassandra: Cassandra = Cassandra()
    dynamodb: DynamoDb = DynamoDb()
    metrics: Metrics = Metrics()

    @model_validator(mode="after")
    def _one_keyspace_a_pipeline(self) -> Self:
        """Cassandra's names cannot hold every prefix, and two pipelines in one keyspace would write over each other."""
        stated = "cassandra" in self.model_fields_set and "keyspace" not in self.cassandra.model_fields_set
        if stated and self.kafka.topic_prefix:
            raise ValueError("cassandra.keyspace must be named when there is a topic_prefix: one keyspace a pipeline")
        return self


class ClientConfig(RoleConfig):
    """For commands that only need to find Kafka: tail, inject, topics, watch, replay, doctor."""

    kafka: Kafka = Kafka()
    redis: Redis = Redis()


def load(role: type[Role], path: Path | None = None, environment: Mapping[str, str] | None = None) -> Role:
    """The role's configuration from a file (None: defaults) and the environment.

    Raises ConfigError with every mistake, each with its place in the file.
    """
    where = str(path) if path is not None else "environment"
    merged = _read(path) if path is not None else {}
    if shown := list(_secrets(merged)):
        raise ConfigError(shown, where=where)
    _override(merged, role, os.environ if environment is None else environment)
    try:
        return role.model_validate(merged)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise ConfigError([f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found], where=where) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            ["there is no such file"], where=str(path), do="infra/examples has one to start from"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([str(error)], where=str(path)) from None


def _secrets(found: Any, place: tuple[str, ...] = ()) -> Iterator[str]:
    """What a file should not hold, each in words that do not repeat it: configuration is for many eyes."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _secrets(value, (*place, key))
    elif isinstance(found, list):
        for number, value in enumerate(found):
            yield from _secrets(value, (*place, str(number)))
    elif place[-1] == "password":
        yield f"{'.'.join(place)}: not in a configuration file: {_elsewhere(place)}"
    elif isinstance(found, str) and _PASSWORD_IN_URL.match(found):
        yield f"{'.'.join(place)}: no password in an address: {_elsewhere(place)}"


def _elsewhere(place: tuple[str, ...]) -> str:
    a_file = "name a file that holds it (password_file, token_file)"
    return f"{a_file}, or set {_PREFIX}{'__'.join(place).upper()}" if len(place) == 2 else a_file


def _override(merged: dict[str, Any], role: type[RoleConfig], environment: Mapping[str, str]) -> None:
    for name, text in sorted(environment.items()):
        section, separator, key = name.removeprefix(_PREFIX).lower().partition("__")
        if not name.startswith(_PREFIX) or not separator or section not in role.model_fields:
            continue
        table = merged.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _value(text, _wanted(role, section, key))


def _value(text: str, wanted: Any) -> Any:
    """A variable's text as TOML would read it, so that lists and numbers work; else as it stands.

    Where text is wanted, what looks like a number or a date is text: a worker may be called 7.
    """
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if wanted is str and not isinstance(value, str) else value


def _wanted(role: type[RoleConfig], section: str, key: str) -> Any:
    """The type of a section's field; None when there is none, which validation will say."""
    table = role.model_fields[section].annotation
    fields = table.model_fields if isinstance(table, type) and issubclass(table, BaseModel) else {}
    return fields[key].annotation if key in fields else None
