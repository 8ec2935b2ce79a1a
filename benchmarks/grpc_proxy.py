"""A balancer of gRPC calls, made of gRPC's own client and server, in a process of its own.

Each line of its input is the ports of the servers from then on, as JSON. It prints its own port.

HAProxy 2.6 is none: on a connection that a server is about to end (GOAWAY), it goes on to open
calls until the server names the last one, and those behind it are lost. gRPC's clients stop at the
first word.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import count
from typing import Any, cast

import grpc


class _Proxy(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self.ports: list[int] = []
        self._turn = count()
        self._channels: dict[int, grpc.aio.Channel] = {}

    def service(self, handler_call_details: Any) -> Any:
        async def pass_on(request: bytes, context: Any) -> bytes:
            port = self.ports[next(self._turn) % len(self.ports)]
            if port not in self._channels:
                self._channels[port] = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            call = self._channels[port].unary_unary(handler_call_details.method)
            try:
                return cast(bytes, await call(request))
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
                raise

        return grpc.unary_unary_rpc_method_handler(pass_on)


async def main() -> None:
    proxy = _Proxy()
    server = grpc.aio.server(handlers=[proxy])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    while line := await asyncio.to_thread(sys.stdin.readline):
        proxy.ports = json.loads(line)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
