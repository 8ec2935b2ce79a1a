"""Balancers over real servers: of connections, as kube-proxy is one, and of calls, as a mesh is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, cast

import grpc


class ConnectionBalancer:
    """Passes on the bytes of each connection to one server, in turn.

    Attributes:
        servers: Addresses for new connections. Connections that there are stay where they are.
        address: Where clients connect.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        self.servers = servers
        self.address = ""
        self._turn = count()

    async def open(self) -> None:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.servers[next(self._turn) % len(self.servers)].partition(":")
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class GrpcBalancer(grpc.GenericRpcHandler):
    """Passes on each call over gRPC to one server, in turn.

    Attributes:
        servers: Addresses for new calls. Channels to others stay open.
        address: Where clients connect.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        self.servers = servers
        self.address = ""
        self._turn = count()
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def open(self) -> None:
        self._server = grpc.aio.server(handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    def service(self, handler_call_details: Any) -> Any:
        async def pass_on(request: bytes, context: Any) -> bytes:
            address = self.servers[next(self._turn) % len(self.servers)]
            if address not in self._channels:
                self._channels[address] = grpc.aio.insecure_channel(address)
            call = self._channels[address].unary_unary(handler_call_details.method)
            try:
                return cast(bytes, await call(request))
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details())
                raise

        return grpc.unary_unary_rpc_method_handler(pass_on)


@contextmanager
def running(*balancers: ConnectionBalancer | GrpcBalancer) -> Iterator[None]:
    """Runs balancers on a loop of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        for balancer in balancers:
            asyncio.run_coroutine_threadsafe(balancer.open(), loop).result(30)
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
