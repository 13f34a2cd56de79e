"""Child processes that do not outlive us, even when we are killed with `kill -9`.

Brokers, stores, stages and demo parts all run as processes of their own, and a crashed test run or a killed worker
must not leave a JVM behind. No handler runs on `kill -9`, so the kernel has to do it: each child asks for a signal
at its parent's death (`PR_SET_PDEATHSIG`). Each level of a tree of processes does the same for its own children, so
the whole tree goes when its root is killed.

Four things make that trustworthy:

* The signal comes when the *thread* that forked ends, not the process. So one thread forks for everybody, and it
  lives as long as the process does.
* The request is made between fork and exec by a tiny interpreter (`_TETHER`), which then becomes the program. A
  `preexec_fn` would run Python in the forked copy of a process with threads, where a lock that another thread held
  is held for ever; confluent-kafka and grpc bring such threads. It costs about 20 ms a child.
* The parent may be dead before the child has asked: the child compares its parent with the one that it was told.
* The kernel forgets the request when the program is setuid or has file capabilities (Debian's `ping`), so none of
  these is started from here.
"""

from __future__ import annotations

import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from schemas.errors import ProximaError

T = TypeVar("T")

POLL_S = 0.01
STOP_TIMEOUT_S = 15.0
LOG_TAIL_LINES = 20

# argv: parent's pid, signal, program, arguments. SIGPIPE and SIGXFSZ: Python ignores them and exec would pass that on.
_TETHER = """
import ctypes, os, signal, sys
parent, death_signal, *command = sys.argv[1:]
if ctypes.CDLL(None, use_errno=True).prctl(1, int(death_signal), 0, 0, 0) != 0:
    sys.exit("cannot set PR_SET_PDEATHSIG: " + os.strerror(ctypes.get_errno()))
if os.getppid() != int(parent):
    sys.exit("the parent died first")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
os.execv(command[0], command)
"""


class ChildProcess:
    """One program, in a session of its own, that dies with us."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str, log_path: Path | None) -> None:
        self.name, self.log_path = name, log_path
        self._popen = popen
        self._lock = threading.Lock()

    @classmethod
    def start(
        cls,
        argv: Sequence[str | Path],
        *,
        name: str = "",
        log_path: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> Self:
        """Start `argv`; its output is appended to `log_path`, or goes where ours goes.

        `env` adds to our environment. `death_signal` is what the child gets when we die: SIGKILL unless it has to
        tidy up (a program that ignores SIGTERM then outlives us).
        Raises ProximaError: if there is no such program.
        """
        program, *arguments = (os.fspath(a) for a in argv)
        environment = {**os.environ, **(env or {})}
        found = shutil.which(program, path=environment.get("PATH", ""))
        if found is None:
            raise ProximaError(f"there is no program {program!r}", do="install it, or add its folder to PATH")
        # The tether runs in `cwd`, where a relative path would mean another file.
        command = [str(Path(found).absolute()), *arguments]
        if log_path is not None:
            log_path.parent.mkdir(parents=True, exist_ok=True)
        tether = [sys.executable, "-I", "-S", "-c", _TETHER, str(os.getpid()), str(int(death_signal)), *command]
        popen = _fork_in_the_lasting_thread(tether, log_path, environment, cwd)
        return cls(popen, name or Path(program).name, log_path)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self.returncode is None

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal, None while it runs."""
        with self._lock:
            if self._popen.returncode is None and not self._reaped_by_others() and self._has_ended():
                self._kill_group_and_reap()
            return self._popen.returncode

    def wait(self, timeout_s: float) -> int | None:
        """The exit code once it ended, or None when it still runs after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (code := self.returncode) is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone; nothing happens when it has ended."""
        with self._lock:
            # Not Popen's own: that one reaps on the way, and the rest of the group would be forgotten.
            if self._popen.returncode is None and not self._reaped_by_others():
                os.kill(self.pid, number)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ask it to end (SIGTERM), insist after `timeout_s` (SIGKILL); returns its exit code."""
        self.send_signal(signal.SIGTERM)
        code = self.wait(timeout_s)
        return self.kill() if code is None else code

    def kill(self) -> int:
        """`kill -9` it and what it started in its group; returns its exit code once it is gone."""
        with self._lock:
            if self._popen.returncode is None and not self._reaped_by_others():
                self._kill_group_and_reap()
            return self._popen.returncode

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The end of its log, for an error message."""
        if self.log_path is None or not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - lines * 400))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"ChildProcess({self.name!r}, pid={self.pid}, returncode={self.returncode})"

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _kill_group_and_reap(self) -> None:
        # Until it is reaped the child keeps its number, so the group of that number cannot be a stranger's.
        os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def _reaped_by_others(self) -> bool:
        """Whether somebody else in this process waited for all children; then its number may be a stranger's."""
        try:
            self._has_ended()
        except ChildProcessError:
            self._popen.wait()
            return True
        return False


