"""What a probe agent may do to this machine: open raw sockets, and nothing once they are open.

Linux's capabilities are a thread's own, so this comes before any other thread is started; these inherit. `no new
privileges` holds for whatever is executed, too. A process of root's stays the owner of root's files: better start it
as somebody else, with CAP_NET_RAW as an ambient capability (systemd: `User=`, `AmbientCapabilities=CAP_NET_RAW`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Final

CAP_SETPCAP: Final = 8
CAP_NET_RAW: Final = 13
_VERSION_3: Final = 0x20080522
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


def keep_only(kept: Iterable[int]) -> None:
    """Give up every capability of this thread but those `kept`, as far as it has them, for ever.

    Raises OSError: the kernel refused.
    """
    wanted = sum(1 << capability for capability in kept)
    held = held_capabilities()
    if held & (1 << CAP_SETPCAP):  # who may, also keeps them from whatever this process executes
        for capability in range(_last_capability() + 1):
            if not wanted & (1 << capability):
                _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    left = held & wanted
    data = (_Data * 2)(*(_Data(word, word, 0) for word in (left & 0xFFFFFFFF, left >> 32)))
    if _LIBC.capset(ctypes.byref(_Header(_VERSION_3, 0)), data):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


def held_capabilities() -> int:
    """Those that this thread may use, as bits."""
    data = (_Data * 2)()
    if _LIBC.capget(ctypes.byref(_Header(_VERSION_3, 0)), data):
        raise OSError(ctypes.get_errno(), "capabilities cannot be read")
    return int(data[0].permitted | data[1].permitted << 32)


def _last_capability() -> int:
    try:
        return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except OSError:
        return 63
