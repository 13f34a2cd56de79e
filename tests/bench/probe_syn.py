"""10,000 SYNs to one server: nothing half-open there, and what a refused and a silent port count as."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from schemas.records import Outcome
from tests.bench.probing import load, sampled, skipped, us
from tests.network import pair


def run() -> Iterator[dict[str, Any]]:
    """One line: what the server has left, and the outcomes by the port's kind."""
    missing = skipped("ss")
    if missing:
        yield missing
        return
    with pair() as hosts:
        with hosts.there.entered():
            server = socket.create_server(("", 0), backlog=4096)
            deaf = socket.create_server(("", 0), backlog=0)
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:  # its queue is full: it drops what comes
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", deaf.getsockname()[1]))
        here, there = hosts.here, [hosts.there.address]
        open_ = sampled(here, there, 1000, 10, method="tcp-syn", port=server.getsockname()[1])
        states = hosts.there.run("ss", "-Htan", f"sport = :{server.getsockname()[1]}").split("\n")
        refused = sampled(here, there, 100, 2, method="tcp-syn", port=9)
        filtered = sampled(here, there, 100, 2, method="tcp-syn", port=deaf.getsockname()[1])
        for opened in (server, deaf, *fillers):
            opened.close()
    yield {
        "probes": len(open_.outcome),
        **us(open_.rtt_us),
        "syn_recv_left": sum("SYN-RECV" in line for line in states),
        "any_connection_left": sum(bool(line) and "LISTEN" not in line for line in states),
        **{
            name: {outcome.name: found.count(outcome) for outcome in Outcome if found.count(outcome)}
            for name, found in (("open", open_), ("refused", refused), ("filtered", filtered))
        },
        "core_ratio": round(open_.cpu_ratio, 3),
        "load": load(),
    }
