"""The methods that a configuration may name, and how each is opened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from producers.probes import Probe
from producers.probes.icmp import IcmpEcho
from producers.probes.tcp_connect import TcpConnect
from schemas.errors import ConfigError, ProbeError

log = logging.getLogger(__name__)


def open_probes(methods: Iterable[str], timeout_s: float) -> list[Probe]:
    """One probe a method, in their order; of two that come to the same, one. Make them where an event loop runs.

    Raises ConfigError for methods that there are not, ProbeError for one that this process may not use.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        known = ", ".join(METHODS)
        raise ConfigError([f"probe.methods: {method!r} is none of {known}" for method in unknown], where="[probe]")
    opened: dict[str, Probe] = {}
    try:
        for method in methods:
            probe = METHODS[method](timeout_s)
            if probe.method in opened:
                probe.close()
            else:
                opened[probe.method] = probe
    except ProbeError:
        for probe in opened.values():
            probe.close()
        raise
    return list(opened.values())


def _tcp_syn(timeout_s: float) -> Probe:
    """Raw SYNs, or else the kernel's connect(), which its samples then say that they are."""
    from producers.probes.tcp_syn import TcpSyn  # noqa: PLC0415 - scapy takes half a second to load

    try:
        return TcpSyn(timeout_s)
    except ProbeError as error:
        log.warning("%s; until then tcp-connect asks instead, timed in user space", error)
        return TcpConnect(timeout_s)


METHODS: Final[dict[str, Callable[[float], Probe]]] = {
    "tcp-connect": TcpConnect,
    "tcp-syn": _tcp_syn,
    "icmp": IcmpEcho,
}
