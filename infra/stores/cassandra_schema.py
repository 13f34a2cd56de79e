"""Cassandra's schema as numbered steps, and how they are taken: once each, whoever and however many try.

What was done is in `schema_migrations`. One holds the lock (a conditional write that expires by itself, should its
holder die) and takes the steps that are missing; the others wait and find nothing left to do. A step's statements may
be run again, as the lock's holder may have died between them and their record.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final

from cassandra import AlreadyExists, Unauthorized

from infra.processes import wait_until
from schemas.stores import Cassandra
from sinks.cassandra_connection import Connection

LOCK_TTL_S: Final = 120
_STATEMENT_TIMEOUT_S: Final = 60.0
_GRANT_TIMEOUT_S: Final = 10.0
_DAY_WINDOWS: Final = (
    "compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS',"
    " 'compaction_window_size': 1}"
)


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    description: str
    statements: tuple[str, ...]


# Append only: what a keyspace has gone through is never changed, it is gone on from.
MIGRATIONS: Final = (
    Migration(
        1,
        "path metrics and rankings by time, the latest ranking, configurations by version",
        (
            # Windows: what was written on a day expires together, and goes as a whole file.
            "CREATE TABLE IF NOT EXISTS path_metrics (primary_region text, hour_at_ms bigint, decided_at_ms bigint,"
            " target_region text, evidence_at_ms bigint, weight double, baseline_weight double, network_weight double,"
            " confidence double, latency_ms double, loss_ratio double, delay_variation_ms double, bandwidth_bps double,"
            " age_ms double, PRIMARY KEY ((primary_region, hour_at_ms), decided_at_ms, target_region))"
            f" WITH {_DAY_WINDOWS} AND gc_grace_seconds = 86400",
            "CREATE TABLE IF NOT EXISTS rankings (primary_region text, day_at_ms bigint, decided_at_ms bigint,"
            " sequence bigint, mode text, advice text, target_region text, config_version bigint,"
            " events frozen<list<text>>, reason text, record blob,"
            " PRIMARY KEY ((primary_region, day_at_ms), decided_at_ms, sequence))"
            f" WITH {_DAY_WINDOWS} AND gc_grace_seconds = 86400",
            "CREATE TABLE IF NOT EXISTS latest_rankings (primary_region text PRIMARY KEY, sequence bigint,"
            " decided_at_ms bigint, target_region text, record blob)",
            "CREATE TABLE IF NOT EXISTS configurations (primary_region text, version bigint, in_force bigint static,"
            " place text static, based_on bigint, author text, applied_at_ms bigint, record blob,"
            " PRIMARY KEY (primary_region, version))",
        ),
    ),
)


def migrate(settings: Cassandra) -> list[str]:
    """Take the steps that are missing; raises the driver's errors, and ProximaError when another holds the lock on."""
    connection = Connection(settings, version=None)
    try:
        _prepare(connection.session, settings)
        connection.session.set_keyspace(settings.keyspace)
        return _migrate(connection.session)
    finally:
        connection.close()


def _prepare(session: Any, settings: Cassandra) -> None:
    """The keyspace, and the two tables that the rest is recorded in and locked by."""
    keyspace = settings.keyspace
    copies = {"class": "NetworkTopologyStrategy", **{dc: str(n) for dc, n in settings.replication.items()}}
    replication = json.dumps(copies).replace("'", "''").replace('"', "'")
    _execute(session, f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}")
    for name, columns in (
        ("schema_migrations", "name text, version int, description text, taken_at_ms bigint,"
                              " PRIMARY KEY (name, version)"),
        ("schema_lock", "name text PRIMARY KEY, holder text"),
    ):  # fmt: skip
        # Made by two at once, with ids of their own, a table's two halves would never meet: so the id is given.
        table_id = uuid.uuid5(uuid.NAMESPACE_URL, f"proxima:{keyspace}.{name}")
        _execute(session, f"CREATE TABLE IF NOT EXISTS {keyspace}.{name} ({columns}) WITH id = {table_id}")


def _migrate(session: Any) -> list[str]:
    taken = "SELECT version FROM schema_migrations WHERE name = 'proxima'"
    if all(m.version in {row.version for row in _granted(session, taken)} for m in MIGRATIONS):
        return []
    holder = uuid.uuid4().hex
    lock = "INSERT INTO schema_lock (name, holder) VALUES ('proxima', %s) IF NOT EXISTS USING TTL %s"
    wait_until(
        lambda: _granted(session, lock, (holder, LOCK_TTL_S)).was_applied,
        LOCK_TTL_S + 30.0,
        "the lock of the schema, which another `stores migrate` holds",
        poll_s=0.2,
    )
    try:
        done = {row.version for row in session.execute(taken)}
        told = []
        for m in (m for m in MIGRATIONS if m.version not in done):
            for statement in m.statements:
                _execute(session, statement)
            session.execute(
                "INSERT INTO schema_migrations (name, version, description, taken_at_ms)"
                " VALUES ('proxima', %s, %s, %s)",
                (m.version, m.description, time.time_ns() // 1_000_000),
            )
            told.append(f"version {m.version}: {m.description}")
        return told
    finally:
        session.execute("DELETE FROM schema_lock WHERE name = 'proxima' IF holder = %s", (holder,))


def _execute(session: Any, statement: str) -> None:
    try:
        session.execute(statement, timeout=_STATEMENT_TIMEOUT_S)
    except AlreadyExists:  # IF NOT EXISTS is judged before, and another was faster
        return


def _granted(session: Any, statement: str, parameters: tuple[Any, ...] = ()) -> Any:
    """The result, of a table that may be a moment old.

    Cassandra grants a table to who made it after others see the table, and a node keeps a refusal for its
    `permissions_validity` (2 s unless set): who was beaten to the making is refused for that long.
    """
    deadline = time.monotonic() + _GRANT_TIMEOUT_S
    while True:
        try:
            return session.execute(statement, parameters or None)
        except Unauthorized:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
