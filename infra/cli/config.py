"""`proxima config`: regions and failover configurations, from files to what is in force."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli._options import AsJson, Bootstrap, ConfigFile, Prefix, client_config, say, say_json
from schemas.errors import ProximaError

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
    if as_json:
        say_json([{"what": a.what, "version": a.version, "outcome": a.outcome, "reason": a.reason} for a in answers])
    else:
        for a in answers:
            say(f"{a.what}: version {a.version} {a.outcome}{f': {a.reason}' if a.reason else ''}")
    failed = [a for a in answers if not a.is_good]
    if failed:
        raise ProximaError(
            f"{len(failed)} of {len(answers)} not applied: {', '.join(f'{a.what} {a.outcome}' for a in failed)}",
            where=str(file),
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
