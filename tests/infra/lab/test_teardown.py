"""Nothing of a lab stays: no namespace, no process, no file, whether it is stopped, fails to start or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.lab import routers
from infra.lab.lab import Lab
from infra.lab.namespaces import namespaces
from infra.processes import wait_until
from schemas.errors import ProximaError
from tests.infra.lab.conftest import spec
from tests.infra.lab.remains import processes, remains

pytestmark = pytest.mark.usefixtures("lab_is_possible")

STARTED_BY_SOMEBODY = """
import sys, time
from infra.lab.lab import Lab
from tests.infra.lab.conftest import spec
print("begins", flush=True)
with Lab.start(spec(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_after_a_stop_nothing_stays() -> None:
    before = processes(os.getpid())
    with Lab.start(spec(f"s{os.getpid()}")):
        started = processes(os.getpid()) - before
        assert len(started) >= 12, "routers, relay and guard"
        assert remains(f"s{os.getpid()}", started)
    assert remains(f"s{os.getpid()}", started) == []


def test_after_a_start_that_failed_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every zebra is up when the first bgpd ends at once."""
    (tmp_path / "zebra").symlink_to("/usr/lib/frr/zebra")
    (tmp_path / "bgpd").write_text("#!/bin/sh\necho no more sockets; exit 1\n")
    (tmp_path / "bgpd").chmod(0o755)
    monkeypatch.setattr(routers, "_FRR", tmp_path)
    before = processes(os.getpid())
    with pytest.raises(ProximaError, match=r"(?s)bgpd of .* ended with code 1.*no more sockets"):
        Lab.start(spec(f"f{os.getpid()}"))
    assert remains(f"f{os.getpid()}", processes(os.getpid()) - before) == []


@pytest.mark.parametrize("half_started", [False, True], ids=["when-ready", "half-started"])
def test_after_a_kill_of_the_owner_nothing_stays(tmp_path: Path, half_started: bool) -> None:
    script = tmp_path / "killed.py"
    script.write_text(STARTED_BY_SOMEBODY)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    name = f"k{os.getpid()}"
    with subprocess.Popen([sys.executable, str(script), name], stdout=subprocess.PIPE, env=env) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"begins\n"
            if half_started:
                wait_until(lambda: len(namespaces(name)) >= 3, 20, "namespaces")
            else:
                assert owner.stdout.readline() == b"ready\n"
            started = processes(owner.pid)
        finally:
            owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not remains(name, started), 20, "everything to go")
