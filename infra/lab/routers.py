"""FRR in every namespace of a lab: eBGP over all links, and BMP from each region's router to the monitor beside it.

Traps of FRR 8.4 that the configuration avoids (measured): before-policy BMP without `soft-reconfiguration inbound` says
false withdrawals; without `compare-routerid` and `maximum-paths 1` the best path depends on who spoke first; a region
that passes routes on becomes a transit, so each exports its own prefixes only.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from infra.lab.namespaces import forget, inside, namespace_of
from infra.lab.spec import LabLink, LabSpec
from infra.processes import ChildProcess, wait_until
from sinks.actuators.vty import tell

BMP_PORT: Final = 11_019  # of the monitor in each region's namespace, on loopback
_FRR: Final = Path("/usr/lib/frr")
_ANSWER_S: Final = 10.0
_KEEPALIVE_S, _HOLD_S = 3, 9


def missing_frr() -> str | None:
    """Why there are no routers here; None: there can be."""
    if (_FRR / "bgpd").exists():
        return None
    return "routers need FRR: apt-get install frr"


class Router:
    """One node's zebra and bgpd."""

    def __init__(self, spec: LabSpec, node: str, folder: Path) -> None:
        self.node = node
        self._spec, self._folder = spec, folder
        self._daemons: dict[str, ChildProcess] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for program, lines in (("zebra", _zebra(spec, node)), ("bgpd", _bgpd(spec, node))):
            (folder / f"{program}.conf").write_text("\n".join(lines) + "\n")
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "frr", "frr")  # they give up root, and their folder is theirs

    @property
    def vty(self) -> Path:
        """The socket that bgpd takes commands on."""
        return self._folder / "bgpd.vty"

    def start(self, program: str) -> None:
        """Start `zebra` or `bgpd`, in the foreground, so that it ends with us."""
        folder, own = str(self._folder), str(self._folder / program)
        command = [
            str(_FRR / program), "-f", f"{own}.conf", "-i", f"{own}.pid", "--vty_socket", folder,
            "-z", f"{folder}/zserv.api", "-A", "127.0.0.1", "-P", "0", "--log", "stdout",
            *(["-p", "179", "-M", "bmp"] if program == "bgpd" else []),
        ]  # fmt: skip
        self._daemons[program] = ChildProcess.start(
            inside(namespace_of(self._spec.name, self.node), command),
            name=f"{program} of {self.node}",
            log_path=self._folder / f"{program}.log",
        )

    def wait(self, program: str) -> None:
        """Until it takes commands. Raises ProximaError with the end of its log."""
        vty = self._folder / f"{program}.vty"
        wait_until(vty.exists, _ANSWER_S, f"{program} of {self.node}", children=[self._daemons[program]])

    def kill(self, program: str = "bgpd") -> None:
        """`kill -9`: its peers see the connection closed."""
        daemon = self._daemons[program]
        daemon.kill()
        (self._folder / f"{program}.vty").unlink(missing_ok=True)
        forget(daemon.pid)

    def stop(self) -> None:
        """End both."""
        for program in self._daemons:
            self.kill(program)

    def tell(self, *commands: str) -> list[str]:
        """Commands to bgpd as `vtysh` takes them, each with its answer, in 0.5 ms. Raises ProximaError: refused."""
        return tell(self.vty, commands, timeout_s=_ANSWER_S, who=f"bgpd of {self.node}")

    def routes(self) -> set[str]:
        """IPv4 prefixes that it has a route to, its own too."""
        return set(json.loads(self.tell("show bgp ipv4 unicast json")[0])["routes"])


def _zebra(spec: LabSpec, node: str) -> list[str]:
    lines = [f"hostname {node}", "no zebra nexthop kernel enable"]
    if node in [r.id for r in spec.regions]:
        # What leaves a region leaves under the region's own address: nobody knows a way back to a link's.
        for family, address, any_prefix in (
            ("ip", spec.address(node), "0.0.0.0/0 le 32"),
            ("ipv6", spec.address_v6(node), "::/0 le 128"),
        ):
            lines += [
                f"{family} prefix-list all permit {any_prefix}",
                f"route-map own-{family} permit 10",
                f" match {family} address prefix-list all",
                f" set src {address}",
                "exit",
                f"{family} protocol bgp route-map own-{family}",
            ]
    return lines


def _bgpd(spec: LabSpec, node: str) -> list[str]:
    number = spec.nodes.index(node)
    is_region = number < len(spec.regions)
    lines = [
        f"hostname {node}",
        f"router bgp {spec.as_number(node)}",
        f" bgp router-id 10.255.0.{number + 1}",
        " no bgp ebgp-requires-policy",
        " no bgp network import-check",
        f" timers bgp {_KEEPALIVE_S} {_HOLD_S}",
        " bgp bestpath compare-routerid",
    ]
    peers = [(_other(link, node), *_peer_addresses(spec, link, node)) for link in spec.links if node in link.between]
    for peer, *addresses in peers:
        for address in addresses:
            lines += [
                f" neighbor {address} remote-as {spec.as_number(peer)}",
                f" neighbor {address} description {peer}",
                f" neighbor {address} timers connect 1",
                f" neighbor {address} advertisement-interval 0",
            ]
    if is_region:
        lines += [
            " bmp targets monitor",
            "  bmp stats interval 2000",
            "  bmp monitor ipv4 unicast pre-policy",
            "  bmp monitor ipv6 unicast pre-policy",
            f"  bmp connect 127.0.0.1 port {BMP_PORT} min-retry 100 max-retry 500",
            " exit",
        ]
    for family, which in (("ipv4", 0), ("ipv6", 1)):
        lines += [f" address-family {family} unicast", "  maximum-paths 1"]
        if is_region:
            lines.append(f"  network {spec.prefixes(node)[which]}")
        for peer, *addresses in peers:
            address, foreign = addresses[which], addresses[1 - which]
            if family == "ipv4":
                lines.append(f"  no neighbor {foreign} activate")
            lines += [
                f"  neighbor {address} activate",
                f"  neighbor {address} soft-reconfiguration inbound",
                f"  neighbor {address} route-map {peer}-in in",
                f"  neighbor {address} route-map {peer}-out out",
            ]
        lines.append(" exit-address-family")
    lines.append("exit")
    for peer, *_ in peers:
        own_only = [" match as-path own"] if is_region else []
        lines += [f"route-map {peer}-in permit 10", "exit", f"route-map {peer}-out permit 10", *own_only, "exit"]
    return [*lines, "bgp as-path access-list own permit ^$"]


def _other(link: LabLink, node: str) -> str:
    return link.between[1 - link.between.index(node)]


def _peer_addresses(spec: LabSpec, link: LabLink, node: str) -> tuple[str, str]:
    at = 1 - link.between.index(node)
    return spec.ends(link)[at], spec.ends_v6(link)[at]
