"""Links by the kernel's netem, where it has it: a veth pair, with a queueing discipline at either end.

A lab is the relay's unless its file says `netem = true`. The relay is the same on every kernel, keeps the order of
packets, replays recorded times packet by packet, and its queue is as long as `queue_ms` says. netem carries more than
the relay's 20,000 packets a second, and takes no process's time. It does this otherwise:

    jitter      uniform over 0 to twice the mean, not exponential; packets may overtake each other
    queue       in packets of 1,500 bytes, and those that wait for their delay count too
    lost        what overflows is counted as lost
    not at all  traces, which stay with the relay; `bucket_bytes`
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from infra.lab.namespaces import run
from infra.lab.relay import NAMES
from schemas.errors import ProximaError

_QUEUE_MS: Final = 100.0  # as in the relay
_PACKET_BYTES: Final = 1500
_LIMIT_MAX: Final = 100_000  # packets
_NOT_NETEMS: Final = frozenset(("trace", "step_ms", "bucket_bytes"))


def missing_netem() -> str | None:
    """Why there is no netem here, as `tc` says in a namespace that is gone at once; None: there is."""
    tried = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", *discipline({"delay_ms": 1.0})]
    try:
        done = subprocess.run(tried, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return f"no netem: there is no program {error.filename}"
    return f"no netem: {done.stderr.strip().splitlines()[0]}" if done.returncode else None


def discipline(values: Mapping[str, float]) -> list[str]:
    """What `tc qdisc replace dev DEVICE root` is to be given for one direction of a link."""
    delay_ms, jitter_ms, loss_ratio, rate_mbit = (values.get(name, 0.0) for name in NAMES[:4])
    limit = _LIMIT_MAX
    if rate_mbit:
        waiting_ms = values.get("queue_ms", _QUEUE_MS) + delay_ms + 2 * jitter_ms
        limit = min(limit, max(1, math.ceil(waiting_ms * rate_mbit * 1000 / 8 / _PACKET_BYTES)))
    found = ["netem", "limit", str(limit), "delay", f"{delay_ms + jitter_ms:.3f}ms"]
    if jitter_ms:
        found.append(f"{jitter_ms:.3f}ms")
    if loss_ratio:
        found += ["loss", f"{100 * loss_ratio:.4f}%"]
    if rate_mbit:
        found += ["rate", f"{round(1e6 * rate_mbit)}bit"]
    return found


class Netem:
    """All of a lab's links that are netem's; to a `Link`, what the relay's client is."""

    def __init__(self, links: list[dict[str, Any]]) -> None:
        """`links` as the relay takes them: name and two ends. Raises ProximaError: a device cannot be made."""
        self._ends: dict[str, list[dict[str, Any]]] = {link["name"]: link["ends"] for link in links}
        self._values: dict[str, list[dict[str, float]]] = {link["name"]: [{}, {}] for link in links}
        for one, other in self._ends.values():
            ends = [f"name {end['device']} netns {end['namespace']}" for end in (one, other)]
            run("ip", "link", "add", *f"{ends[0]} type veth peer {ends[1]}".split())
            for end in (one, other):
                _set_up(**end)

    def change(self, link: str, **change: Any) -> list[dict[str, int]]:
        """Change a link, one `way` of it or both; returns the counters of both. Raises ProximaError: not by netem."""
        foreign = sorted(_NOT_NETEMS & change.keys())
        if foreign:
            what = f"link {link} is netem's, which has no {', '.join(foreign)}"
            raise ProximaError(what, do="leave it to the relay: netem = false in the lab's file")
        ends, values = self._ends[link], self._values[link]
        asked: dict[str, float] = {name: float(change[name]) for name in NAMES if name in change}
        for way in (0, 1) if change.get("way") is None else (change["way"],):
            values[way] |= asked
            if asked:
                where = ("tc", "-n", ends[way]["namespace"], "qdisc", "replace", "dev", ends[way]["device"], "root")
                run(*where, *discipline(values[way]))
        if "carrier" in change:
            for end in ends:
                run("ip", "-n", end["namespace"], "link", "set", end["device"], "up" if change["carrier"] else "down")
        return [_counters(end) for end in ends]

    def close(self) -> None:
        """Devices go with their namespaces."""


def _set_up(namespace: str, device: str, addresses: list[str]) -> None:
    for address in addresses:
        nodad = ["nodad"] if ":" in address else []
        run("ip", "-n", namespace, "addr", "add", address, "dev", device, *nodad)
    # A loss is to be that of a packet, and not of many that the sender handed over as one.
    run("ip", "-n", namespace, "link", "set", device, "gso_max_segs", "1", "up")


def _counters(end: Mapping[str, Any]) -> dict[str, int]:
    its = json.loads(run("tc", "-n", end["namespace"], "-s", "-j", "qdisc", "show", "dev", end["device"]))[0]
    sent, lost = its.get("packets", 0), its.get("drops", 0)
    return {"taken": sent + lost, "lost": lost, "overflowed": 0, "sent": sent}
