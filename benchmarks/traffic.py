"""Sends calls over REST and gRPC at a rate, however long others take, and notes each answer.

Nothing is sent again by these clients: a call that gets no answer is lost.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
import grpc
from tritonclient.grpc import service_pb2 as pb

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True)
class Answer:
    """How a call ended.

    Attributes:
        sent: Time at which it was sent, by the monotonic clock.
        protocol: REST or gRPC.
        status: OK, the status of an error with its text, or what happened to the connection.
        pod: Name of the pod that answered, if the call succeeded.
    """

    sent: float
    protocol: str
    status: str
    pod: str = ""

    @property
    def was_refused(self) -> bool:
        """Whether a server had no room for it: 503."""
        return self.status.startswith(("503", "UNAVAILABLE")) and "at its limit" in self.status


class Traffic:
    """Calls a model that takes a number, `x`, and answers with the name of its pod.

    Attributes:
        answers: Those that have come.
        sent: Number of calls that were sent.
    """

    def __init__(self, model: str, rest: str, grpc_address: str, clients: int) -> None:
        self.answers: list[Answer] = []
        self.sent = 0
        self._url = f"http://{rest}/v2/models/{model}/infer"
        tensor = {"name": "x", "datatype": "FP64", "shape": [1]}
        self._body = json.dumps({"inputs": [{**tensor, "data": [1.0]}]}).encode()
        message = pb.ModelInferRequest(model_name=model)
        message.inputs.add(**tensor).contents.fp64_contents.append(1.0)
        self._message = message.SerializeToString()
        self._grpc_address = grpc_address
        self._clients = clients
        self._stack = AsyncExitStack()
        self._running: set[asyncio.Task[None]] = set()
        self._senders: list[asyncio.Task[None]] = []
        self._is_over = False

    async def __aenter__(self) -> Traffic:
        enter = self._stack.enter_async_context
        limit = aiohttp.ClientTimeout(total=120)
        self._sessions = [
            await enter(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limit)
            )
            for _ in range(self._clients)
        ]
        channels = [
            await enter(grpc.aio.insecure_channel(self._grpc_address, _OWN_CONNECTION))
            for _ in range(self._clients)
        ]
        self._calls = [channel.unary_unary(_INFER) for channel in channels]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
        await self._stack.aclose()

    def start(self, rate: Callable[[], float]) -> None:
        """Begins to send as many calls per second as `rate` says, over each protocol."""
        self._senders = [
            asyncio.create_task(self._send(call, rate)) for call in (self._rest, self._grpc)
        ]

    async def stop(self) -> None:
        """Sends no more, and waits for all answers."""
        self._is_over = True
        await asyncio.gather(*self._senders)
        while self._running:
            await asyncio.wait(self._running)

    async def _send(
        self, call: Callable[[int, float], Coroutine[Any, Any, None]], rate: Callable[[], float]
    ) -> None:
        source = random.Random(call.__name__)
        due = time.monotonic()
        number = 0
        while not self._is_over:
            due += source.expovariate(rate())
            await asyncio.sleep(max(0, due - time.monotonic()))
            task = asyncio.create_task(call(number % self._clients, time.monotonic()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            self.sent += 1
            number += 1

    async def _rest(self, client: int, sent: float) -> None:
        headers = {"Content-Type": "application/json"}
        session = self._sessions[client]
        try:
            async with session.post(self._url, data=self._body, headers=headers) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            self.answers.append(Answer(sent, "REST", repr(error)))
            return
        self._note(sent, "REST", text, None if answer.status == 200 else str(answer.status))

    async def _grpc(self, client: int, sent: float) -> None:
        try:
            message = await self._calls[client](self._message, timeout=120)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            self._note(sent, "gRPC", (error.details() or "").encode(), code)
            return
        self._note(sent, "gRPC", message)

    def _note(self, sent: float, protocol: str, text: bytes, error: str | None = None) -> None:
        if error is not None:
            answer = Answer(sent, protocol, f"{error}: {text[:300].decode(errors='replace')}")
        else:
            found = re.search(rb"pod-\d+", text)
            assert found, text
            answer = Answer(sent, protocol, "OK", found[0].decode())
        self.answers.append(answer)
