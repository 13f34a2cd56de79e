"""`proxima config`: regions and failover configurations, from files to what is in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
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
    moment,
    say,
    say_json,
)
from infra.cli.stores import StoreConfig, StoreName, settings_of
from schemas.errors import ProximaError

if TYPE_CHECKING:
    from infra.asking import Answer

File = Annotated[Path, typer.Argument(metavar="FILE", help="TOML or JSON; infra/examples has both kinds of content.")]
REGIONS = "regions"


def register(app: typer.Typer) -> None:
    config = typer.Typer(
        no_args_is_help=True,
        help="""Regions and failover configurations.

They decide, so they live on a topic, and change by compare-and-set.

\b
Example:
  proxima config check mine.toml && proxima config apply mine.toml
""",
    )
    config.command()(apply)
    config.command()(get)
    config.command()(check)
    config.command()(history)
    config.command()(audit)
    config.command()(rollback)
    app.add_typer(config, name="config")


def apply(
    file: File,
    *,
    timeout_s: Annotated[float, typer.Option(min=0, metavar="S", help="Wait so long for the answers.")] = 30.0,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Apply a file, and wait for the workers' answers.

    Each configuration is accepted or rejected; exit code 1 when one is rejected or nobody answers. Applying again is
    safe. A file may leave `version` and `based_on` out: then it follows whatever is in force.

    \b
    Examples:
      proxima config apply infra/examples/regions.toml
      proxima config apply infra/examples/config.toml --json
    """
    from infra.apply import apply_draft  # noqa: PLC0415
    from infra.configuration import read_draft  # noqa: PLC0415

    draft = read_draft(file)
    kafka = client_config(bootstrap, config, prefix).kafka
    answers = apply_draft(kafka.bootstrap, draft, prefix=kafka.topic_prefix, timeout_s=timeout_s)
    _tell(answers, str(file), as_json=as_json)


def _tell(answers: Sequence[Answer], where: str, *, as_json: bool) -> None:
    """What became of each; raises ProximaError when one is not applied."""
    from infra.words import clean  # noqa: PLC0415

    if as_json:
        say_json([{"what": a.what, "version": a.version, "outcome": a.outcome, "reason": a.reason} for a in answers])
    else:
        for a in answers:
            say(clean(f"{a.what}: version {a.version} {a.outcome}{f': {a.reason}' if a.reason else ''}"))
    failed = [a for a in answers if not a.is_good]
    if failed:
        raise ProximaError(
            f"{len(failed)} of {len(answers)} not applied: {', '.join(f'{a.what} {a.outcome}' for a in failed)}",
            where=where,
        )


