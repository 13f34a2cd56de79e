"""Health endpoints on loopback, well and unwell: in this process for tests, or a process of their own for benches.

python -m tests.endpoints MODE PORT[,PORT...] [CERTIFICATE KEY]
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
ANSWERS: Final = {
    "ok": OK,
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "garbage": b"\x00\xffSSH-2.0-OpenSSH_9.2\r\n",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\nok",
    "closes": b"",
    "hangs": None,
    "slow": OK,
    "endless": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "long-header": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000,
}
SLOW_S: Final = 0.4


@dataclass
class Behaviour:
    """What the endpoint does; may be changed at any time. `asked` counts requests, `heads` keeps them."""

    mode: str = "ok"
    asked: int = 0
    connected: int = 0
    heads: list[bytes] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour, self._head = behaviour, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._behaviour.connected += 1

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._behaviour.asked += 1
            self._behaviour.heads = [*self._behaviour.heads[-9:], self._head]
            self._head = b""
            delay_s = SLOW_S if self._behaviour.mode == "slow" else 0
            asyncio.get_running_loop().call_later(delay_s, self._answer)

    def _answer(self) -> None:
        mode = self._behaviour.mode
        answer = ANSWERS[mode]
        if answer is None or self._transport.is_closing():
            return
        self._transport.write(answer)
        if mode == "endless":
            self._go_on()
        elif mode not in ("half", "long-header"):
            self._transport.close()

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            asyncio.get_running_loop().call_later(0.01, self._go_on)


@asynccontextmanager
async def endpoint(
    behaviour: Behaviour, port: int = 0, certificate: tuple[Path, Path] | None = None
) -> AsyncIterator[int]:
    """One endpoint on loopback, until the context ends; its port."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(behaviour), "127.0.0.1", port, ssl=context, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def certificate_for(name: str, folder: Path) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
         "2", "-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=DNS:{name}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


async def _serve(mode: str, ports: Sequence[int], certificate: tuple[Path, Path] | None) -> None:
    contexts = [endpoint(Behaviour(mode), port, certificate) for port in ports]
    for context in contexts:
        await context.__aenter__()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    _mode, _ports, *_files = sys.argv[1:]
    _pair = (Path(_files[0]), Path(_files[1])) if _files else None
    asyncio.run(_serve(_mode, [int(port) for port in _ports.split(",")], _pair))
