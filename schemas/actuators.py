"""`proxima sink actuators`: what each remedy does, in the actuator's own file.

Records name a remedy of a primary; here stands what that is. So whoever may write to Kafka can at most have something
done that this file describes, within the bounds that it gives. Everything is typed: no field is a command.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, IPvAnyAddress, model_validator

from schemas.config import Kafka, Metrics, RoleConfig, Section
from schemas.ranges import REGION_ID, SOURCE
from schemas.records import RemedyKind
from schemas.remedies import PREPENDS_MAX

Name = Annotated[str, Field(pattern=f"^{SOURCE.pattern}$")]
Region = Annotated[str, Field(pattern=f"^{REGION_ID.pattern}$")]
# What Linux takes as an interface's name, without what a shell or a path could make something of.
Device = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$")]
RouteMap = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Family = Literal["ipv4 unicast", "ipv6 unicast"]


class Actuators(Section):
    """`[actuators]`: this process."""

    name: Name = Field("actuators", description="consumer group; one process a name, for its log is its own")
    log: Path = Field(Path("actuators.sqlite"), description="what was begun and done, kept over restarts")
    dry_run: bool = Field(True, description="say what would be done, and do nothing")
    applies_per_hour_max: int = Field(20, ge=0, le=10_000, description="remedies that all here together may apply")
    region_applies_per_hour_max: int = Field(10, ge=0, le=10_000, description="of these into one region")
    margin_ms: int = Field(500, ge=0, le=60_000, description="so long before it expires nothing is begun any more")
    clock_margin_ms: int = Field(2000, ge=0, le=600_000, description="this machine's clock may be off by so much")


class BreakerLimits(Section):
    """`[breaker]`: around each actuator."""

    failures: int = Field(3, ge=1, le=1000, description="in a row")
    open_s: float = Field(30.0, gt=0, le=86_400, description="twice as long each time that a try fails")
    open_s_max: float = Field(600.0, gt=0, le=86_400)


class Task(Section):
    """What every task says: whose remedy it is."""

    primary: Region
    remedy: Name


class Router(Section):
    """`[[frr.routers]]`: a bgpd on this machine."""

    name: Name
    vty: Path = Field(Path("/run/frr/bgpd.vty"), description="its vty socket")
    as_number: int = Field(ge=1, le=(1 << 32) - 1, description="its own")


class Place(Section):
    """`[[frr.tasks.at]]`: where a task changes something."""

    router: Name
    neighbor: IPvAnyAddress
    family: Family = "ipv4 unicast"
    route_map: RouteMap | None = Field(None, description="of the neighbor; not for LINK")
    entry: int = Field(10, ge=1, le=65_535, description="its permit entry")


class FrrTask(Task):
    """`[[frr.tasks]]`: a routing policy, or a session that is shut down until it is needed (LINK)."""

    kind: Literal[RemedyKind.LOCAL_PREFERENCE, RemedyKind.AS_PATH_PREPEND, RemedyKind.LINK]
    value_min: int = Field(0, ge=0, le=(1 << 32) - 1)
    value_max: int = Field(0, ge=0, le=(1 << 32) - 1)
    at: tuple[Place, ...] = Field(min_length=1, max_length=16, description="all of these, or none")

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if self.value_min > self.value_max:
            raise ValueError("value_min is above value_max")
        if self.kind == RemedyKind.AS_PATH_PREPEND and self.value_max > PREPENDS_MAX:
            raise ValueError(f"value_max is above {PREPENDS_MAX}")
        if self.kind != RemedyKind.LINK and any(place.route_map is None for place in self.at):
            raise ValueError(f"{self.kind} needs a route_map")
        return self


class Frr(Section):
    """`[[frr]]`: an actuator for FRRouting."""

    name: Name
    timeout_ms: int = Field(2000, ge=10, le=60_000, description="of one command")
    routers: tuple[Router, ...] = Field(min_length=1)
    tasks: tuple[FrrTask, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _knows_its_routers(self) -> Self:
        known = {r.name for r in self.routers}
        unknown = sorted({p.router for t in self.tasks for p in t.at} - known)
        if unknown:
            raise ValueError(f"tasks name {', '.join(unknown)}, which is none of the routers")
        return self


class LinkTask(Task):
    """`[[links.tasks]]`: an interface that is up while the remedy is in place, and down else."""

    device: Device
    namespace: RouteMap | None = Field(None, description="network namespace that it is in; none: ours")


class Links(Section):
    """`[[links]]`: an actuator for interfaces of this machine."""

    name: Name
    timeout_ms: int = Field(2000, ge=10, le=60_000)
    tasks: tuple[LinkTask, ...] = Field(min_length=1)


class ProviderTask(Task):
    """`[[providers.tasks]]`: a circuit whose bandwidth may be asked for."""

    circuit: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    usual_bps: int = Field(ge=1, le=10**15, description="what it has without the remedy")
    value_min: int = Field(1, ge=1, le=10**15)
    value_max: int = Field(ge=1, le=10**15, description="it costs money")


class Provider(Section):
    """`[[providers]]`: an actuator for a provider's HTTP API (infra/provider/openapi.json)."""

    name: Name
    url: str = Field(pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/-]*)?$", description="without /v1")
    token_file: Path | None = Field(None, description="a file with the bearer token")
    timeout_ms: int = Field(2000, ge=10, le=60_000, description="of one request")
    settle_ms: int = Field(3000, ge=10, le=600_000, description="until what was promised has to be seen")
    tasks: tuple[ProviderTask, ...] = Field(min_length=1)


class ActuatorsConfig(RoleConfig):
    kafka: Kafka = Kafka()
    actuators: Actuators = Actuators()
    breaker: BreakerLimits = BreakerLimits()
    frr: tuple[Frr, ...] = ()
    links: tuple[Links, ...] = ()
    providers: tuple[Provider, ...] = ()
    metrics: Metrics = Metrics()

    @model_validator(mode="after")
    def _names_are_one_each(self) -> Self:
        every: list[Frr | Links | Provider] = [*self.frr, *self.links, *self.providers]
        names = Counter(a.name for a in every)
        twice = sorted(name for name, times in names.items() if times > 1)
        if twice:
            raise ValueError(f"more than one actuator is called {', '.join(twice)}")
        for actuator in every:
            tasks = Counter((t.primary, t.remedy) for t in actuator.tasks)
            if again := sorted(f"{p}/{r}" for (p, r), times in tasks.items() if times > 1):
                raise ValueError(f"{actuator.name} has more than one task for {', '.join(again)}")
        return self
