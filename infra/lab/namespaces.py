"""Network namespaces of a lab: made, entered, and removed with everything that runs in them.

A thread enters a namespace only for as long as it takes to open a socket or a device: what is open stays where it was
opened.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from schemas.errors import ProximaError

T = TypeVar("T")

_MADE: Final = Path("/run/netns")
_FRR_CRASH_LOGS: Final = Path("/var/tmp/frr")  # noqa: S108 - where FRR was built to keep them
_CLONE_NEWNET: Final = 0x40000000
_END_S: Final = 5.0  # that processes take to end when they are killed, at most
_LOOK_S: Final = 0.02
_libc = ctypes.CDLL(None, use_errno=True)

# Forwarding, for transits; no reverse-path filter, for paths need not be symmetric; every ping is answered;
# addresses outlive a device's being down.
_SETTINGS: Final = (
    "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0",
    "net.ipv4.ping_group_range=0 2147483647", "net.ipv6.conf.all.keep_addr_on_down=1",
)  # fmt: skip


def namespace_of(lab: str, node: str) -> str:
    """Name of a node's namespace."""
    return f"px-{lab}-{node}"


def missing_right() -> str | None:
    """Why no lab can be made here; None: it can."""
    if os.geteuid() != 0:
        return "a lab needs root: it makes network namespaces and devices"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "a lab needs /dev/net/tun: its links are TUN devices"
    return None


def make(namespace: str) -> None:
    """A namespace with its loopback up, that forwards. Raises ProximaError."""
    run("ip", "netns", "add", namespace)
    run("ip", "-n", namespace, "link", "set", "lo", "up")
    # /proc/sys/net is that of whoever looks.
    run("ip", "netns", "exec", namespace, "sysctl", "-qw", *_SETTINGS)


def namespaces(lab: str) -> list[str]:
    """Names of a lab's namespaces that are there."""
    return [n.name for n in _MADE.glob(f"px-{lab}-*")] if _MADE.is_dir() else []


def processes(lab: str) -> list[int]:
    """What runs in a lab's namespaces, however it was started."""
    asked = [
        subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
        for namespace in namespaces(lab)
    ]
    return [int(pid) for done in asked for pid in done.stdout.split() if int(pid) != os.getpid()]


def remove(lab: str) -> None:
    """All of a lab's namespaces, and first the processes in them; returns when these are gone."""
    deadline_s = time.monotonic() + _END_S
    while (found := processes(lab)) and time.monotonic() < deadline_s:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            forget(pid)
        time.sleep(_LOOK_S)
    for namespace in namespaces(lab):
        subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def forget(pid: int) -> None:
    """Remove what a daemon of FRR keeps for the case that it crashes, wherever else its files are."""
    for folder in _FRR_CRASH_LOGS.glob(f"*.{pid}"):
        shutil.rmtree(folder, ignore_errors=True)


def run(*command: str) -> str:
    """A command's output. Raises ProximaError with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProximaError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


def within(namespace: str, call: Callable[[], T]) -> T:
    """What `call` returns in a namespace, in a thread of its own, so that nobody else is moved there.

    Raises ProximaError: there is no such namespace, or we may not enter it.
    """
    answers: list[T] = []
    failures: list[BaseException] = []

    def enter() -> None:
        try:
            with (_MADE / namespace).open("rb") as its:
                if _libc.setns(its.fileno(), _CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code))
            answers.append(call())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter, name=f"in {namespace}")
    thread.start()
    thread.join()
    if failures:
        raise ProximaError(f"in namespace {namespace}: {failures[0]}") from failures[0]
    return answers[0]
