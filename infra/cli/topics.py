"""`proxima topics`: the table of topics on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli._options import AsJson, Bootstrap, ConfigFile, Prefix, client_config, say, say_json

if TYPE_CHECKING:
    from infra.kafka.admin import TopicState

_HOUR_MS = 3600 * 1000


def register(app: typer.Typer) -> None:
    topics = typer.Typer(
        no_args_is_help=True,
        help="""The topics on a cluster: create, list, compare; register their schemas.

\b
Example:
  proxima topics create --bootstrap broker-1:9092
""",
    )
    topics.command()(create)
    topics.command(name="list")(list_)
    topics.command()(describe)
    topics.command()(asyncapi)
    topics.command()(acls)
    topics.command(name="register")(register_schemas)
    app.add_typer(topics, name="topics")


def create(
    *,
    replication: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Replicas; else 3, or as many as there are brokers.")
    ] = None,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Create the topics that are missing, check the rest.

    What exists is never changed, so repeating it is safe; exit code 1 when something differs from the table.

    \b
    Examples:
      proxima topics create
      proxima topics create --prefix replay-1- --replication 1
    """
    from infra.kafka.admin import create_topics  # noqa: PLC0415

    kafka = client_config(bootstrap, config, prefix).kafka
    created = create_topics(kafka.bootstrap, prefix=kafka.topic_prefix, replication=replication)
    if as_json:
        say_json({"created": created})
        return
    for name in created:
        say(f"created {name}")
    say("all topics are as they should be" if not created else f"{len(created)} created, all are as they should be")


def list_(*, as_json: AsJson = False) -> None:
    """Show the table; needs no broker.

    What is on which topic, who writes it, how long it is kept.

    \b
    Examples:
      proxima topics list
      proxima topics list --json | jq -r .[].topic
    """
    from schemas.topics import TOPICS  # noqa: PLC0415

    if as_json:
        say_json([_row(topic) for topic in TOPICS.values()])
        return
    for topic in TOPICS.values():
        records = ", ".join(r.__name__ for r in topic.records)
        say(f"{topic.name:24}{topic.partitions:3} partitions  {_kept(topic):22}  by {topic.written_by}: {records}")


