"""`proxima direct`: what an operator orders, each with an end and a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli._options import (
    AsJson,
    Author,
    Bootstrap,
    ConfigFile,
    Prefix,
    author_of,
    client_config,
    say,
    say_json,
)
from schemas.errors import ProximaError

if TYPE_CHECKING:
    from schemas.config import ClientConfig
    from schemas.records import OperatorDirective

Because = Annotated[str, typer.Option(metavar="TEXT", help="The reason, for those who read the rankings.")]
For = Annotated[str, typer.Option("--for", metavar="DURATION", help="It ends then by itself: 90s, 15m, 2h, 1d.")]
Id = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="The same again replaces it; else one is made.", show_default=False),
]
Timeout = Annotated[float, typer.Option(min=0, metavar="S", help="Wait so long for the answer.")]
Primary = Annotated[str, typer.Argument(metavar="PRIMARY", help="The primary region.")]
PrimaryOrAll = Annotated[
    str | None, typer.Argument(metavar="[PRIMARY]", help="Only this primary; else every one.", show_default=False)
]
Region = Annotated[str, typer.Argument(metavar="REGION", help="The candidate.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        help="""An operator's directives: they come before every score.

Each has an end, an author and a reason, and every ranking that follows one says so.

\b
Example:
  proxima direct drain us-east-1 --for 2h --because "maintenance of its links"
""",
    )
    group.command()(pin)
    group.command()(drain)
    group.command()(freeze)
    group.command(name="stop-actions")(stop_actions)
    group.command()(executed)
    group.command()(lift)
    group.command(name="list")(list_)
    app.add_typer(group, name="direct")


def pin(
    primary: Primary, region: Region, *, lasts: For, because: Because, directive_id: Id = None, author: Author = None,
    timeout_s: Timeout = 30.0, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make one region a primary's target, whatever the scores say.

    It waits for the worker's answer; exit code 1 when it is rejected or nobody answers.

    \b
    Example:
      proxima direct pin eu-west-1 eu-central-1 --for 2h --because "launch day"
    """
    client = client_config(bootstrap, config, prefix)
    directive = _new("pin", primary, region, lasts=lasts, because=because, directive_id=directive_id, author=author)
    _send(client, directive, timeout_s, as_json=as_json)