def stop_all(children: Iterable[ChildProcess], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Ask all to end at once, then wait for them together: as slow as the slowest, not as their sum."""
    children = list(children)
    for child in children:
        child.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    for child in children:
        if child.wait(max(0.0, deadline - time.monotonic())) is None:
            child.kill()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, different from each other.

    From below the kernel's ephemeral range: there, a client that keeps reconnecting to a killed broker may be given
    the broker's own port as its source port, connect to itself, and keep the broker from coming back.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # A machine with an unusually wide ephemeral range leaves little below it; then any unprivileged port must do.
    candidates = range(10_000, first_ephemeral) if first_ephemeral > 12_000 else range(10_000, 65_536)
    chosen = random.SystemRandom()
    held: list[socket.socket] = []
    try:
        for _ in range(100 * count + 100):
            if len(held) == count:
                break
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                listener.bind(("127.0.0.1", chosen.choice(candidates)))
            except OSError:
                listener.close()
            else:
                held.append(listener)
        else:
            raise ProximaError(f"no {count} free ports on 127.0.0.1", do="end what listens on them")
        return [listener.getsockname()[1] for listener in held]
    finally:
        for listener in held:
            listener.close()


def wait_until(
    predicate: Callable[[], T],
    timeout_s: float,
    what: str,
    *,
    children: Iterable[ChildProcess] = (),
    poll_s: float = POLL_S,
) -> T:
    """Poll until `predicate` returns something true, and return that.

    Raises ProximaError: at the deadline, or as soon as one of the `children` that it depends on has ended; it ends
    with the tail of their logs.
    """
    children = tuple(children)
    deadline = time.monotonic() + timeout_s
    while True:
        # Looked at before the predicate: what a child did last still counts.
        ended = [child for child in children if not child.alive]
        if value := predicate():
            return value
        if ended:
            why = ", ".join(f"{child.name} ended with code {child.returncode}" for child in ended)
            raise ProximaError(f"waiting for {what}: {why}{_tails(ended)}")
        if time.monotonic() >= deadline:
            raise ProximaError(f"waiting for {what}: not within {timeout_s:g} s{_tails(children)}")
        time.sleep(poll_s)


def _tails(children: Iterable[ChildProcess]) -> str:
    tails = ((child.log_path, child.log_tail()) for child in children)
    return "".join(f"\nthe end of {path}:\n{tail}" for path, tail in tails if tail)


_Order = Callable[[], None]
_orders: queue.SimpleQueue[_Order] | None = None
_orders_lock = threading.Lock()


def _fork_in_the_lasting_thread(
    argv: list[str], log_path: Path | None, env: dict[str, str], cwd: Path | None
) -> subprocess.Popen[bytes]:
    future: Future[subprocess.Popen[bytes]] = Future()

    def fork() -> None:
        log = None
        try:
            log = log_path.open("ab") if log_path is not None else None
            future.set_result(
                subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT if log is not None else None,
                    env=env,
                    cwd=cwd,
                    start_new_session=True,
                )
            )
        except BaseException as error:  # raised again where it was asked for
            future.set_exception(error)
        finally:
            if log is not None:
                log.close()

    _lasting_thread().put(fork)
    return future.result()


def _lasting_thread() -> queue.SimpleQueue[_Order]:
    """The queue of the thread that forks; a daemon thread, as an executor's ends while others still run."""
    global _orders  # noqa: PLW0603 - one thread per process is the point
    with _orders_lock:
        if _orders is None:
            _orders = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(_orders,), name="forks-children", daemon=True).start()
        return _orders


def _serve(orders: queue.SimpleQueue[_Order]) -> None:
    while True:
        orders.get()()


def _forget_the_thread() -> None:
    """After `os.fork` (multiprocessing) the copy has no such thread, and maybe a lock that nobody will release."""
    global _orders, _orders_lock
    _orders, _orders_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_the_thread)
