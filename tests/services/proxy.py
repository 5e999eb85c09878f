"""A TCP proxy in front of a service, that does to connections what networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

PIECE_BYTES = 64 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Network:
    """How the network behaves. The default passes everything on at once.

    Attributes:
        latency_s: before each piece is passed on, in both directions.
        bytes_per_s: at most; 0 is without limit.
        refuses: connections are reset, those that there are and those that come.
        silent: connections stay open and are accepted, and nothing is passed on.
        cut_after: of each answer so many bytes are passed on, then the connection is reset: the request was done.
    """

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    refuses: bool = False
    silent: bool = False
    cut_after: int | None = None


WELL = Network()


class Proxy:
    """Listens on one loopback port and speaks to another. Has a thread of its own; any thread may call `become`."""

    def __init__(self, port: int, target_port: int) -> None:
        self.port = port
        self._target_port = target_port
        self._network = WELL
        self._changed = asyncio.Event()
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{port}", daemon=True)
        self._thread.start()
        try:
            self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", port))
        except OSError:
            self._end_loop()
            raise

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def become(self, network: Network) -> None:
        """From now on the network is like this; returns when it is."""
        self._run(self._become(network))

    def close(self) -> None:
        self._run(self._stop_listening())
        self.become(Network(refuses=True))
        self._end_loop()

    async def _stop_listening(self) -> None:
        self._server.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _end_loop(self) -> None:
        self._run(_end_all_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _become(self, network: Network) -> None:
        self._network = network
        self._changed.set()
        self._changed = asyncio.Event()
        if network.refuses:
            for writer in tuple(self._connections):
                _reset(writer)
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            await self._serve(reader, writer)
        except OSError:
            pass
        finally:
            self._connections.discard(writer)
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._network.refuses:
            return
        await self._until_it_speaks()
        answers, requests = await asyncio.open_connection("127.0.0.1", self._target_port)
        pumps = [
            asyncio.ensure_future(self._pump(reader, requests, is_answer=False)),
            asyncio.ensure_future(self._pump(answers, writer, is_answer=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            requests.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        """Pass on until one side closes, or the network cuts it."""
        while piece := await reader.read(PIECE_BYTES):
            await self._until_it_speaks()
            network = self._network
            delay_s = network.latency_s + (len(piece) / network.bytes_per_s if network.bytes_per_s else 0.0)
            if delay_s:
                await asyncio.sleep(delay_s)
            cut = is_answer and network.cut_after is not None and len(piece) > network.cut_after
            writer.write(piece[: network.cut_after] if cut else piece)
            await writer.drain()
            if cut:
                return

    async def _until_it_speaks(self) -> None:
        while self._network.silent:
            await self._changed.wait()


async def _end_all_others() -> None:
    """Of the tasks of this loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST, not FIN."""
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()