def describe(
    *, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show a cluster's topics beside the table.

    Exit code 1 when one is missing or differs.

    \b
    Examples:
      proxima topics describe --bootstrap broker-1:9092
      proxima topics describe --json | jq '.[] | select(.mistakes != [])'
    """
    from infra.kafka.admin import describe_topics  # noqa: PLC0415

    kafka = client_config(bootstrap, config, prefix).kafka
    states = describe_topics(kafka.bootstrap, prefix=kafka.topic_prefix)
    if as_json:
        say_json([_state(state) for state in states])
    else:
        for state in states:
            say(_sentence(state))
    if any(not state.exists or state.mistakes for state in states):
        raise typer.Exit(1)


def asyncapi(*, prefix: Prefix = None, bootstrap: Bootstrap = None, config: ConfigFile = None) -> None:
    """Print the table as an AsyncAPI document; needs no broker.

    Every topic, what may stand in it with its Avro schema, and how it is kept: for generators and catalogues. Where the
    configuration names a schema registry, in Confluent's wire format.

    \b
    Examples:
      proxima topics asyncapi > proxima.asyncapi.json
      proxima topics asyncapi --bootstrap broker-1:9092 | jq '.channels | keys'
    """
    from infra.asyncapi import document  # noqa: PLC0415

    found = client_config(bootstrap, config, prefix)
    say_json(document(found.kafka.bootstrap, found.kafka.topic_prefix, found.registry.url))


def acls(
    *,
    role: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=PRINCIPAL",
            help="Who has a role, as Kafka names it, where it is not User:proxima-ROLE; may be repeated.",
            show_default=False,
        ),
    ] = None,
    grant: Annotated[bool, typer.Option("--apply", help="Have the cluster allow it.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="What it lacks, and who else may write; exit code 1 then.")
    ] = False,
    script: Annotated[bool, typer.Option("--script", help="As commands of Kafka's own kafka-acls.sh.")] = False,
    prefix: Prefix = None,
    bootstrap: Bootstrap = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what each role may do on Kafka; or grant it, or hold a cluster against it.

    Only --apply and --check ask a broker, as somebody who may ALTER the cluster; --check ends with 1 when something
    differs. docs/security.md says why which role may do what.

    \b
    Examples:
      proxima topics acls
      proxima topics acls --apply --config admin.toml --role probe=User:agents --role operator=User:ann
      proxima topics acls --check --config admin.toml
    """
    from infra.kafka import acls as lists  # noqa: PLC0415

    kafka = client_config(bootstrap, config, prefix).kafka
    allowed = lists.wanted(_principals(role), kafka.topic_prefix)
    if check:
        missing = lists.missing(kafka.bootstrap, allowed)
        others = lists.strangers(kafka.bootstrap, allowed, kafka.topic_prefix)
        if as_json:
            say_json({"missing": [_allowed(a) for a in missing], "others": [_allowed(a) for a in others]})
        else:
            for each in missing:
                say(f"missing: {each.sentence()}")
            for each in others:
                say(f"beyond the table: {each.sentence()}")
            say(f"{len(allowed)} rights looked for, {len(missing)} missing, {len(others)} beyond the table")
        raise typer.Exit(1 if missing or others else 0)
    if grant:
        lists.apply(kafka.bootstrap, allowed)
    if as_json:
        say_json([_allowed(each) for each in allowed])
        return
    for each in allowed:
        say(each.command(kafka.bootstrap) if script else each.sentence())
    if grant:
        say(f"{len(allowed)} rights granted")


def _principals(given: list[str] | None) -> dict[str, str]:
    """By role."""
    from schemas.rights import RIGHTS, roles  # noqa: PLC0415

    found = {name: f"User:proxima-{name}" for name in RIGHTS}
    for each in given or ():
        name, separator, principal = each.partition("=")
        if (
            not separator
            or ":" not in principal
            or name not in roles()
            or "'" in principal
            or not principal.isprintable()
        ):
            what = f"{each!r} is not ROLE=TYPE:NAME, with a role of {', '.join(roles())}"
            raise typer.BadParameter(what, param_hint="--role")
        found[name] = principal
    return found


def _allowed(each: Any) -> dict[str, Any]:
    return {"principal": each.principal, **each.grant._asdict()}


def _row(topic: Any) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "key": topic.key,
        "records": [r.__name__ for r in topic.records],
        "partitions": topic.partitions,
        "written_by": topic.written_by,
        "takes_json": topic.takes_json,
        "settings": topic.settings(),
    }


def _state(state: TopicState) -> dict[str, Any]:
    return {
        "topic": state.topic.name,
        "name": state.name,
        "exists": state.exists,
        "topic_id": state.topic_id or None,
        "partitions": state.partitions,
        "replication": state.replication,
        "settings": dict(state.settings or {}),
        "mistakes": list(state.mistakes),
    }


def _sentence(state: TopicState) -> str:
    if not state.exists:
        return f"{state.name:32} missing: `proxima topics create` creates it"
    facts = f"{state.name:32} {state.partitions:3} partitions, {state.replication} replicas, id {state.topic_id}"
    return facts + "".join(f"\n    {mistake}" for mistake in state.mistakes)


def _kept(topic: Any) -> str:
    kept = "for ever" if topic.retention_ms < 0 else f"{topic.retention_ms / _HOUR_MS / 24:g} d"
    return kept if topic.cleanup == "delete" else f"{kept}, {topic.cleanup}"


def register_schemas(*, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Register every record's schemas with the registry of [registry], and let it hold later ones to them.

    Subjects are the records' names, compatibility is FULL_TRANSITIVE. What is registered keeps its id, so repeating it
    is safe.

    \b
    Examples:
      PROXIMA_REGISTRY__URL=http://registry:8081 proxima topics register
      proxima topics register --config client.toml --json
    """
    from schemas.config import ClientConfig, load  # noqa: PLC0415
    from schemas.errors import ConfigError  # noqa: PLC0415
    from schemas.registry import SchemaRegistry  # noqa: PLC0415
    from schemas.wire import subjects  # noqa: PLC0415

    settings = load(ClientConfig, config).registry
    if not settings.url:
        raise ConfigError(["registry.url: there is none"], do="set it in the file, or PROXIMA_REGISTRY__URL")
    registry = SchemaRegistry(settings.model_copy(update={"register_schemas": True}))
    for subject, text in subjects():
        number = registry.id_of(subject, text)
        registry.keep_compatible(subject)
        if as_json:
            say_json({"subject": subject, "id": number})
        else:
            say(f"{subject}  {number}")
