"""`proxima gateway`: the HTTP API, until it is told to stop; and the tokens of those who use it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli._options import AsJson, in_use, logged, say, say_json

_TokensFile = Annotated[Path, typer.Option("--tokens", metavar="FILE", help="The gateway's tokens_file.")]
_DEFAULT_TOKENS = Path("tokens.json")


def register(app: typer.Typer) -> None:
    group = typer.Typer(invoke_without_command=True)
    group.callback()(gateway)
    tokens = typer.Typer(
        no_args_is_help=True,
        help="""Who may use it: new, list, revoke.

\b
Example:
  proxima gateway token new --source cdn-logs
""",
    )
    tokens.command()(new)
    tokens.command("list")(list_tokens)
    tokens.command()(revoke)
    group.add_typer(tokens, name="token")
    app.add_typer(group, name="gateway")


def gateway(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML file; infra/examples/gateway.toml is one, commented.", show_default=False
        ),
    ] = None,
) -> None:
    """Serve the HTTP API: metrics go in, rankings come out (docs/inject.md).

    It runs until SIGTERM or Ctrl-C. While Kafka is away it answers 503, and goes on when it is back.

    \b
    Examples:
      proxima gateway token new --source cdn-logs
      proxima gateway --config gateway.toml
    """
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise typer.BadParameter("say which file", param_hint="--config")
    from infra.rankings import RankingWatch  # noqa: PLC0415
    from producers.gateway.rankings import REMEMBERED  # noqa: PLC0415
    from producers.gateway.server import run  # noqa: PLC0415
    from schemas.config import GatewayConfig, load  # noqa: PLC0415

    role = in_use(logged(load(GatewayConfig, config), "gateway"))

    run(role, lambda heard: RankingWatch(role.kafka, heard, REMEMBERED))


def new(
    *,
    source: Annotated[str, typer.Option(metavar="NAME", help="The source whose name its metrics carry.")],
    tokens: _TokensFile = _DEFAULT_TOKENS,
    primary: Annotated[
        list[str] | None, typer.Option(metavar="REGION", help="Only about these; may be repeated.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="METRIC", help="Only these; may be repeated.", show_default=False)
    ] = None,
    injects: Annotated[bool, typer.Option("--inject/--no-inject", help="It may inject.")] = True,
    reads: Annotated[bool, typer.Option("--read/--no-read", help="It may read rankings.")] = True,
    per_second: Annotated[float, typer.Option(metavar="N", help="Records, on average.")] = 100.0,
    burst: Annotated[int, typer.Option(metavar="N", help="Records at once.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Make a token, and print it once: the file keeps a digest only.

    \b
    Example:
      proxima gateway token new --source cdn-logs --primary eu-west-1 --metric latency_ms --no-read
    """
    from producers.gateway.tokens import change_tokens, new_token  # noqa: PLC0415

    text, row = new_token(
        source,
        primaries=tuple(primary or ()),
        metrics=tuple(metric or ()),
        injects=injects,
        reads=reads,
        records_per_s=per_second,
        burst=burst,
    )
    change_tokens(tokens, lambda rows: [*rows, row])
    if as_json:
        say_json({"token": text, "token_id": row.token_id, "source": row.source})
    else:
        say(text)


def list_tokens(tokens: _TokensFile = _DEFAULT_TOKENS, as_json: AsJson = False) -> None:
    """Who has one, and what it may do.

    \b
    Example:
      proxima gateway token list --tokens /etc/proxima/tokens.json
    """
    from producers.gateway.tokens import read_tokens  # noqa: PLC0415

    for row in read_tokens(tokens):
        if as_json:
            say_json(row.model_dump(mode="json", exclude={"sha256"}))
            continue
        may = " and ".join(word for word, yes in (("injects", row.injects), ("reads", row.reads)) if yes)
        about = f"about {', '.join(row.primaries) or 'every primary'}, {', '.join(row.metrics) or 'every metric'}"
        say(f"{row.token_id} {row.source}: {may or 'nothing'}, {about}, {row.records_per_s:g}/s, {row.burst} at once")


def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` says it.")],
    tokens: _TokensFile = _DEFAULT_TOKENS,
) -> None:
    """End a token; a running gateway refuses it within a second.

    \b
    Example:
      proxima gateway token revoke 3f0c9b2d71a84e56
    """
    from producers.gateway.tokens import Token, change_tokens  # noqa: PLC0415
    from schemas.errors import ConfigError  # noqa: PLC0415

    def without(rows: list[Token]) -> list[Token]:
        left = [row for row in rows if row.token_id != token_id]
        if len(left) == len(rows):
            raise ConfigError([f"no token {token_id}"], where=str(tokens), do="`proxima gateway token list` says which")
        return left

    change_tokens(tokens, without)
    say(f"{token_id} is worth nothing any more")
