"""Calls of clients that may leave, by each protocol, without code of the product."""

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

WHOLE = ("REST JSON", "REST binary", "gRPC ModelInfer")
STREAMS = ("REST infer_stream", "REST generate_stream", "gRPC ModelStreamInfer")
PROTOCOLS = (*WHOLE, *STREAMS)
PAUSE_MS = 20
"""Time between two steps of a handler."""

HANG_SECONDS = 120.0
_SERVICE = "/inference.GRPCInferenceService/"
_LENGTH = "Inference-Header-Content-Length"
_OPTIONS = [
    # Channels of the same target and options would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
]


@dataclass(frozen=True)
class Call:
    """What one client does.

    Attributes:
        number: Number of the call.
        model: Name of the function.
        streams: Whether its handler is a generator.
        protocol: One of `PROTOCOLS`.
        steps: Steps of the handler, or items of the stream.
        pause: Milliseconds that each of them takes.
        word: What the handler has to give back.
        leave: Seconds after which the client leaves; None if it stays.
        take: Items of a stream after which it leaves, if they come earlier.
        within: Whether it leaves before its request is whole.
        how: How it leaves: by the end of its connection, or over gRPC by cancellation or deadline.
    """

    number: int
    model: str
    streams: bool
    protocol: str
    steps: int
    pause: int
    word: str
    leave: float | None = None
    take: int = 0
    within: bool = False
    how: str = "close"

    @property
    def text(self) -> str:
        return f"{self.number} {self.steps} {self.pause} {self.word}"

    @property
    def expected(self) -> list[str]:
        places = range(self.steps) if self.streams else [self.steps]
        return [f"{self.number} {place} {self.word[::-1]}" for place in places]


@dataclass
class Outcome:
    """What a client got, and when it left.

    Attributes:
        items: Texts of the answer.
        error: What came in its place, or after them.
        left: When the client left, by `time.monotonic()`; None if the answer was whole before.
    """

    items: list[str] = field(default_factory=list)
    error: str = ""
    left: float | None = None


class LeavingError(Exception):
    """The client's time has come."""


