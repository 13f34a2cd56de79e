"""What a lab is made of: regions, transits and links between them, from one TOML file.

Addresses follow from the order, from 1: region number i has 10.201.i.0/24 and fd00:201:i::/64 (its own address ends in
1), the ends of link number j are 10.202.j.1 and .2, and fd00:202:j::1 and ::2.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from schemas.errors import ConfigError, TraceError
from schemas.records import Region
from schemas.validate import REGION_ID
from streams.trace_files import read_series

REGIONS_MAX: Final = 12
LINKS_MAX: Final = 120
STEPS_MAX: Final = 15_000  # of a trace: it goes to the relay in one datagram, of which the kernel takes 200 kB
_FIRST_REGION_AS: Final = 65_001
_FIRST_TRANSIT_AS: Final = 4_200_000_001  # four octets: routers and monitors have to know them


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabRegion(_Part):
    """A region: one namespace with a router, and whatever agents are started in it."""

    id: str = Field(pattern=REGION_ID.pattern)
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class LabLink(_Part):
    """What a link does to every packet, in each direction; all of it can be changed while it runs."""

    between: tuple[str, str]
    delay_ms: float = Field(default=0.0, ge=0)
    jitter_ms: float = Field(default=0.0, ge=0)  # mean of an exponential, added to the delay
    loss_ratio: float = Field(default=0.0, ge=0, le=1)
    rate_mbit: float = Field(default=0.0, ge=0)  # 0: as fast as the machine is
    standby: bool = False  # there, and without carrier until somebody activates it
    # Recorded round-trip times in place of `delay_ms`, half of each on either way: a CSV (or .csv.gz) with the header
    # `step,rtt_ms`, where an empty value is a step in which everything is lost. After the last step, that one stays.
    trace: Path | None = None
    step_seconds: float | None = Field(default=None, gt=0)  # how long a step of it takes here

    @property
    def name(self) -> str:
        return "--".join(self.between)

    @property
    def rtt_ms(self) -> list[float | None]:
        """The trace's steps, None: lost; [] without a trace. Raises TraceError with file and line."""
        if self.trace is None:
            return []
        _, series = read_series(self.trace)
        if len(series) > STEPS_MAX:
            raise TraceError(f"there are {len(series)} steps, and {STEPS_MAX} are the most", where=str(self.trace))
        return [None if math.isnan(r) else float(r) for r in series]

    @field_validator("trace")
    @classmethod
    def _beside_the_file(cls, trace: Path | None, info: ValidationInfo) -> Path | None:
        return trace and (info.context or Path()) / trace

    @model_validator(mode="after")
    def _can_be_replayed(self) -> Self:
        if (self.trace is None) != (self.step_seconds is None):
            raise ValueError("trace and step_seconds go together")
        if self.trace is not None and self.delay_ms:
            raise ValueError("either delay_ms or trace says how late packets are")
        try:
            _ = self.rtt_ms
        except TraceError as error:
            raise ValueError(str(error)) from None
        return self


class LabSpec(_Part):
    """One lab."""

    name: str = Field(default="lab", pattern=r"^[a-z0-9]{1,12}$")
    regions: list[LabRegion] = Field(min_length=2, max_length=REGIONS_MAX)
    transits: list[str] = Field(default_factory=list, max_length=REGIONS_MAX)
    links: list[LabLink] = Field(min_length=1, max_length=LINKS_MAX)
    netem: bool = False  # links without a trace by the kernel's netem, if it has it (netem.py says what is different)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The lab that a file describes; its traces are found beside it. Raises ConfigError: every mistake at once."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text()), context=path.parent)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError([str(error)], where=str(path)) from error
        except ValidationError as error:
            found = [
                f"{'.'.join(map(str, e['loc'])) or 'the lab'}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            ]
            raise ConfigError(found, where=str(path), do="see infra/examples/lab.toml") from error

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        nodes = self.nodes
        twice = sorted({n for n in nodes if nodes.count(n) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        for link in self.links:
            unknown = [n for n in link.between if n not in nodes]
            if unknown:
                raise ValueError(f"link {link.name} ends at {', '.join(unknown)}, which is no region and no transit")
            if link.between[0] == link.between[1]:
                raise ValueError(f"link {link.name} leads from a node to itself")
        pairs = [frozenset(link.between) for link in self.links]
        again = sorted({"--".join(sorted(p)) for p in pairs if pairs.count(p) > 1})
        if again:
            raise ValueError(f"more than one link between the same nodes: {', '.join(again)}")
        return self

    @property
    def nodes(self) -> list[str]:
        return [r.id for r in self.regions] + self.transits

    def as_number(self, node: str) -> int:
        """The AS that a node is: each its own."""
        number = self.nodes.index(node)
        return _FIRST_REGION_AS + number if number < len(self.regions) else _FIRST_TRANSIT_AS + number

    def address(self, region: str) -> str:
        """A region's own IPv4 address, which agents elsewhere probe."""
        return f"10.201.{self._number(region)}.1"

    def address_v6(self, region: str) -> str:
        """The same in IPv6."""
        return f"fd00:201:{self._number(region)}::1"

    def prefixes(self, region: str) -> list[str]:
        """What a region announces by BGP."""
        number = self._number(region)
        return [f"10.201.{number}.0/24", f"fd00:201:{number}::/64"]

    def ends(self, link: LabLink) -> tuple[str, str]:
        """IPv4 addresses of a link's two ends, in the order of `between`."""
        number = 1 + self.links.index(link)
        return f"10.202.{number}.1", f"10.202.{number}.2"

    def ends_v6(self, link: LabLink) -> tuple[str, str]:
        """The same in IPv6."""
        number = 1 + self.links.index(link)
        return f"fd00:202:{number}::1", f"fd00:202:{number}::2"

    def _number(self, region: str) -> int:
        return 1 + self.nodes.index(region)

    def catalogue(self) -> list[Region]:
        """The regions as Proxima's catalogue has them."""
        return [Region(r.id, r.latitude, r.longitude, prefixes=self.prefixes(r.id)) for r in self.regions]
