"""What is given up stays given up, in every thread; and what an agent needs is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from producers.privileges import CAP_NET_RAW, held_capabilities

NEEDS_CAPABILITIES = pytest.mark.skipif(
    not held_capabilities() & 1 << CAP_NET_RAW, reason="NOT TESTED: needs CAP_NET_RAW (root), to have what to give up"
)
ROOT = Path(__file__).parents[2]

_SCRIPT = """
import asyncio, pathlib, socket, threading, subprocess
from producers.privileges import CAP_NET_RAW, held_capabilities, keep_only
from producers.probes.methods import open_probes

async def main():
    keep_only((CAP_NET_RAW,))
    assert held_capabilities() == 1 << CAP_NET_RAW, hex(held_capabilities())
    probes = open_probes(["icmp", "tcp-syn"], 1.0)
    assert [p.method for p in probes] == ["icmp", "tcp-syn"]
    keep_only(())
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    for status in pathlib.Path("/proc/self/task").glob("*/status"):
        fields = dict(line.split(":\\t", 1) for line in status.read_text().splitlines())
        assert all(int(fields[name], 16) == 0 for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")), fields
        assert fields["NoNewPrivs"] == "1"
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    except PermissionError:
        pass
    else:
        raise AssertionError("a raw socket after all was given up")
    # Nor does a program that we run get anything back.
    status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
    assert "CapEff:\\t0000000000000000" in status
    # What is open still asks.
    from producers.probes import Endpoint
    for probe in probes:
        with socket.create_server(("127.0.0.1", 0)) as server:
            answer = asyncio.get_running_loop().create_future()
            probe.ask(Endpoint("127.0.0.1", server.getsockname()[1]), answer.set_result)
            print((await answer).outcome.name)
        probe.close()

asyncio.run(main())
"""


@NEEDS_CAPABILITIES
def test_an_agent_keeps_only_what_it_needs_and_nothing_once_its_sockets_are_open() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    argv = [sys.executable, "-W", "error", "-c", _SCRIPT]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ANSWERED"] * 2


_WITHOUT = """
import asyncio
from producers.privileges import keep_only
from producers.probes.methods import open_probes

async def main():
    keep_only(())
    print(*[p.method for p in open_probes(["tcp-syn", "tcp-connect"], 1.0)])
    print(*[p.method for p in open_probes(["tcp-syn"], 1.0)])

asyncio.run(main())
"""


def test_without_privilege_tcp_syn_is_tcp_connect_and_says_so() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.splitlines() == ["tcp-connect", "tcp-connect"], done.stderr
    assert "CAP_NET_RAW" in done.stderr
