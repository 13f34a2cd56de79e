"""Runs a unit's command confined as the unit says, where no systemd runs: by the same means of the kernel, as root.

    unshare    a mount namespace in which everything is read-only but /tmp and the unit's state folder, and homes empty
    setpriv    user, groups, capabilities, no new privileges
    seccomp    system calls, address families, and no memory that is written and then executed

What it leaves out: devices, /proc of others, namespaces, cgroups. So what works here may yet lack those under systemd.
This file is also the program that runs between the three, and so it imports nothing that the user cannot read.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.infra.units import Unit

_ROOT: Final = Path(__file__).parents[2]
_HIDDEN: Final = ("/root", "/home", "/tmp")  # noqa: S108 - as ProtectHome and PrivateTmp hide them
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 32, 4096, 16384
_SCMP_ACT_ALLOW, _SCMP_ACT_EPERM = 0x7FFF0000, 0x00050000 | 1
_SCMP_CMP_EQ, _SCMP_CMP_MASKED_EQ = 4, 7
_PROT_WRITE, _PROT_EXEC, _SHM_EXEC = 2, 4, 0o100000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@cache
def missing() -> str:
    """What is not here and has to be; empty: nothing."""
    if os.geteuid() != 0:
        return "root, to become somebody else"
    tools = [tool for tool in ("unshare", "setpriv", "systemd-analyze") if shutil.which(tool) is None]
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        tools.append("libseccomp.so.2")
    if tools:
        return f"{', '.join(tools)} (Debian: apt-get install systemd util-linux)"
    tried = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, text=True, check=False)
    return f"namespaces of its own ({tried.stderr.strip()})" if tried.returncode else ""


def confine(
    unit: Unit,
    argv: Sequence[str],
    *,
    uid: int,
    readable: Sequence[Path],
    state: Path | None,
    groups: Sequence[int] = (),
) -> list[str]:
    """The command line that runs `argv` as user `uid` under the unit's rules; the same process all along.

    `groups`: the numbers of the unit's `SupplementaryGroups`; `readable`: folders that it needs beside Python and this
    repository; `state`: the one that it may write.
    """
    plan = {
        "calls": sorted(unit.allowed_calls()),
        "families": [int(getattr(socket, name)) for name in unit.words("RestrictAddressFamilies")],
        "parent": os.getpid(),
    }
    bounding, ambient = unit.words("CapabilityBoundingSet"), unit.words("AmbientCapabilities")
    filtered = [sys.executable, "-I", __file__, "filter", json.dumps(plan), *argv]
    return apart(become(uid, bounding, ambient, filtered, groups=groups), readable=readable, state=state)


def become(
    uid: int, bounding: Sequence[str], ambient: Sequence[str], argv: Sequence[str], *, more_privileges: bool = False,
    groups: Sequence[int] = (),
) -> list[str]:  # fmt: skip
    """`argv` as this user with these capabilities; `more_privileges`: it may get more by what it executes."""
    return [
        "setpriv", f"--reuid={uid}", f"--regid={uid}",
        f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups", f"--bounding-set={_only(bounding)}",
        f"--inh-caps={_only(ambient)}", f"--ambient-caps={_only(ambient)}",
        *([] if more_privileges else ["--no-new-privs"]), *argv,
    ]  # fmt: skip


def apart(argv: Sequence[str], *, readable: Sequence[Path] = (), state: Path | None = None) -> list[str]:
    """`argv` on a read-only machine; whoever it becomes can read Python and this repository."""
    needed = [Path(sys.base_prefix), Path(sys.prefix), _ROOT, *readable]
    plan = {"readable": [str(path) for path in needed], "state": None if state is None else str(state)}
    mounting = [sys.executable, "-I", __file__, "mount", json.dumps(plan), *argv]
    return ["unshare", "--mount", "--propagation=private", *mounting]


def _only(capabilities: Sequence[str]) -> str:
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)])


def _mount(plan: Mapping[str, Any]) -> None:
    """What the unit may see and write, of this namespace alone."""
    needed = [*plan["readable"], *([plan["state"]] if plan["state"] else [])]
    held = {path: os.open(path, os.O_PATH) for path in needed}
    _call_mount(None, "/", _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    for place in _HIDDEN:
        if Path(place).is_dir():
            _call_mount("tmpfs", place, 0, "tmpfs", "mode=1777" if place == _HIDDEN[-1] else "mode=0755")
    for path in sorted(needed, key=len):
        if path.startswith(tuple(f"{place}/" for place in _HIDDEN)):
            Path(path).mkdir(parents=True, exist_ok=True)
        if path == plan["state"] or path.startswith(_HIDDEN):
            _call_mount(f"/proc/self/fd/{held[path]}", path, _MS_BIND | _MS_REC)
            writable = path == plan["state"]
            _call_mount(None, path, _MS_REMOUNT | _MS_BIND | (0 if writable else _MS_RDONLY))
    for number in held.values():
        os.close(number)
    os.chdir(plan["state"] or "/")


def _call_mount(source: str | None, target: str, flags: int, kind: str | None = None, data: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    if _LIBC.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


class _Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def _filter(plan: Mapping[str, Any]) -> None:
    """From here on only the unit's calls; who started us takes us along when it dies, which becoming another forgot."""
    _LIBC.prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != plan["parent"]:
        sys.exit("the parent died first")
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_SCMP_ACT_EPERM))

    def allow(call: str, *conditions: _Compare) -> None:
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # another architecture's
            return
        compares = (_Compare * len(conditions))(*conditions)
        if library.seccomp_rule_add_array(context, _SCMP_ACT_ALLOW, number, len(conditions), compares):
            raise OSError(f"no rule for {call}")

    judged = {"socket", "mmap", "mprotect", "pkey_mprotect", "shmat"}
    for call in plan["calls"]:
        if call not in judged:
            allow(call)
    for family in plan["families"]:
        allow("socket", _Compare(0, _SCMP_CMP_EQ, family, 0))
    both = _PROT_WRITE | _PROT_EXEC
    for one_of_them in (0, _PROT_WRITE, _PROT_EXEC):
        allow("mmap", _Compare(2, _SCMP_CMP_MASKED_EQ, both, one_of_them))
    for call in ("mprotect", "pkey_mprotect"):
        allow(call, _Compare(2, _SCMP_CMP_MASKED_EQ, _PROT_EXEC, 0))
    allow("shmat", _Compare(2, _SCMP_CMP_MASKED_EQ, _SHM_EXEC, 0))
    if library.seccomp_load(context):
        raise OSError("the kernel takes no filter")


if __name__ == "__main__":
    stage, plan_json, *command = sys.argv[1:]
    (_mount if stage == "mount" else _filter)(json.loads(plan_json))
    os.execvp(command[0], command)  # noqa: S606 - no shell
