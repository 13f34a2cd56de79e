"""`proxima stores`: what the history and the configurations are kept in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli._options import AsJson, in_use, say, say_json

if TYPE_CHECKING:
    from schemas.config import SinkConfig

StoreConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file of the sink; infra/examples/cassandra.toml and dynamodb.toml are two, commented.",
        show_default=False,
    ),
]
StoreName = Annotated[
    str | None,
    typer.Option("--store", metavar="NAME", help="cassandra or dynamodb, if the file has both.", show_default=False),
]


def register(app: typer.Typer) -> None:
    stores = typer.Typer(
        no_args_is_help=True,
        help="""Cassandra and DynamoDB: what the history and the configurations are kept in.

\b
Example:
  proxima stores migrate --config infra/examples/cassandra.toml
""",
    )

    @stores.callback()
    def group() -> None:
        pass

    stores.command()(migrate)
    app.add_typer(stores, name="stores")


def migrate(config: StoreConfig = None, store: StoreName = None, *, as_json: AsJson = False) -> None:
    """Make the tables, or bring them to this version.

    What was done is recorded in the store. Doing it again does nothing, and of several at once one does it and the
    others wait. Sinks that started before it wait for it.

    \b
    Examples:
      proxima stores migrate --config infra/examples/cassandra.toml
      proxima stores migrate --config infra/examples/dynamodb.toml --json
    """
    from infra.stores.reading import store_of  # noqa: PLC0415

    with store_of(*settings_of(config, store)) as opened:
        done = opened.migrate()
    if as_json:
        say_json({"done": done})
        return
    for line in done:
        say(line)
    if not done:
        say("nothing to do")


def settings_of(config: Path | None, store: str | None) -> tuple[SinkConfig, str | None]:
    """A sink's configuration and the store that is asked for; a wrong name is wrong usage."""
    from infra.stores.reading import STORES  # noqa: PLC0415
    from schemas.config import SinkConfig, load  # noqa: PLC0415

    if store is not None and store not in STORES:
        raise typer.BadParameter(f"{store!r} is none of {', '.join(STORES)}", param_hint="--store")
    return in_use(load(SinkConfig, config)), store
