"""A session with Cassandra as the sink, the readers and the migrations have it, and how its failures are told."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cassandra import AuthenticationFailed, ConsistencyLevel, DriverException, InvalidRequest, Unauthorized
from cassandra.auth import AuthProvider, PlainTextAuthenticator
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.concurrent import execute_concurrent
from cassandra.connection import ConnectionException
from cassandra.policies import (
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    FallthroughRetryPolicy,
    TokenAwarePolicy,
)

from schemas.errors import StoreUnavailableError
from schemas.stores import Cassandra

SCHEMA_VERSION: Final = 1
"""What `proxima stores migrate` has to have brought the keyspace to."""
_CONNECT_TIMEOUT_S: Final = 5.0


class Connection:
    """A session in the keyspace with its prepared statements; raises the driver's errors (see `reaching`)."""

    def __init__(self, settings: Cassandra, *, version: int | None = SCHEMA_VERSION) -> None:
        """`version`: the least that the schema must have; None: there need not even be a keyspace."""
        self._in_flight_max = settings.in_flight_max
        self._statements: dict[str, Any] = {}
        self._cluster: Any = _cluster(settings)
        try:
            self.session: Any = self._cluster.connect()
            if version is not None:
                self.session.set_keyspace(settings.keyspace)  # not by `connect`, which would say that nobody answers
                self._check(settings, version)
        except BaseException:
            self._cluster.shutdown()
            raise

    def prepared(self, cql: str) -> Any:
        if cql not in self._statements:
            self._statements[cql] = self.session.prepare(cql)
        return self._statements[cql]

    def reading(self, cql: str) -> Any:
        """Prepared, and read so that conditional writes that are under way are seen finished."""
        statement = self.prepared(cql)
        statement.consistency_level = ConsistencyLevel.LOCAL_SERIAL
        return statement

    def run(self, statements: list[tuple[Any, Any]]) -> None:
        """All of them, some at once; raises the first error, whatever else was written."""
        execute_concurrent(self.session, statements, concurrency=self._in_flight_max, raise_on_first_error=True)

    def close(self) -> None:
        self._cluster.shutdown()

    def _check(self, settings: Cassandra, version: int) -> None:
        row = self.session.execute("SELECT max(version) AS version FROM schema_migrations WHERE name = 'proxima'").one()
        if (row.version or 0) < version:
            raise _not_migrated(settings, f"its schema is of version {row.version or 0}, and {version} is needed")


@contextmanager
def reaching(settings: Cassandra) -> Iterator[None]:
    """The driver's errors become StoreUnavailableError, which says where and what to do."""
    try:
        yield
    except InvalidRequest as error:
        raise _not_migrated(settings, str(error)) from error
    except Unauthorized as error:
        what = f"Cassandra: {_said(error)}"
        do = "grant it: docs/stores.md says what the role needs; nothing is lost meanwhile"
        raise StoreUnavailableError(what, where=_where(settings), do=do) from error
    except (AuthenticationFailed, NoHostAvailable) as error:
        raise _refused(settings, error) or _away(settings, error) from error
    except (DriverException, ConnectionException, OSError) as error:
        raise _away(settings, error) from error


def _away(settings: Cassandra, error: Exception) -> StoreUnavailableError:
    what = f"Cassandra: {type(error).__name__}: {str(error)[:500]}"
    do = "start it, or look at its log; nothing is lost meanwhile"
    return StoreUnavailableError(what, where=_where(settings), do=do)


def _refused(settings: Cassandra, error: AuthenticationFailed | NoHostAvailable) -> StoreUnavailableError | None:
    """If a node asked who we are, and did not like the answer."""
    errors = error.errors.values() if isinstance(error, NoHostAvailable) else [error]
    refusal = next((e for e in errors if isinstance(e, AuthenticationFailed)), None)
    if refusal is None:
        return None
    who = f"lets {settings.username!r} not in" if settings.username else "lets nobody in without a name"
    do = "set [cassandra] username, and password_file or PROXIMA_CASSANDRA__PASSWORD; nothing is lost meanwhile"
    return StoreUnavailableError(f"Cassandra {who}: {_said(refusal)}", where=_where(settings), do=do)


def _said(error: Exception) -> str:
    """The server's own words, out of the driver's."""
    found = re.search(r'message="([^"]*)"', str(error))
    return found[1] if found else str(error)[:500]


def _not_migrated(settings: Cassandra, what: str) -> StoreUnavailableError:
    do = "run `proxima stores migrate` with this configuration; the sink goes on then"
    return StoreUnavailableError(f"Cassandra: {what}", where=_where(settings), do=do)


def _where(settings: Cassandra) -> str:
    return f"keyspace {settings.keyspace} at {', '.join(settings.hosts)}, port {settings.port}"


def _cluster(settings: Cassandra) -> Any:
    # The driver says with every try that nobody answers; the runner says it once.
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=settings.datacenter)),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
        request_timeout=settings.timeout_ms / 1000,
        retry_policy=FallthroughRetryPolicy(),  # the runner tries again, with its own pauses
    )
    secure: dict[str, Any] = {}
    if settings.tls:
        secure["ssl_context"] = ssl.create_default_context(cafile=settings.ca_file)
    if settings.username:
        settings.secret()  # a file that cannot be read is to be said now
        secure["auth_provider"] = _Credentials(settings)
    return Cluster(
        list(settings.hosts),
        port=settings.port,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=min(_CONNECT_TIMEOUT_S, settings.timeout_ms / 1000),
        control_connection_timeout=min(_CONNECT_TIMEOUT_S, settings.timeout_ms / 1000),
        reconnection_policy=ExponentialReconnectionPolicy(0.2, 2.0, max_attempts=None),
        protocol_version=5,
        **secure,
    )


class _Credentials(AuthProvider):  # type: ignore[misc] # the driver has no types
    """The password as it is when a connection is made, so that one that was changed is taken up by itself."""

    def __init__(self, settings: Cassandra) -> None:
        self._settings = settings

    def new_authenticator(self, host: Any) -> Any:  # noqa: ARG002
        return PlainTextAuthenticator(self._settings.username, self._settings.secret())
