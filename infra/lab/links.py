"""A link as a scenario speaks of it: `lab.link("eu", "t1").delay_ms = 80`, `.down()`, `.loss_ratio = 0.2`."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from infra.lab.relay import NAMES
from infra.lab.spec import LabLink
from schemas.errors import ProximaError

_ANSWER_S: Final = 5.0


class Shaper(Protocol):
    """What does to packets what a link says: the relay, or netem."""

    def change(self, link: str, **change: Any) -> list[dict[str, int]]: ...


class RelayClient:
    """The relay's control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("")  # an address of the kernel's choice, so that it can answer
        self._socket.settimeout(_ANSWER_S)
        self._lock = threading.Lock()

    def change(self, link: str, **change: Any) -> list[dict[str, int]]:
        """Change a link; returns the counters of both its directions. Raises ProximaError: nobody answers."""
        with self._lock:
            try:
                self._socket.sendto(json.dumps({"link": link, **change}).encode(), str(self._path))
                return json.loads(self._socket.recv(1 << 16))  # type: ignore[no-any-return]
            except OSError as error:
                raise ProximaError(f"the lab's relay does not answer: {error}", where=str(self._path)) from error

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


class Link:
    """One link while the lab runs. Setting an attribute changes both directions at once; times are one way.

    Setting `delay_ms` ends a replay; jitter, loss and rate come on top of one.
    """

    spec: LabLink
    name: str
    is_up: bool
    delay_ms: float
    jitter_ms: float
    loss_ratio: float
    rate_mbit: float
    queue_ms: float
    bucket_bytes: float
    _shaper: Shaper

    def __init__(self, shaper: Shaper, spec: LabLink) -> None:
        self.__dict__.update(_shaper=shaper, spec=spec, name=spec.name, is_up=True)
        self.heal()

    def __setattr__(self, name: str, value: float) -> None:
        if name not in NAMES:
            raise AttributeError(f"a link has no {name}: one of {', '.join(NAMES)}")
        self.__dict__[name] = value
        self._shaper.change(self.name, **{name: value})

    def down(self) -> None:
        """Take the carrier away: both routers see it at once."""
        self._carrier(up=False)

    def up(self) -> None:
        """Give it back; a standby link is activated so."""
        self._carrier(up=True)

    def black_hole(self) -> None:
        """Lose everything in silence: routers notice when their hold time is over, probes before."""
        self.loss_ratio = 1.0

    def heal(self) -> None:
        """As the lab's file describes it again, its trace from the beginning, and up unless it is a standby."""
        for name in NAMES:
            if name in LabLink.model_fields:
                setattr(self, name, getattr(self.spec, name))
        if self.spec.step_seconds is not None:
            self.replay(self.spec.rtt_ms, 1000 * self.spec.step_seconds)
        if self.is_up == self.spec.standby:
            self._carrier(up=not self.spec.standby)

    def replay(self, rtt_ms: Sequence[float | None], step_ms: float) -> None:
        """Recorded round-trip times (None: lost), each for so long; half of each is the delay one way."""
        trace = [None if r is None else round(r / 2, 3) for r in rtt_ms]  # whole microseconds: short enough to send
        self._shaper.change(self.name, trace=trace, step_ms=step_ms)

    def counters(self) -> list[dict[str, int]]:
        """Packets of both directions: taken, lost, overflowed, sent."""
        return self._shaper.change(self.name)

    def _carrier(self, *, up: bool) -> None:
        self.__dict__["is_up"] = up
        self._shaper.change(self.name, carrier=int(up))
