"""What is given up stays given up, in every thread; and what an agent needs is still there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from producers.privileges import CAP_NET_RAW, held_capabilities
from tests.infra.confined import apart, become, missing

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


_NOBODY = 61_000
_RAW = ["CAP_NET_RAW"]
NEEDS_TO_CONFINE = pytest.mark.skipif(bool(missing()), reason=f"NOT TESTED: needs {missing()}")


def _run_as_nobody(argv: list[str]) -> subprocess.CompletedProcess[str]:
    packages = str(Path(sys.prefix, "lib", f"python3.{sys.version_info.minor}", "site-packages"))
    environment = {
        "PATH": os.environ["PATH"],
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}:{packages}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60, check=False)


@NEEDS_TO_CONFINE
def test_nobody_with_one_ambient_capability_asks_by_raw_sockets() -> None:
    """As systemd starts the agent: this capability, no way to any other, on a read-only machine."""
    done = _run_as_nobody(apart(become(_NOBODY, _RAW, _RAW, [sys.executable, "-c", _SCRIPT])))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ANSWERED"] * 2


@pytest.fixture
def python_raw() -> Iterator[Path]:
    """The image's second Python, made here by the very line of the Dockerfile."""
    dockerfile = (ROOT / "infra" / "Dockerfile").read_text()
    found = re.search(r'python -c "(import os, struct; os\.setxattr[^"]*)"', dockerfile)
    assert found is not None
    # pytest's own folders are root's alone.
    with tempfile.TemporaryDirectory(prefix="proxima-raw-") as folder:
        Path(folder).chmod(0o755)
        copy = Path(folder, "python-raw")
        shutil.copy(Path(sys.executable).resolve(), copy)
        line = found[1].replace("/usr/local/bin/python-raw", str(copy))
        assert line != found[1]
        subprocess.run([sys.executable, "-c", line], check=True)
        yield copy


@NEEDS_TO_CONFINE
def test_nobody_in_a_container_takes_the_capability_from_the_interpreters_file(python_raw: Path) -> None:
    argv = ["env", str(python_raw), "-c", _SCRIPT]
    done = _run_as_nobody(apart(become(_NOBODY, _RAW, [], argv, more_privileges=True), readable=[python_raw.parent]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ANSWERED"] * 2


_OPENED = """
import asyncio
from producers.probes.methods import open_probes

async def main():
    print(*[p.method for p in open_probes(["tcp-syn"], 1.0)])

asyncio.run(main())
"""


@NEEDS_TO_CONFINE
@pytest.mark.parametrize(("more_privileges", "method"), [(True, "tcp-syn"), (False, "tcp-connect")])
def test_no_new_privileges_would_take_it_from_the_file(python_raw: Path, more_privileges: bool, method: str) -> None:
    """Which is why infra/compose.secured.yaml and infra/kubernetes/probe.yaml do not say it of the agent."""
    # By way of env: what setpriv itself executes it may still give its own capabilities.
    argv = become(_NOBODY, _RAW, [], ["env", str(python_raw), "-c", _OPENED], more_privileges=more_privileges)
    done = _run_as_nobody(apart(argv, readable=[python_raw.parent]))
    assert done.stdout.split() == [method], done.stderr


@NEEDS_TO_CONFINE
def test_a_container_without_net_raw_cannot_execute_it(python_raw: Path) -> None:
    argv = ["env", str(python_raw), "-c", "print('runs')"]
    done = _run_as_nobody(apart(become(_NOBODY, [], [], argv, more_privileges=True), readable=[python_raw.parent]))
    assert done.returncode != 0
    assert "not permitted" in done.stderr


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
