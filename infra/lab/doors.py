"""Ports of the machine's loopback inside a lab's namespaces, so that agents in there reach Kafka as everybody does.

    python -m infra.lab.doors PORT[,PORT...] NAMESPACE...       "ready" on standard output

Kafka tells its clients where it is (127.0.0.1 and its port), so the door has the same address inside.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress
from functools import partial

from infra.lab.namespaces import within


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    with suppress(OSError):
        target.close()


async def _through(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        out_reader, out_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(_copy(reader, out_writer), _copy(out_reader, writer))


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


async def _serve(ports: list[int], namespaces: list[str]) -> None:
    servers = [
        await asyncio.start_server(partial(_through, port), sock=within(namespace, partial(_listener, port)))
        for namespace in namespaces
        for port in ports
    ]
    print("ready", flush=True)  # noqa: T201 - whoever started us waits for it
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    """The program."""
    asyncio.run(_serve([int(p) for p in sys.argv[1].split(",")], sys.argv[2:]))


if __name__ == "__main__":
    main()
