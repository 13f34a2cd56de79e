"""Network namespaces of a lab: made, entered, and removed with everything that runs in them.

A thread enters a namespace only for as long as it takes to open a socket or a device: what is open stays where it was
opened.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from schemas.errors import ProximaError

T = TypeVar("T")

_MADE: Final = Path("/run/netns")
_CLONE_NEWNET: Final = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# Forwarding, for transits; no reverse-path filter, for paths need not be symmetric; every ping is answered.
_SETTINGS: Final = (
    "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0",
    "net.ipv4.ping_group_range=0 2147483647",
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


def remove(lab: str) -> None:
    """All of a lab's namespaces, and first the processes in them, however they were started."""
    found = [n.name for n in _MADE.glob(f"px-{lab}-*")] if _MADE.is_dir() else []
    for namespace in found:
        asked = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
        for pid in map(int, asked.stdout.split()):
            if pid != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    for namespace in found:
        subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


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
