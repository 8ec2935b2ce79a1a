"""Sends calls by each route, without code of the product."""

from __future__ import annotations

import http.client
import json
import struct
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import orjson
from tritonclient.grpc import service_pb2 as pb

from .calls import GRPC_STATUS, Call, Outcome

HANG_SECONDS = 90.0
"""A call that takes longer hangs: no limit of a function allows it."""

IDLE_SECONDS = 2.0
"""A connection that was idle for longer is not used again: the server closes it after 5 s."""

_SERVICE = "/inference.GRPCInferenceService/"
_BINARY = "Inference-Header-Content-Length"
_NO_CONNECTION = ("failed to connect", "socket closed", "connection reset", "rst_stream", "goaway")


class Client:
    """Sends one call after the other. For one thread.

    Args:
        rest: Address of the server's REST port.
        address: Address of its gRPC port.
    """

    def __init__(self, rest: str, address: str) -> None:
        self._rest = http.client.HTTPConnection(rest, timeout=HANG_SECONDS)
        self._used = 0.0
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        # Channels of the same target and options would share one connection.
        own = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(address, [*unlimited, *own])
        self._infer = self._channel.unary_unary(
            f"{_SERVICE}ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        self._stream = self._channel.stream_stream(
            f"{_SERVICE}ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )

    def send(self, call: Call) -> Outcome:
        """Sends a call and reads its answer, or leaves."""
        if call.route.startswith("gRPC"):
            return self._send_by_grpc(call)
        outcome = Outcome()
        started = time.monotonic()
        try:
            self._send_by_rest(call, outcome)
        except (OSError, http.client.HTTPException) as error:
            self._rest.close()
            after = f"{time.monotonic() - started:.1f} s"
            outcome.lost = f"no answer after {after}: {error!r}"
        # When it began: the server counts from its answer, which a busy client reads later.
        self._used = started
        return outcome

    def send_together(self, calls: list[Call]) -> list[Outcome]:
        """Sends calls that do not stream over gRPC, before any of them is answered."""
        futures = [
            self._infer.future(_message(call, raw=True), timeout=call.leave or HANG_SECONDS)
            for call in calls
        ]
        outcomes = []
        for call, future in zip(calls, futures, strict=True):
            outcome = Outcome()
            try:
                outcome.items.append(_grpc_item(future.result()))
                outcome.status = 200
            except grpc.RpcError as error:
                _read_rpc_error(error, call, outcome)
            outcomes.append(outcome)
        return outcomes

    def close(self) -> None:
        """Closes the connections."""
        self._rest.close()
        self._channel.close()

    def _send_by_rest(self, call: Call, outcome: Outcome) -> None:
        body, headers = _rest_body(call)
        verb = "infer_stream" if call.subject.streams else "infer"
        self._rest.timeout = call.leave or HANG_SECONDS
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._rest.close()
        if self._rest.sock is not None:
            self._rest.sock.settimeout(self._rest.timeout)
        path = f"/v2/models/{call.model}/{verb}"
        if call.leave and call.number % 4 == 0:
            self._leave_within_the_body(path, body, headers)
        self._rest.request("POST", path, body, headers)
        response = self._rest.getresponse()
        outcome.status = response.status
        if call.subject.streams and response.status == 200:
            for event in _events(response):
                _read_event(event, outcome)
                if call.leave and outcome.items:
                    raise http.client.HTTPException("has left after an item")
            return
        _read_body(response.read(), response.headers.get(_BINARY), outcome)
        if call.leave:
            self._rest.close()

    def _leave_within_the_body(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        self._rest.putrequest("POST", path)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self._rest.putheader(name, value)
        self._rest.endheaders(body[: len(body) // 2])
        raise http.client.HTTPException("has left within the body")

    def _send_by_grpc(self, call: Call) -> Outcome:
        outcome = Outcome()
        message = _message(call, raw=call.route == "gRPC raw")
        seconds = call.leave or HANG_SECONDS
        try:
            if call.subject.streams:
                items = self._stream(iter([message]), timeout=seconds)
                for item in items:
                    outcome.items.append(_grpc_item(item))
                    if call.leave and call.number % 2:
                        items.cancel()
            elif call.leave and call.number % 2:
                future = self._infer.future(message)
                time.sleep(call.leave)
                future.cancel()
                outcome.lost = "has left"
                return outcome
            else:
                outcome.items.append(_grpc_item(self._infer(message, timeout=seconds)))
            outcome.status = 200
        except grpc.RpcError as error:
            _read_rpc_error(error, call, outcome)
        return outcome


def _read_rpc_error(error: Any, call: Call, outcome: Outcome) -> None:
    code = error.code().name
    outcome.error = error.details() or code
    outcome.status = GRPC_STATUS.get(code, 0)
    hangs = outcome.error == "Deadline Exceeded" and not call.leave
    if hangs or any(text in outcome.error.lower() for text in _NO_CONNECTION):
        outcome.lost = f"{code}: {outcome.error}"


def _rest_body(call: Call) -> tuple[bytes, dict[str, str]]:
    tensors: list[dict[str, Any]] = [{"name": "x", "datatype": "FP32", "shape": call.x.shape}]
    if call.words is not None:
        tensors.append({"name": "words", "datatype": "BYTES", "shape": [len(call.words)]})
    headers = {"Content-Type": "application/json"}
    if call.route == "JSON" or call.subject.streams:
        tensors[0]["data"] = call.x.ravel()
        if call.words is not None:
            tensors[1]["data"] = [word.decode() for word in call.words]
        return orjson.dumps({"inputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY), headers
    raw = _raw_contents(call)
    for described, content in zip(tensors, raw, strict=True):
        described["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", _BINARY: str(len(head))}
    return b"".join([head, *raw]), headers


def _message(call: Call, raw: bool) -> Any:
    message = pb.ModelInferRequest(model_name=call.model, id=str(call.number))
    x = message.inputs.add(name="x", datatype="FP32", shape=call.x.shape)
    if call.words is not None:
        words = message.inputs.add(name="words", datatype="BYTES", shape=[len(call.words)])
    if raw:
        message.raw_input_contents.extend(_raw_contents(call))
        return message
    x.contents.fp32_contents.extend(call.x.ravel().tolist())
    if call.words is not None:
        words.contents.bytes_contents.extend(call.words)
    return message


def _raw_contents(call: Call) -> list[bytes]:
    contents = [call.x.tobytes()]
    if call.words is not None:
        contents.append(b"".join(struct.pack("<I", len(word)) + word for word in call.words))
    return contents


def _events(response: http.client.HTTPResponse) -> Iterator[Any]:
    for line in response:
        if line.startswith(b"data: "):
            yield orjson.loads(line.removeprefix(b"data: "))


def _read_event(event: Any, outcome: Outcome) -> None:
    if "error" in event:
        outcome.status, outcome.error = 0, event["error"]
    else:
        outcome.items.append(_rest_item(event, b""))


def _read_body(body: bytes, header_length: str | None, outcome: Outcome) -> None:
    size = len(body) if header_length is None else int(header_length)
    try:
        answer = orjson.loads(body[:size])
    except ValueError:
        outcome.error = f"not JSON: {body[:200]!r}"
        return
    if "error" in answer:
        outcome.error = answer["error"]
    else:
        outcome.items.append(_rest_item(answer, body[size:]))


def _rest_item(answer: Any, binary: bytes) -> dict[str, Any]:
    item: dict[str, Any] = {}
    for output in answer["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            item[output["name"]] = _decode(output["datatype"], output["shape"], binary[:size])
            binary = binary[size:]
        elif output["datatype"] == "BYTES":
            item[output["name"]] = [word.encode() for word in output["data"]]
        else:
            data = np.array(output["data"], dtype=np.float32)
            item[output["name"]] = data.reshape(output["shape"])
    return item


def _grpc_item(answer: Any) -> dict[str, Any]:
    item: dict[str, Any] = {}
    for place, output in enumerate(answer.outputs):
        shape = list(output.shape)
        if answer.raw_output_contents:
            content = answer.raw_output_contents[place]
            item[output.name] = _decode(output.datatype, shape, content)
        elif output.datatype == "BYTES":
            item[output.name] = list(output.contents.bytes_contents)
        else:
            data = np.array(output.contents.fp32_contents, dtype=np.float32)
            item[output.name] = data.reshape(shape)
    return item


def _decode(datatype: str, shape: list[int], raw: bytes) -> Any:
    if datatype != "BYTES":
        return np.frombuffer(raw, dtype=np.float32).reshape(shape)
    words, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position)
        words.append(raw[position + 4 : position + 4 + length])
        position += 4 + length
    return words
