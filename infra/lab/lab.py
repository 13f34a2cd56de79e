"""A lab, started and torn down completely: `with Lab.start(spec) as lab: lab.link("eu", "t1").delay_ms = 80`.

Nothing of it outlives us: the processes are tethered to this one (`infra/processes.py`), and a guard process, which is
told when we die however we die, removes the namespaces with what runs in them, and the files.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from infra.lab.links import Link, RelayClient
from infra.lab.namespaces import inside, make, missing_right, namespace_of, remove, run
from infra.lab.netem import Netem, missing_netem
from infra.lab.routers import Router, missing_frr
from infra.lab.spec import LabLink, LabSpec
from infra.processes import ChildProcess, wait_until
from schemas.errors import ProximaError

log = logging.getLogger(__name__)

_READY_S: Final = 20.0
_ROUTES_S: Final = 30.0


class Lab:
    """A running lab."""

    def __init__(self, spec: LabSpec, folder: Path) -> None:
        self.spec = spec
        self.folder = folder
        self.routers: dict[str, Router] = {}
        self._links: dict[frozenset[str], Link] = {}
        self._undo = ExitStack()

    @classmethod
    def start(cls, spec: LabSpec, *, routers: bool = True) -> Self:
        """Namespaces, links and routers, as described; what a lab of this name left behind is removed first.

        Raises ProximaError: no right, no TUN, no FRR, or a part that does not come up, with the end of its log.
        """
        for missing in (missing_right(), missing_frr() if routers else None):
            if missing is not None:
                raise ProximaError(missing)
        lab = cls(spec, Path(tempfile.gettempdir(), f"proxima-{spec.name}-{secrets.token_hex(4)}"))
        try:
            lab._start_network()
            if routers:
                lab._start_routers()
        except BaseException:
            lab.stop()
            raise
        return lab

    def _start_network(self) -> None:
        self._undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
        remove(self.spec.name)
        guard = [sys.executable, "-m", "infra.lab.guard", self.spec.name, str(self.folder)]
        # It is asked to end when we die, and removes what is left then; after `stop` that is nothing.
        its = ChildProcess.start(guard, name="guard of the lab", death_signal=signal.SIGTERM)
        self._undo.enter_context(its)
        wait_until(self.folder.is_dir, _READY_S, its.name, children=[its])
        self._undo.callback(remove, self.spec.name)
        for node in self.spec.nodes:
            make(namespace_of(self.spec.name, node))
        for region in self.spec.regions:
            self._own_addresses(region.id)
        by_netem = self._by_netem()
        control, described = self.folder / "relay.sock", self.folder / "links.json"
        relayed = [link for link in self.spec.links if link not in by_netem]
        described.write_text(json.dumps([self._described(link) for link in relayed]))
        self._helper("relay", str(control), str(described))
        client, netem = RelayClient(control), Netem([self._described(link) for link in by_netem])
        self._undo.callback(client.close)
        for link in self.spec.links:
            self._links[frozenset(link.between)] = Link(netem if link in by_netem else client, link)

    def _by_netem(self) -> list[LabLink]:
        """The links that are not the relay's."""
        if not self.spec.netem:
            return []
        missing = missing_netem()
        if missing is not None:
            log.warning("%s: all links are the relay's", missing)
            return []
        return [link for link in self.spec.links if link.trace is None]

    def _own_addresses(self, region: str) -> None:
        add = ("ip", "-n", namespace_of(self.spec.name, region), "addr", "add")
        run(*add, f"{self.spec.address(region)}/24", "dev", "lo")
        run(*add, f"{self.spec.address_v6(region)}/64", "dev", "lo", "nodad")

    def _described(self, link: LabLink) -> dict[str, object]:
        number = self.spec.links.index(link)
        ends, ends_v6 = self.spec.ends(link), self.spec.ends_v6(link)
        return {
            "name": link.name,
            "ends": [
                {
                    "namespace": namespace_of(self.spec.name, node),
                    "device": f"l{number}",
                    "addresses": [f"{ends[i]}/30", f"{ends_v6[i]}/64"],
                }
                for i, node in enumerate(link.between)
            ],
        }

    def _start_routers(self) -> None:
        self.routers = {n: Router(self.spec, n, self.folder / "frr" / n) for n in self.spec.nodes}
        for router in self.routers.values():
            self._undo.callback(router.stop)
        for program in ("zebra", "bgpd"):
            for router in self.routers.values():
                router.start(program)
            for router in self.routers.values():
                router.wait(program)

    def wait_for_routes(self) -> None:
        """Until every region has a route to every other. Raises ProximaError: it has not within half a minute."""
        prefixes = {self.spec.prefixes(r.id)[0] for r in self.spec.regions}
        for region in self.spec.regions:
            router = self.routers[region.id]
            wait_until(partial(_knows, router, prefixes), _ROUTES_S, f"routes of {region.id}", poll_s=0.1)

    def link(self, one: str, other: str) -> Link:
        """The link between two nodes. Raises ProximaError: there is none, with those that there are."""
        found = self._links.get(frozenset((one, other)))
        if found is None:
            there = ", ".join(link.name for link in self.spec.links)
            raise ProximaError(f"no link between {one} and {other}", do=f"one of {there}")
        return found

    @property
    def links(self) -> list[Link]:
        return list(self._links.values())

    def heal(self) -> None:
        """All links as described again."""
        for link in self.links:
            link.heal()

    def open_doors(self, ports: Iterable[int]) -> None:
        """Make ports of the machine's loopback (Kafka's) reachable at the same address in every region."""
        namespaces = [namespace_of(self.spec.name, r.id) for r in self.spec.regions]
        self._helper("doors", ",".join(map(str, ports)), *namespaces)

    def run(
        self, node: str, command: Sequence[str], *, name: str, env: Mapping[str, str] | None = None
    ) -> ChildProcess:
        """A program in a node's namespace, that ends with the lab."""
        entered = inside(namespace_of(self.spec.name, node), command)
        child = ChildProcess.start(entered, name=name, log_path=self.folder / f"{name}.log", env=env)
        self._undo.callback(child.stop)
        return child

    def _helper(self, program: str, *arguments: str) -> None:
        log = self.folder / f"{program}.log"
        child = ChildProcess.start(
            [sys.executable, "-m", f"infra.lab.{program}", *arguments], name=f"the lab's {program}", log_path=log
        )
        self._undo.callback(child.kill)
        wait_until(lambda: "ready" in log.read_text(), _READY_S, child.name, children=[child])

    def stop(self) -> None:
        """Tear everything down, in the reverse order."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def _knows(router: Router, prefixes: set[str]) -> bool:
    return prefixes <= router.routes()