def get(
    primary: Annotated[str, typer.Argument(metavar="PRIMARY", help="A primary region; `regions`: the catalogue.")],
    *,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Print what is in force, to be edited and applied.

    TOML of a primary's configuration, or of the catalogue of regions.

    \b
    Examples:
      proxima config get eu-west-1 > eu-west-1.toml
      proxima config get regions --json
    """
    from infra.asking import known  # noqa: PLC0415
    from infra.configuration import as_toml  # noqa: PLC0415
    from schemas.codec import to_plain  # noqa: PLC0415

    kafka = client_config(bootstrap, config, prefix).kafka
    found = known(kafka.bootstrap, kafka.topic_prefix)
    record: Any = found.catalogue if primary == REGIONS else found.configurations.get(primary)
    if record is None:
        there = [REGIONS] if found.catalogue is not None else []
        raise ProximaError(
            f"nothing is in force for {primary}",
            where=kafka.bootstrap,
            do=f"there is {', '.join(there + sorted(found.configurations)) or 'nothing yet'}",
        )
    if as_json:
        say_json(to_plain(record))
        return
    if primary == REGIONS:
        say("# To change it: raise the version, or leave it out.")
    else:
        say(f"# To change it: version = {record.version + 1}, based_on = {record.version}; or leave both out.")
    say(as_toml(record).rstrip())


def check(file: File, *, as_json: AsJson = False) -> None:
    """Find every mistake in a file at once, offline.

    It is judged as intake would judge it; exit code 1 if there is a mistake.

    \b
    Example:
      proxima config check infra/examples/config.toml
    """
    from infra.configuration import read_draft  # noqa: PLC0415
    from schemas.errors import ConfigError  # noqa: PLC0415

    try:
        draft = read_draft(file)
    except ConfigError as error:
        if not as_json:
            raise
        say_json({"file": str(file), "mistakes": list(error.mistakes)})
        raise typer.Exit(1) from None
    if as_json:
        say_json({"file": str(file), "mistakes": []})
        return
    regions = f"{len(draft.catalogue.regions)} regions, " if draft.catalogue is not None else ""
    say(f"{file}: {regions}{len(draft.configurations)} configurations, no mistakes")


def history(
    primary: Annotated[str, typer.Argument(metavar="PRIMARY", help="A primary region.")],
    *,
    store: StoreName = None,
    config: StoreConfig = None,
    as_json: AsJson = False,
) -> None:
    """Print every version that came into force, from a store; the last is in force.

    --json prints them whole, one a line.

    \b
    Example:
      proxima config history eu-west-1 --config infra/examples/cassandra.toml
    """
    from infra.stores.reading import store_of  # noqa: PLC0415
    from infra.times import clock  # noqa: PLC0415
    from infra.words import clean  # noqa: PLC0415
    from schemas.codec import to_plain  # noqa: PLC0415

    with store_of(*settings_of(config, store)) as opened:
        versions = opened.configurations(primary)
    if not versions:
        raise ProximaError(f"the store has no configuration of {primary}", do="does its sink run?")
    for v in versions:
        c = v.configuration
        if as_json:
            say_json({"applied_at_ms": v.applied_at_ms, "configuration": to_plain(c)})
        else:
            candidates = ", ".join(c.potential_failover_regions)
            by = f"by {clean(c.author) or 'nobody named'}: {clean(candidates)}"
            say(f"{clock(v.applied_at_ms)}  version {c.version}  {by}")


def audit(
    about: Annotated[
        str | None,
        typer.Argument(metavar="[ABOUT]", help="A primary, `regions`, or a directive's id.", show_default=False),
    ] = None,
    *,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="ISO 8601, Unix ms, or -2h.", show_default=False)
    ] = None,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Print everything that was ever asked of the decisions, by whom, and what became of it.

    From the topic itself: also what was rejected, and what could not be read. Times are the brokers'. An author and a
    sender are what a record and its program say; docs/security.md tells how to have the brokers' word for it.

    \b
    Examples:
      proxima config audit
      proxima config audit eu-west-1 --from -7d --json
    """
    from dataclasses import asdict  # noqa: PLC0415

    from infra.asking import everything  # noqa: PLC0415
    from infra.audit import entries  # noqa: PLC0415
    from infra.times import clock  # noqa: PLC0415
    from infra.words import clean  # noqa: PLC0415

    since_ms = moment(begin, "--from") or 0
    kafka = client_config(bootstrap, config, prefix).kafka
    for each in entries(everything(kafka.bootstrap, kafka.topic_prefix)):
        if each.appended_at_ms < since_ms or about not in (None, each.about):
            continue
        if as_json:
            say_json(asdict(each))
            continue
        by = " / ".join(said for said in (each.author, each.sent_by) if said) or "nobody named"
        where = f"{each.partition}@{each.offset}"
        say(clean(f"{clock(each.appended_at_ms)}  {where}  {each.about}  {each.outcome}  by {by}: {each.what}"))


def rollback(
    primary: Annotated[str, typer.Argument(metavar="PRIMARY", help="A primary region.")],
    *,
    to: Annotated[int, typer.Option("--to", min=1, metavar="VERSION", help="What `config history` shows.")],
    author: Author = None,
    timeout_s: Annotated[float, typer.Option(min=0, metavar="S", help="Wait so long for the answer.")] = 30.0,
    store: StoreName = None,
    config: StoreConfig = None,
    as_json: AsJson = False,
) -> None:
    """Apply an earlier version again, as a new one after the one in force.

    By compare-and-set: if somebody else applies another meanwhile, this is rejected and nothing changes. FILE says
    where the store and Kafka are.

    \b
    Example:
      proxima config rollback eu-west-1 --to 3 --config infra/examples/cassandra.toml
    """
    from infra.apply import apply_draft  # noqa: PLC0415
    from infra.configuration import Draft  # noqa: PLC0415
    from infra.stores.reading import store_of  # noqa: PLC0415

    settings, name = settings_of(config, store)
    with store_of(settings, name) as opened:
        versions = {v.configuration.version: v.configuration for v in opened.configurations(primary)}
    if to not in versions:
        there = ", ".join(map(str, versions)) or "none"
        raise ProximaError(f"the store has no version {to} of {primary}", do=f"there is {there}")
    old = versions[to]
    draft = Draft(None, [replace(old, version=0, based_on=0, author=author_of(author))])
    answers = apply_draft(settings.kafka.bootstrap, draft, prefix=settings.kafka.topic_prefix, timeout_s=timeout_s)
    _tell(answers, f"rollback to version {to}", as_json=as_json)
