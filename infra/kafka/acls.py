"""Access lists on a cluster, made from the table of rights (`schemas/rights.py`) and held against it.

What the table does not say is said too: a principal that may write one of our topics and has no role here is somebody
who can move traffic. Only grants are compared; a refusal (DENY) takes nothing away from who is not refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from infra.kafka.admin import ANSWER_TIMEOUT_S, admin_client, metadata
from schemas.connection import denial
from schemas.errors import KafkaUnavailableError
from schemas.rights import Grant, grants
from schemas.topics import TOPICS, named

_RESOURCES: Final = {"TOPIC": ResourceType.TOPIC, "GROUP": ResourceType.GROUP, "CLUSTER": ResourceType.BROKER}
_FIRST: Final = "the first time a super user has to come; and does the cluster have an authorizer?"
_RULES: Final = ("ALL", "ALTER", "ALTER_CONFIGS", "CLUSTER_ACTION", "CREATE", "DELETE")
_CHANGES: Final = ("WRITE", "ALL", "ALTER", "ALTER_CONFIGS", "DELETE")
_FLAGS: Final = {"TOPIC": "--topic", "GROUP": "--group"}


@dataclass(frozen=True, slots=True, order=True)
class Allowed:
    """A principal (`User:NAME`, as Kafka writes it) and what it may do."""

    principal: str
    grant: Grant

    def sentence(self) -> str:
        kind, name, operation, is_prefix = self.grant
        where = "the cluster" if kind == "CLUSTER" else f"{kind.lower()} {name}{'*' if is_prefix else ''}"
        return f"{self.principal} may {operation} {where}"

    def command(self, bootstrap: str) -> str:
        """The same for Kafka's own tool."""
        kind, name, operation, is_prefix = self.grant
        where = "--cluster" if kind == "CLUSTER" else f"{_FLAGS[kind]} '{name}'"
        pattern = " --resource-pattern-type prefixed" if is_prefix else ""
        return (
            f"kafka-acls.sh --bootstrap-server '{bootstrap}' --command-config admin.properties --add --allow-principal "
            f"'{self.principal}' --operation {operation.title().replace('_', '')} {where}{pattern}"
        )


def wanted(principals: Mapping[str, str], prefix: str = "") -> list[Allowed]:
    """What the table gives each role's principal; a principal of several roles has the rights of all."""
    return sorted({Allowed(who, grant) for role, who in principals.items() for grant in grants(role, prefix)})


def apply(bootstrap: str, allowed: Iterable[Allowed]) -> None:
    """Have the cluster allow it; what it allows already stays. Raises KafkaUnavailableError: it does not let us."""
    admin = admin_client(bootstrap)
    metadata(admin, bootstrap)
    futures = admin.create_acls([_binding(each) for each in allowed], request_timeout=ANSWER_TIMEOUT_S)
    for future in futures.values():
        try:
            future.result()
        except KafkaException as error:
            raise _refused(error.args[0], "ALTER", bootstrap) from None


def missing(bootstrap: str, allowed: Iterable[Allowed]) -> list[Allowed]:
    """What of it the cluster does not allow. Raises KafkaUnavailableError."""
    there = granted(bootstrap)
    return [each for each in allowed if each not in there]


def strangers(bootstrap: str, allowed: Iterable[Allowed], prefix: str = "") -> list[Allowed]:
    """Who else may write our topics, join our groups or rule the cluster, by grants that are not of the table."""
    ours = {named(prefix, name) for name in TOPICS}
    return sorted(each for each in granted(bootstrap) - set(allowed) if _is_mighty(each.grant, ours, prefix))


def _is_mighty(grant: Grant, topics: Collection[str], prefix: str) -> bool:
    """Whether it lets somebody write or change one of our topics, join one of our groups, or grant it to himself."""
    match grant.kind:
        case "CLUSTER":
            return grant.operation in _RULES
        case "GROUP":
            ours = f"{prefix}proxima-"
            is_ours = (
                grant.name == "*" or grant.name.startswith(ours) or (grant.is_prefix and ours.startswith(grant.name))
            )
            return is_ours and grant.operation in ("READ", "ALL", "DELETE")
    return grant.operation in _CHANGES and any(grant.touches(topic) for topic in topics)


def writers(allowed: Iterable[Allowed], topic: str) -> set[str]:
    """Principals that may write the topic."""
    return {a.principal for a in allowed if a.grant.operation in ("WRITE", "ALL") and a.grant.touches(topic)}


def granted(bootstrap: str) -> set[Allowed]:
    """All that the cluster allows anybody. Raises KafkaUnavailableError: it is not for us to see."""
    admin: AdminClient = admin_client(bootstrap)
    metadata(admin, bootstrap)
    every = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ALLOW
    )
    try:
        # Whoever may not ask is told an empty list, without an error (librdkafka).
        may = admin.describe_cluster(include_authorized_operations=True, request_timeout=ANSWER_TIMEOUT_S).result()
        if AclOperation.DESCRIBE not in (may.authorized_operations or ()):
            raise _forbidden("DESCRIBE", bootstrap)
        found = admin.describe_acls(every, request_timeout=ANSWER_TIMEOUT_S).result()
    except KafkaException as error:
        raise _refused(error.args[0], "DESCRIBE", bootstrap) from None
    kinds = {resource: kind for kind, resource in _RESOURCES.items()}
    return {
        Allowed(
            each.principal,
            Grant(
                kinds[each.restype],  # type: ignore[arg-type]
                each.name,
                each.operation.name,
                is_prefix=each.resource_pattern_type is ResourcePatternType.PREFIXED,
            ),
        )
        for each in found
        if each.restype in kinds
    }


def _binding(each: Allowed) -> AclBinding:
    kind, name, operation, is_prefix = each.grant
    return AclBinding(
        _RESOURCES[kind],
        name,
        ResourcePatternType.PREFIXED if is_prefix else ResourcePatternType.LITERAL,
        each.principal,
        "*",
        AclOperation[operation],
        AclPermissionType.ALLOW,
    )


def _refused(error: KafkaError, operation: str, bootstrap: str) -> KafkaUnavailableError:
    if error.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        return _forbidden(operation, bootstrap)
    what = f"access lists cannot be had: {error.str().partition(' Request(')[0].strip()}"
    return KafkaUnavailableError(what, where=bootstrap, do=_FIRST)


def _forbidden(operation: str, bootstrap: str) -> KafkaUnavailableError:
    what, do = denial([Grant("CLUSTER", "kafka-cluster", operation)])
    return KafkaUnavailableError(f"access lists cannot be had: {what}", where=bootstrap, do=f"{do}; {_FIRST}")
