"""Reads the bodies of REST requests. Numbers of JSON are arrays, and binary tensors view the body.

Follows the "Binary Tensor Data Extension" of Triton's HTTP protocol: a JSON header of
`Inference-Header-Content-Length` bytes, then the bytes of each binary tensor, in order.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import Receive

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.request import InferenceRequest, RequestParameters
from mlserver_pyfunc.protocol.tensors import RawTensor

from . import json_body

LENGTH_HEADER = b"inference-header-content-length"
BINARY_EXTENSION = "binary_tensor_data"
MAX_BODY = settings.max_body()
BODY_TOO_LARGE = f"request body: expected up to {MAX_BODY} bytes ({settings.MAX_BODY}), got more"
_MAX_DIGITS = 18
_NO_TEXT = " (binary tensors need the header Inference-Header-Content-Length)"
_WATCHED_AFTER = 0.05
"""Seconds after which a call looks whether its client is still there."""


def bounded(receive: Receive, error: Callable[[], Exception], *, is_over: bool = False) -> Receive:
    """Counts a body while it is received, unless its `Content-Length` is over the bound."""
    size = 0

    async def receive_bounded() -> MutableMapping[str, Any]:
        nonlocal size
        if is_over:
            raise error()
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise error()
        return message

    return receive_bounded


async def read_body(request: Request) -> Any:
    """Parses the body of a request. Raises RequestError if it cannot be read."""
    try:
        body = await request.body()
        if not body:
            return None
        length = dict(request.scope["headers"]).get(LENGTH_HEADER)
        return json_body.parse(body) if length is None else _parse_binary(body, length)
    except json.JSONDecodeError as error:
        raise unreadable(request.path_params["model_name"], error.msg, error.doc) from None


def read_payload(
    request: Request, body: Any, model: str, specs: Callable[[], Iterable[TensorSpec]]
) -> InferenceRequest:
    """Makes the request for a model of a parsed body. Raises RequestError as `from_json` does."""
    payload = InferenceRequest.from_json(body, model, specs)
    payload.parameters = RequestParameters(payload.parameters, lambda: request.headers)
    for name, value in request.scope["headers"]:
        if name == b"request-timeout":
            payload.seconds = _seconds(value)
    return payload


class Departure:
    """Cancels the code in a `with` block if the client leaves: see docs/architecture.md."""

    def __init__(self, receive: Receive) -> None:
        self.has_left = False
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> Departure:
        loop = asyncio.get_running_loop()
        self._caller = asyncio.current_task(loop)
        self._timer = loop.call_later(_WATCHED_AFTER, self._start)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        return self.has_left and isinstance(error, asyncio.CancelledError)

    def _start(self) -> None:
        self._watch = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        assert self._caller is not None
        self._caller.cancel()


def _seconds(header: bytes) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(header)) < math.inf:
            return seconds
    got = header[:40].decode("latin-1")
    raise RequestError(f'header "Request-Timeout": expected seconds, got {got!r}', 400)


def asks_for_ready(body: bytes) -> bool:
    """Returns whether a call of the repository index wants ready models only."""
    try:
        return bool(_Index.model_validate_json(body or b"{}").ready)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        text = f'repository index: expected no body or {{"ready": true}}: {problem}'
        raise RequestError(text, 400) from None


class _Index(BaseModel):
    ready: bool | None = None


def unreadable(model: str, problem: str, body: str) -> RequestError:
    """Returns the answer to a body that is no JSON, or not of its encoding."""
    text = f'request of model "{model}": expected JSON, got a body that cannot be read: {problem}'
    text += " (JSON has no NaN: send null)" if "NaN" in body else ""
    text += _NO_TEXT if "UTF-8" in problem else ""
    return RequestError(text, 400)


def _parse_binary(body: bytes, header_length: bytes) -> Any:
    # int() refuses more than 4,300 digits by an error of its own.
    is_number = header_length.isdigit() and len(header_length) <= _MAX_DIGITS
    if not is_number or int(header_length) > len(body):
        got = header_length[:40].decode("latin-1")
        raise json.JSONDecodeError(
            f"Inference-Header-Content-Length: expected a number up to {len(body)}, got {got!r}",
            "",
            0,
        )
    view = memoryview(body)
    start = int(header_length)
    payload = json_body.parse_lists(view[:start])
    last: dict[str, Any] | None = None
    inputs = payload.get("inputs") if isinstance(payload, dict) else None
    for tensor in filter(_is_binary, inputs if isinstance(inputs, list) else ()):
        size = tensor["parameters"]["binary_data_size"]
        data = RawTensor(view[start : start + size], size)
        # The error about an input that lacks a key shows the input, and must not show bytes.
        tensor["data"] = data if tensor.keys() >= json_body.KEYS else []
        start = min(start + size, len(body))
        last = tensor
    if last is not None and start < len(body) and isinstance(last["data"], RawTensor):
        last["data"] = replace(last["data"], surplus=len(body) - start)
    return payload


def _is_binary(tensor: Any) -> bool:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("parameters"), dict):
        return False
    size = tensor["parameters"].get("binary_data_size")
    return type(size) is int and size >= 0
