"""REST requests to models of this runtime: reads binary tensors and JSON numbers as arrays.

Follows the "Binary Tensor Data Extension" of Triton's HTTP protocol: a JSON header of
`Inference-Header-Content-Length` bytes, then the bytes of each binary tensor, in order.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastapi import Request as FastAPIRequest
from mlserver.rest.requests import Request
from starlette.types import Receive, Scope

from mlserver_pyfunc.protocol.tensors import RawTensor
from mlserver_pyfunc.protocol.types import short_repr

from . import json_body

LENGTH_HEADER = b"inference-header-content-length"
JSON_HEADER = (b"content-type", b"application/json")


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
                body = decompressed(body, self._encoding.decode("latin-1"))
            self._body = body
        return self._body


def decompressed(body: bytes, encoding: str) -> bytes:
    """Returns a body without its compression.

    Args:
        body: Body as it came.
        encoding: Value of `Content-Encoding`; empty for none.

    Raises:
        json.JSONDecodeError: It is not of that encoding, or the encoding is not known.
    """
    for name in reversed(encoding.lower().replace(",", " ").split()):
        if name not in _DECOMPRESS:
            problem = f"Content-Encoding: expected gzip or deflate, got {short_repr(name)}"
            raise json.JSONDecodeError(problem, "", 0)
        try:
            body = _DECOMPRESS[name](body)
        except (OSError, EOFError, zlib.error) as error:
            raise json.JSONDecodeError(f"body is not {name}: {error}", "", 0) from None
    return body


def _inflate(body: bytes) -> bytes:
    try:
        return zlib.decompress(body)
    except zlib.error:
        # Some clients leave out zlib's header (RFC 9110, section 8.4.1.2).
        return zlib.decompress(body, -zlib.MAX_WBITS)


_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "x-gzip": gzip.decompress,
    "deflate": _inflate,
    "identity": bytes,
}


def _parse(body: bytes, header_length: bytes) -> Any:
    """Parses the JSON header, and gives each binary tensor a view of its bytes.

    Raises:
        json.JSONDecodeError: The header is not JSON of that length.
    """
    if not header_length.isdigit() or int(header_length[:20]) > len(body):
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
