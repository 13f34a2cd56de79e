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

    Every topic, what may stand in it with its Avro schema, and how it is kept: for generators and catalogues.

    \b
    Examples:
      proxima topics asyncapi > proxima.asyncapi.json
      proxima topics asyncapi --bootstrap broker-1:9092 | jq '.channels | keys'
    """
    from infra.asyncapi import document  # noqa: PLC0415

    kafka = client_config(bootstrap, config, prefix).kafka
    say_json(document(kafka.bootstrap, kafka.topic_prefix))


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
