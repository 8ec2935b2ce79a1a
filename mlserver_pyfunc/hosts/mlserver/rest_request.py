"""REST requests to models of this runtime: reads binary tensors and JSON numbers as arrays.

Follows the "Binary Tensor Data Extension" of Triton's HTTP protocol: a JSON header of
`Inference-Header-Content-Length` bytes, then the bytes of each binary tensor, in order.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from fastapi import Request as FastAPIRequest
from mlserver.rest.requests import Request
from starlette.types import Receive, Scope

from mlserver_pyfunc.protocol.tensors import RawTensor

from . import json_body
from .rest_bounds import decompressed

LENGTH_HEADER = b"inference-header-content-length"
JSON_HEADER = (b"content-type", b"application/json")
_MAX_DIGITS = 18


class TensorRequest(Request):
    """A request to a model of this runtime: its tensors do not become Python lists."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        self._header_length: bytes | None = headers.get(LENGTH_HEADER)
        self._encoding: bytes = headers.get(b"content-encoding", b"")
        super().__init__(scope, receive)

    async def json(self) -> Any:
        """Returns the parsed body. Tensors are views of it, or arrays.

        Raises:
            json.JSONDecodeError: The body is not JSON, or not JSON and binary tensors.
        """
        if not hasattr(self, "_json"):
            body = await self.body()
            if self._header_length is not None:
                self._json = _parse(body, self._header_length)
            else:
                self._json = json_body.parse(body)
        return self._json

    async def body(self) -> bytes:
        """Returns the body, decompressed.

        Raises:
            json.JSONDecodeError: It is not what `Content-Encoding` says.
        """
        if not hasattr(self, "_body"):
            body = await FastAPIRequest.body(self)
            if self._encoding:
                body = await decompressed(body, self._encoding.decode("latin-1"))
            self._body = body
        return self._body


def _parse(body: bytes, header_length: bytes) -> Any:
    """Parses the JSON header, and gives each binary tensor a view of its bytes.

    Raises:
        json.JSONDecodeError: The header is not JSON of that length.
    """
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
    for tensor in _binary_tensors(payload):
        size = tensor["parameters"]["binary_data_size"]
        data = RawTensor(view[start : start + size], size)
        # The error about an input that lacks a key shows the input, and must not show bytes.
        tensor["data"] = data if tensor.keys() >= json_body.KEYS else []
        start = min(start + size, len(body))
        last = tensor
    if last is not None and start < len(body) and isinstance(last["data"], RawTensor):
        last["data"] = replace(last["data"], surplus=len(body) - start)
    return payload


def _binary_tensors(payload: Any) -> list[dict[str, Any]]:
    inputs = payload.get("inputs") if isinstance(payload, dict) else None
    if not isinstance(inputs, list):
        return []
    return [tensor for tensor in inputs if _is_binary(tensor)]


def _is_binary(tensor: Any) -> bool:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("parameters"), dict):
        return False
    size = tensor["parameters"].get("binary_data_size")
    return type(size) is int and size >= 0