def drain(
    region: Region, *, primary: Annotated[
        str | None, typer.Option(metavar="PRIMARY", help="Only for this primary; else for all.", show_default=False)
    ] = None, lasts: For, because: Because, directive_id: Id = None, author: Author = None,
    timeout_s: Timeout = 30.0, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Take a region out of the choice.

    Nothing fails over there while it counts. It waits for the first worker's answer; exit code 1 when it is rejected
    or nobody answers.

    \b
    Examples:
      proxima direct drain us-east-1 --for 2h --because "maintenance of its links"
      proxima direct drain us-east-1 --primary eu-west-1 --for 1d --because "no capacity for it"
    """
    client = client_config(bootstrap, config, prefix)
    directive = _new("drain", primary, region, lasts=lasts, because=because, directive_id=directive_id, author=author)
    _send(client, directive, timeout_s, as_json=as_json)


def freeze(
    primary: PrimaryOrAll = None, *, lasts: For, because: Because, directive_id: Id = None, author: Author = None,
    timeout_s: Timeout = 30.0, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Keep the target as it is, of one primary or of all.

    \b
    Examples:
      proxima direct freeze eu-west-1 --for 30m --because "deployment"
      proxima direct freeze --for 10m --because "change of the backbone"
    """
    client = client_config(bootstrap, config, prefix)
    directive = _new("freeze", primary, None, lasts=lasts, because=because, directive_id=directive_id, author=author)
    _send(client, directive, timeout_s, as_json=as_json)


def stop_actions(
    primary: PrimaryOrAll = None, *, lasts: For, because: Because, directive_id: Id = None, author: Author = None,
    timeout_s: Timeout = 30.0, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Let nobody act upon paths, of one primary or of all.

    Rankings go on.

    \b
    Example:
      proxima direct stop-actions --for 1h --because "we work on the routers ourselves"
    """
    client = client_config(bootstrap, config, prefix)
    directive = _new(
        "stop-actions", primary, None, lasts=lasts, because=because, directive_id=directive_id, author=author
    )
    _send(client, directive, timeout_s, as_json=as_json)


def executed(
    primary: Primary, region: Region, *, lasts: For, because: Because, directive_id: Id = None, author: Author = None,
    timeout_s: Timeout = 30.0, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say that a failover has happened: a primary's traffic was moved to a region.

    Its load is there then, and other primaries count on that capacity no more; it is advised to fail over no further
    as long as that region is its target. Lift it when the traffic is back.

    \b
    Example:
      proxima direct executed eu-west-1 eu-central-1 --for 1d --because "eu-west-1 lost its power"
    """
    client = client_config(bootstrap, config, prefix)
    directive = _new(
        "executed", primary, region, lasts=lasts, because=because, directive_id=directive_id, author=author
    )
    _send(client, directive, timeout_s, as_json=as_json)


def lift(
    directive_id: Annotated[str, typer.Argument(metavar="ID", help="As `proxima direct list` shows it.")],
    *,
    because: Because,
    author: Author = None,
    timeout_s: Timeout = 30.0,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """End a directive before its time.

    \b
    Example:
      proxima direct lift pin-eu-west-1-20261124T101500-ab12 --because "launch is over"
    """
    from infra.asking import known  # noqa: PLC0415
    from infra.directives import in_force, lifted  # noqa: PLC0415

    client = client_config(bootstrap, config, prefix)
    kafka = client.kafka
    directive = known(kafka.bootstrap, kafka.topic_prefix).directives.get(directive_id)
    if directive is None or not in_force([directive], _now_ms()):
        raise ProximaError(
            f"no directive {directive_id}" if directive is None else f"{directive_id} has ended already",
            where=kafka.bootstrap,
            do="`proxima direct list` shows those in force",
        )
    _send(client, lifted(directive, author_of(author), because), timeout_s, as_json=as_json)


def list_(
    *, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show the directives in force.

    Those that were given and have not expired by this machine's clock; a worker may have rejected one.

    \b
    Examples:
      proxima direct list
      proxima direct list --json | jq -r .[].directive_id
    """
    from infra.asking import known  # noqa: PLC0415
    from infra.directives import in_force, sentence  # noqa: PLC0415
    from infra.times import clock, lasting  # noqa: PLC0415
    from infra.words import clean  # noqa: PLC0415
    from schemas.codec import to_plain  # noqa: PLC0415

    kafka = client_config(bootstrap, config, prefix).kafka
    now_ms = _now_ms()
    found = in_force(known(kafka.bootstrap, kafka.topic_prefix).directives.values(), now_ms)
    if as_json:
        say_json([to_plain(d) for d in found])
        return
    for d in found:
        until = f"until {clock(d.expires_at_ms)} (another {lasting(d.expires_at_ms - now_ms)})"
        say(f"{clean(d.directive_id)}\n    {clean(sentence(d))}, {until}\n    {clean(f'{d.author}: {d.reason}')}")
    if not found:
        say("no directive is in force")


def _new(
    kind: str,
    primary: str | None,
    region: str | None,
    *,
    lasts: str,
    because: str,
    directive_id: str | None,
    author: str | None,
) -> OperatorDirective:
    """The directive that an operator typed; wrong usage is said as such."""
    from infra.directives import new_id  # noqa: PLC0415
    from infra.times import duration_ms  # noqa: PLC0415
    from schemas.records import OperatorDirective  # noqa: PLC0415
    from schemas.validate import mistakes  # noqa: PLC0415

    now_ms = _now_ms()
    try:
        expires_at_ms = now_ms + duration_ms(lasts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    directive = OperatorDirective(
        directive_id=new_id(kind, region if kind == "drain" else primary, now_ms) if directive_id is None
        else directive_id,
        kind=kind,
        expires_at_ms=expires_at_ms,
        author=author_of(author),
        reason=because,
        primary_region=primary,
        region=region,
    )  # fmt: skip
    if wrong := mistakes(directive):
        raise typer.BadParameter("; ".join(wrong))
    return directive


def _send(client: ClientConfig, directive: OperatorDirective, timeout_s: float, *, as_json: bool) -> None:
    from infra.directives import LIFTED_AT_MS, direct, sentence  # noqa: PLC0415
    from infra.times import clock  # noqa: PLC0415
    from infra.words import clean  # noqa: PLC0415
    from schemas.codec import to_plain  # noqa: PLC0415

    _check_known(client, directive)
    answer = direct(client.kafka.bootstrap, directive, prefix=client.kafka.topic_prefix, timeout_s=timeout_s)
    facts: dict[str, Any] = {"directive": to_plain(directive), "outcome": answer.outcome, "reason": answer.reason}
    if as_json:
        say_json(facts)
    elif directive.expires_at_ms == LIFTED_AT_MS:
        say(clean(f"{directive.directive_id}: lifting it is {answer.outcome}: {answer.reason}"))
    else:
        until = f"until {clock(directive.expires_at_ms)}"
        said = clean(f"{directive.directive_id}: {answer.outcome}: {answer.reason}")
        say(f"{said}\n    {clean(sentence(directive))}, {until}")
    if not answer.is_good:
        raise ProximaError(f"{directive.directive_id} is {answer.outcome}", where=client.kafka.bootstrap)


def _check_known(client: ClientConfig, directive: OperatorDirective) -> None:
    """Say at once what no worker would take: a primary or candidate that nobody configured."""
    from infra.asking import known  # noqa: PLC0415

    primary, kafka = directive.primary_region, client.kafka
    configurations = known(kafka.bootstrap, kafka.topic_prefix).configurations
    if primary is None or not configurations:
        return
    if primary not in configurations:
        there = ", ".join(sorted(configurations))
        raise ProximaError(f"{primary} has no failover configuration", where=kafka.bootstrap, do=f"there is {there}")
    candidates = configurations[primary].potential_failover_regions
    if directive.region is not None and directive.region not in candidates:
        what = f"{directive.region} is no candidate of {primary}"
        raise ProximaError(what, where=kafka.bootstrap, do=f"there is {', '.join(candidates)}")


def _now_ms() -> int:
    import time  # noqa: PLC0415

    return time.time_ns() // 1_000_000
