"""No child outlives us: the kernel sees to it, whoever dies, however, and in whatever thread it was started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from infra.processes import _TETHER, ChildProcess, free_ports, stop_all, wait_until
from schemas.errors import ProximaError

TIMEOUT_S = 20.0
SLEEP = ["sleep", "600"]
# A process that starts another by our class, says both numbers and waits; the first argument is how many levels deep.
ANCESTOR = """
import os, sys, time
from pathlib import Path
from infra.processes import ChildProcess
levels, folder = int(sys.argv[1]), Path(sys.argv[2])
argv = [sys.executable, "-c", sys.argv[3], str(levels - 1), *sys.argv[2:]] if levels > 1 else ["sleep", "600"]
child = ChildProcess.start(argv, log_path=folder / "log")
(folder / f"{os.getpid()}.child").write_text(str(child.pid))
time.sleep(600)
"""


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def is_gone(process: psutil.Process) -> bool:
    """Ended; where nobody reaps orphans (some containers), a zombie is as gone as it gets."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_grandparent_killed_with_9_leaves_nobody(tmp_path: Path) -> None:
    levels = 3
    argv = [sys.executable, "-c", ANCESTOR, str(levels), str(tmp_path), ANCESTOR]
    with subprocess.Popen(argv) as grandparent:

        def descendants() -> list[psutil.Process]:
            found = [psutil.Process(int(text)) for file in tmp_path.glob("*.child") if (text := file.read_text())]
            # The youngest is a tether until it has become the program.
            return found if len(found) == levels and any(p.name() == "sleep" for p in found) else []

        family = wait_until(descendants, TIMEOUT_S, "three generations to start")
        grandparent.kill()
    wait_until(lambda: all(is_gone(process) for process in family), TIMEOUT_S, "everybody to be gone")


def test_child_outlives_the_thread_that_started_it(started: ExitStack) -> None:
    children: list[ChildProcess] = []
    thread = threading.Thread(target=lambda: children.append(ChildProcess.start(SLEEP)))
    thread.start()
    thread.join()
    child = started.enter_context(children[0])
    task = Path(f"/proc/self/task/{thread.native_id}")
    wait_until(lambda: not task.exists(), TIMEOUT_S, "the thread's end")
    assert child.wait(0.3) is None


def test_child_whose_parent_died_first_never_becomes_the_program() -> None:
    stranger = "1" if os.getpid() != 1 else "2"
    argv = [sys.executable, "-I", "-S", "-c", _TETHER, stranger, "9", "/bin/echo", "started"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the parent died first" in done.stderr


def test_children_can_be_started_after_a_fork() -> None:
    program = """
import os
from infra.processes import ChildProcess
ChildProcess.start(["true"]).wait(20)
pid = os.fork()
if pid == 0:
    os._exit(ChildProcess.start(["sh", "-c", "exit 7"]).wait(20))
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 7


def test_stop_asks_before_it_kills(tmp_path: Path) -> None:
    polite = ChildProcess.start(
        ["sh", "-c", "trap 'exit 3' TERM; echo ready; sleep 600 & wait"], log_path=tmp_path / "a"
    )
    wait_until(lambda: "ready" in polite.log_tail(), TIMEOUT_S, "the trap", children=[polite])
    assert polite.stop() == 3


def test_stop_kills_who_does_not_listen(tmp_path: Path) -> None:
    deaf = ChildProcess.start(["sh", "-c", "trap '' TERM; echo ready; sleep 600"], log_path=tmp_path / "a")
    wait_until(lambda: "ready" in deaf.log_tail(), TIMEOUT_S, "the trap", children=[deaf])
    assert deaf.stop(timeout_s=0.1) == -signal.SIGKILL
    assert not deaf.alive


def test_stopping_and_killing_twice_is_fine() -> None:
    child = ChildProcess.start(SLEEP)
    assert child.kill() == -signal.SIGKILL
    assert child.kill() == -signal.SIGKILL
    assert child.stop() == -signal.SIGKILL
    assert child.returncode == -signal.SIGKILL


def test_context_ends_the_child() -> None:
    with ChildProcess.start(SLEEP) as child:
        assert child.alive
        process = psutil.Process(child.pid)
    assert is_gone(process)


def test_helpers_of_a_child_that_ended_by_itself_go_with_it(tmp_path: Path) -> None:
    child = ChildProcess.start(["sh", "-c", "sleep 600 & echo $!"], log_path=tmp_path / "log")
    helper = psutil.Process(int(wait_until(child.log_tail, TIMEOUT_S, "the helper's number")))
    assert child.wait(TIMEOUT_S) == 0
    wait_until(lambda: is_gone(helper), TIMEOUT_S, "the helper to be gone")


def test_stop_all_stops_all() -> None:
    children = [ChildProcess.start(SLEEP) for _ in range(3)]
    stop_all(children)
    assert [child.returncode for child in children] == [-signal.SIGTERM] * 3


def test_log_is_appended_to(tmp_path: Path) -> None:
    log_path = tmp_path / "deeper" / "log"
    for word in ("first", "second"):
        assert ChildProcess.start(["sh", "-c", f"echo {word}; echo {word} >&2"], log_path=log_path).wait(TIMEOUT_S) == 0
    assert log_path.read_text().split() == ["first", "first", "second", "second"]


def test_child_gets_environment_folder_and_default_signals(tmp_path: Path) -> None:
    argv = ["sh", "-c", 'echo "$WORD"; pwd; grep SigIgn /proc/self/status']
    child = ChildProcess.start(argv, log_path=tmp_path / "log", env={"WORD": "given"}, cwd=tmp_path)
    assert child.wait(TIMEOUT_S) == 0
    word, folder, ignored = child.log_tail().splitlines()
    assert (word, folder) == ("given", str(tmp_path))
    assert not int(ignored.split()[1], 16) >> (signal.SIGPIPE - 1) & 1


def test_missing_program_is_said_with_its_name() -> None:
    with pytest.raises(ProximaError, match="no program 'no-such-program'"):
        ChildProcess.start(["no-such-program"])


def test_waiting_for_a_dead_child_ends_at_once_with_its_last_words(tmp_path: Path) -> None:
    child = ChildProcess.start(["sh", "-c", "echo port in use; exit 4"], name="store", log_path=tmp_path / "log")
    with pytest.raises(ProximaError, match=r"store ended with code 4(?s:.)*port in use"):
        wait_until(lambda: False, 600, "the store", children=[child])


def test_waiting_ends_at_the_deadline() -> None:
    with pytest.raises(ProximaError, match=r"waiting for rain: not within 0\.05 s"):
        wait_until(lambda: None, 0.05, "rain")


def test_free_ports_differ_and_are_none_that_the_kernel_gives_to_clients() -> None:
    ports = free_ports(20)
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(ports)) == 20
    assert first_ephemeral <= 12_000 or max(ports) < first_ephemeral
