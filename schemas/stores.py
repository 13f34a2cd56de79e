"""`[cassandra]` and `[dynamodb]`: the two stores that keep history and configurations.

A password comes from the environment (PROXIMA_CASSANDRA__PASSWORD) or a file; DynamoDB's credentials come the way that
every AWS program finds them (environment, credentials file, role of the machine), and are not ours to configure.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import ConfigError

_DAY_S = 86_400


class _Store(BaseModel):
    """What both have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics_ttl_s: int = Field(30 * _DAY_S, ge=60, le=7300 * _DAY_S, description="path metrics are kept so long")
    rankings_ttl_s: int = Field(400 * _DAY_S, ge=60, le=7300 * _DAY_S, description="rankings are kept so long")
    timeout_ms: int = Field(10_000, ge=100, le=120_000, description="for one request; then the sink tries again")


class Cassandra(_Store):
    """`[cassandra]`: a cluster, and a keyspace of our own in it."""

    hosts: tuple[str, ...] = Field(("127.0.0.1",), min_length=1, description="some nodes; the others are found")
    port: int = Field(9042, ge=1, le=65535)
    keyspace: str = Field("proxima", pattern=r"^[a-z][a-z0-9_]{0,47}$", description="one for each pipeline")
    datacenter: str = Field("datacenter1", min_length=1, description="the nearest: requests and quorums stay there")
    replication: dict[str, int] = Field(
        {"datacenter1": 3},
        min_length=1,
        description="copies in each datacenter, of a keyspace made here",
    )
    username: str = ""
    password: str = Field("", repr=False, description="by PROXIMA_CASSANDRA__PASSWORD, not in a file that is shared")
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = Field(None, description="who signs the nodes' certificates; none: the system's list")
    in_flight_max: int = Field(64, ge=1, le=1000, description="requests at once")

    def secret(self) -> str:
        """The password, from where it is; raises ConfigError when its file cannot be read."""
        if self.password_file is None:
            return self.password
        try:
            return self.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"cassandra.password_file: {error}"]) from None


class DynamoDb(_Store):
    """`[dynamodb]`: tables of one account and region."""

    region: str = Field("eu-west-1", pattern=r"^[a-z0-9-]{1,40}$", description="AWS's name")
    endpoint_url: str | None = Field(None, pattern=r"^https?://", description="another server than the region's own")
    table_prefix: str = Field("proxima-", pattern=r"^[a-zA-Z0-9_.-]{0,100}$", description="tables' names begin with it")
    in_flight_max: int = Field(8, ge=1, le=200, description="requests at once")
