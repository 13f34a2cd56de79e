"""`proxima lab`: a network of regions on this machine, to break on purpose."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli._options import say

if TYPE_CHECKING:
    from infra.lab.lab import Lab


def register(app: typer.Typer) -> None:
    app.command()(lab)


def lab(
    file: Annotated[Path, typer.Argument(help="The lab's regions, transits and links (infra/examples/lab.toml).")],
) -> None:
    """A network of regions on this machine, with real packets and routers, to break on purpose. Needs root and FRR.

    Reads what to do from standard input, a line each: two ends of a link, and down, up, hole (lose everything in
    silence), heal, delay MS, jitter MS, loss RATIO or rate MBIT. Ctrl-C, or the end of the input, tears it down.

    \b
    Examples:
      proxima lab infra/examples/lab.toml
      eu-west-1 t1 delay 80
      eu-west-1 t1 down
      ip netns exec px-lab-eu-west-1 ip route       in another terminal
    """
    from infra.lab.lab import Lab  # noqa: PLC0415
    from infra.lab.namespaces import namespace_of  # noqa: PLC0415
    from infra.lab.spec import LabSpec  # noqa: PLC0415
    from schemas.errors import ProximaError  # noqa: PLC0415

    spec = LabSpec.read(file)
    with Lab.start(spec) as running:
        running.wait_for_routes()
        for region in spec.regions:
            addresses = f"{spec.address(region.id)}  {spec.address_v6(region.id)}"
            say(f"{region.id:16} {namespace_of(spec.name, region.id):28} {addresses}")
        for link in running.links:
            late = f"{link.delay_ms:g} ms each way" if link.spec.trace is None else f"as in {link.spec.trace.name}"
            say(f"{link.name:33} {late}{'' if link.is_up else ', standby'}")
        say("ready: a line is two ends of a link and what to do with it; Ctrl-C ends the lab")
        for line in sys.stdin:
            try:
                _do(running, line.split())
            except ProximaError as error:
                say(f"not done: {error}")


def _do(running: Lab, words: list[str]) -> None:
    from schemas.errors import ProximaError  # noqa: PLC0415

    attributes = {"delay": "delay_ms", "jitter": "jitter_ms", "loss": "loss_ratio", "rate": "rate_mbit"}
    match words:
        case []:
            pass
        case [one, other, ("down" | "up" | "heal") as what]:
            getattr(running.link(one, other), what)()
        case [one, other, "hole"]:
            running.link(one, other).black_hole()
        case [one, other, what, value] if what in attributes and _is_number(value):
            setattr(running.link(one, other), attributes[what], float(value))
        case _:
            raise ProximaError(f"{' '.join(words)!r} is no change of a link", do="eu-west-1 t1 delay 80")


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False
