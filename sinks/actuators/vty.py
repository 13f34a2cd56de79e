"""FRR's vty socket: commands as vtysh sends them, without its start of 80 to 260 ms each (measured: 0.5 ms a command).

A command ends in a zero byte; an answer in three, and a fourth that says how it went.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import ProximaError

_ANSWER_BYTES_MAX = 64 << 20  # of one command: a full table is less


def tell(path: Path, commands: Sequence[str], *, timeout_s: float, who: str = "") -> list[str]:
    """Each command's answer. Raises ProximaError: nobody answers, or one is refused; what came before it is done.

    Raises ValueError: a command of more than a line would be another command.
    """
    for command in commands:
        if any(not character.isprintable() for character in command):
            raise ValueError(f"{command!r} is no single command")
    who = who or str(path)
    answers = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as vty:
            vty.settimeout(timeout_s)
            vty.connect(str(path))
            for command in ("enable", *commands):
                vty.sendall(command.encode() + b"\0")
                answers.append(_answer(vty, command, who))
    except OSError as error:
        raise ProximaError(f"{who} does not answer: {error}", where=str(path)) from error
    return answers[1:]


def _answer(vty: socket.socket, command: str, who: str) -> str:
    answer = bytearray()
    while answer[-4:-1] != b"\0\0\0" or len(answer) < len(b"\0\0\0r"):
        more = vty.recv(1 << 16)
        if not more:
            raise ProximaError(f"{who} hung up at: {command}")
        answer += more
        if len(answer) > _ANSWER_BYTES_MAX:
            raise ProximaError(f"{who} does not stop answering: {command}")
    if answer[-1]:
        raise ProximaError(f"{who} refuses: {command}", where=answer[:-4].decode(errors="replace").strip()[:500])
    return answer[:-4].decode(errors="replace")
