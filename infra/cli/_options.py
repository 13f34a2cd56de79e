"""What several commands share: where Kafka is, and how facts are printed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from schemas.config import ClientConfig, Kafka, RoleConfig

    Role = TypeVar("Role", bound=RoleConfig)

Bootstrap = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Kafka's address, before PROXIMA_KAFKA__BOOTSTRAP and the file; else 127.0.0.1:9092.",
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file with [kafka] and [redis].", show_default=False),
]
Prefix = Annotated[
    str | None,
    typer.Option(metavar="PREFIX", help="Of a second pipeline's topics, as its topic_prefix.", show_default=False),
]
Author = Annotated[
    str | None, typer.Option(metavar="NAME", help="Who says so; else the user's name.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]


def client_config(bootstrap: str | None, config: Path | None, prefix: str | None = None) -> ClientConfig:
    """Where Kafka and Redis are: an option wins over the environment, the environment over the file."""
    from schemas.config import ClientConfig, load  # noqa: PLC0415 - pydantic is slow to load

    return led_by(in_use(load(ClientConfig, config)), bootstrap, prefix)


def led_by(found: Role, bootstrap: str | None, prefix: str | None) -> Role:
    """The same configuration with what was typed in place of what was written, if it has to do with Kafka."""
    given = {}
    if bootstrap is not None:
        given["bootstrap"] = bootstrap
    if prefix is not None:
        if not re.fullmatch(r"[a-zA-Z0-9._-]{0,100}", prefix):
            raise typer.BadParameter(f"{prefix!r} cannot begin a topic's name", param_hint="--prefix")
        given["topic_prefix"] = prefix
    kafka: Kafka | None = getattr(found, "kafka", None)
    return found if kafka is None else found.model_copy(update={"kafka": kafka.model_copy(update=given)})


def in_use(role: Role) -> Role:
    """The same role's configuration; its identity, and its schema registry where it names one, in use from now on."""
    kafka = getattr(role, "kafka", None)
    if kafka is not None:
        from schemas import connection  # noqa: PLC0415

        connection.use(kafka)
    if role.registry.url:
        from schemas.registry import SchemaRegistry  # noqa: PLC0415
        from schemas.wire import use  # noqa: PLC0415

        use(SchemaRegistry(role.registry))
    return role


def moment(text: str | None, option: str) -> int | None:
    """A moment as it was typed, in Unix milliseconds; wrong usage is said with the option's name."""
    import time  # noqa: PLC0415

    from infra.times import moment_ms  # noqa: PLC0415

    try:
        return None if text is None else moment_ms(text, time.time_ns() // 1_000_000)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def author_of(stated: str | None) -> str:
    """Who acts; wrong usage where nobody can tell."""
    import getpass  # noqa: PLC0415

    if stated is not None:
        return stated
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        raise typer.BadParameter("this user has no name: say who you are", param_hint="--author") from None


def say(text: str) -> None:
    """One line on stdout, at once: who reads us through a pipe should not wait for a buffer to fill."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_json(value: Any) -> None:
    """One JSON value on one line."""
    say(json.dumps(value, allow_nan=False))


def logged(role: Role, name: str, *, level: str = "INFO") -> Role:
    """The same configuration, for a command that runs as a service: what happens goes to stderr, as it says."""
    from schemas import logs  # noqa: PLC0415 - services alone log

    logs.use(role.log, name, level=level)
    return role