def draw(chance: random.Random, number: int, subjects: dict[str, bool], stays: float) -> Call:
    """Draws a call of one of some functions, of which some stream."""
    protocol = chance.choice(PROTOCOLS)
    whole = [name for name, streams in subjects.items() if not streams]
    streaming = [name for name, streams in subjects.items() if streams]
    has_items = protocol in STREAMS and chance.random() < 0.8
    model = chance.choice(streaming if has_items else whole)
    steps, pause, width = chance.randint(1, 10), PAUSE_MS, 8
    if has_items and chance.random() < 0.5:
        pause = 0
        steps, width = chance.choice([(2000, 8), (2000, 8), (150, 20_000)])
    word = f"{chance.getrandbits(32):08x}" * (width // 8)
    call = Call(number, model, has_items, protocol, steps, pause, word)
    if chance.random() < stays:
        return call
    ways = ("cancel", "deadline", "close") if protocol.startswith("gRPC") else ("close", "reset")
    return Call(
        **{name: getattr(call, name) for name in list(Call.__dataclass_fields__)[:7]},
        leave=chance.random() * chance.choice([0.05, 0.3, 0.8]),
        take=chance.randint(1, steps) if has_items and chance.random() < 0.7 else 0,
        within=chance.random() < 0.1,
        how=chance.choice(ways),
    )


def send(call: Call, rest: str, address: str) -> Outcome:
    """Makes a call on a connection of its own, and leaves if it is to."""
    outcome = Outcome()
    if call.protocol.startswith("gRPC"):
        _send_by_grpc(call, address, outcome)
    else:
        _RestCall(call, rest, outcome).run()
    if call.leave is None or outcome.items == call.expected:
        outcome.left = None
    return outcome


class _RestCall:
    def __init__(self, call: Call, rest: str, outcome: Outcome) -> None:
        self._call, self._outcome = call, outcome
        self._connection = http.client.HTTPConnection(rest, timeout=HANG_SECONDS)
        self._response: http.client.HTTPResponse | None = None
        self._end = float("inf")

    def run(self) -> None:
        call, outcome = self._call, self._outcome
        self._connection.connect()
        sock: Any = self._connection.sock
        if call.leave is not None:
            self._end = time.monotonic() + call.leave
        try:
            self._exchange(sock)
        except (LeavingError, OSError, http.client.HTTPException) as error:
            if not isinstance(error, (LeavingError, TimeoutError)) or call.leave is None:
                outcome.error = repr(error)
        with suppress(OSError):  # the answer is whole, so that it is closed
            if call.how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                sock.shutdown(socket.SHUT_RDWR)
        if self._response is not None:
            self._response.close()
        self._connection.close()
        sock.close()
        outcome.left = time.monotonic()

    def _exchange(self, sock: Any) -> None:
        call = self._call
        verb = {"REST infer_stream": "infer_stream", "REST generate_stream": "generate_stream"}
        body, headers = _rest_body(call)
        headers = {**headers, "Connection": "close", "Content-Length": str(len(body))}
        path = f"/v2/models/{call.model}/{verb.get(call.protocol, 'infer')}"
        self._connection.putrequest("POST", path)
        for name, value in headers.items():
            self._connection.putheader(name, value)
        if call.within:
            self._connection.endheaders(body[: len(body) // 2])
            time.sleep(call.leave or 0)
            raise LeavingError
        self._connection.endheaders(body)
        self._watch(sock)
        self._response = response = self._connection.getresponse()
        if call.protocol in WHOLE or response.status != 200:
            read = response.read()
            self._read_whole(response, read)
            return
        for line in response:
            if line.startswith(b"data: "):
                self._read_event(json.loads(line.removeprefix(b"data: ")))
            self._watch(sock)

    def _watch(self, sock: Any) -> None:
        """Leaves at once, or in the next read, once it is time."""
        if self._call.leave is None:
            return
        seconds = self._end - time.monotonic()
        if seconds <= 0 or 0 < self._call.take <= len(self._outcome.items):
            raise LeavingError
        sock.settimeout(seconds)

    def _read_whole(self, response: http.client.HTTPResponse, body: bytes) -> None:
        if response.status != 200:
            self._outcome.error = f"{response.status} {body[:300]!r}"
            return
        length = response.headers.get(_LENGTH)
        if length is None:
            self._outcome.items += json.loads(body)["outputs"][0]["data"]
        else:
            self._outcome.items += _texts(body[int(length) :])

    def _read_event(self, event: Any) -> None:
        if "error" in event:
            self._outcome.error = event["error"]
        elif self._call.protocol == "REST generate_stream":
            self._outcome.items.append(event["text_output"])
        else:
            self._outcome.items += event["outputs"][0]["data"]


def _rest_body(call: Call) -> tuple[bytes, dict[str, str]]:
    if call.protocol == "REST generate_stream":
        body = json.dumps({"text_input": call.text}).encode()
        return body, {"Content-Type": "application/json"}
    sent: dict[str, Any] = {"name": "text_input", "datatype": "BYTES", "shape": [1]}
    if call.protocol != "REST binary":
        sent["data"] = [call.text]
        return json.dumps({"inputs": [sent]}).encode(), {"Content-Type": "application/json"}
    raw = _raw(call.text)
    sent["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"inputs": [sent], "parameters": {"binary_data_output": True}}).encode()
    return head + raw, {"Content-Type": "application/octet-stream", _LENGTH: str(len(head))}


def _raw(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode()


def _texts(raw: bytes) -> list[str]:
    found, place = [], 0
    while place < len(raw):
        (length,) = struct.unpack_from("<I", raw, place)
        found.append(raw[place + 4 : place + 4 + length].decode())
        place += 4 + length
    return found


def _send_by_grpc(call: Call, address: str, outcome: Outcome) -> None:
    channel = grpc.insecure_channel(address, _OPTIONS)
    grpc.channel_ready_future(channel).result(HANG_SECONDS)
    message = pb.ModelInferRequest(model_name=call.model, id=str(call.number))
    message.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    message.raw_input_contents.append(_raw(call.text))
    sent = threading.Event()
    if call.within:
        call = Call(**{**vars(call), "how": "cancel"})
    seconds = call.leave if call.how == "deadline" else HANG_SECONDS
    ends = time.monotonic() + (seconds or 0)
    running = _begin(channel, call, message, seconds, sent)

    def leave() -> None:
        channel.close() if call.how == "close" else running.cancel()
        outcome.left = outcome.left or time.monotonic()

    timer = None
    if call.leave is not None and call.how != "deadline":
        # A message of one call is sent with its headers: who cancels it at once may be in time.
        seconds = 0 if call.within and call.protocol in WHOLE else call.leave
        timer = threading.Timer(seconds, leave)
        timer.start()
    try:
        for answer in running if call.protocol in STREAMS else _whole(running):
            outcome.items += _grpc_texts(answer)
            if 0 < call.take <= len(outcome.items):
                leave()
    except (grpc.RpcError, grpc.FutureCancelledError, ValueError) as error:
        code = error.code().name if isinstance(error, grpc.RpcError) else "CANCELLED"
        if call.leave is None or code not in ("CANCELLED", "DEADLINE_EXCEEDED"):
            outcome.error = repr(error)
        elif call.how == "deadline":
            outcome.left = outcome.left or ends
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()
        sent.set()
        channel.close()
        outcome.left = outcome.left or time.monotonic()


def _begin(channel: Any, call: Call, message: Any, seconds: Any, sent: threading.Event) -> Any:
    how = {
        "request_serializer": pb.ModelInferRequest.SerializeToString,
        "response_deserializer": pb.ModelInferResponse.FromString,
    }
    if call.protocol in WHOLE:
        return channel.unary_unary(f"{_SERVICE}ModelInfer", **how).future(message, timeout=seconds)

    def messages() -> Iterator[Any]:
        if call.within:
            sent.wait(HANG_SECONDS)
        else:
            yield message

    stream = channel.stream_stream(f"{_SERVICE}ModelStreamInfer", **how)
    return stream(messages(), timeout=seconds)


def _whole(running: Any) -> Iterator[Any]:
    yield running.result(HANG_SECONDS)


def _grpc_texts(answer: Any) -> list[str]:
    if answer.raw_output_contents:
        return _texts(answer.raw_output_contents[0])
    return [text.decode() for text in answer.outputs[0].contents.bytes_contents]
