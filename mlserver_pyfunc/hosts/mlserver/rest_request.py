"""REST requests for models of ours: tensors as binary data, or JSON numbers into arrays.

Follows Triton's "Binary Tensor Data Extension" of the HTTP protocol: a JSON header of
`Inference-Header-Content-Length` bytes, then each binary tensor's bytes, in order.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any

from mlserver.rest.requests import Request
from starlette.types import Receive, Scope

from mlserver_pyfunc.protocol.tensors import RawTensor

from . import json_body
from .patches import is_ours

LENGTH_HEADER = b"inference-header-content-length"
_JSON = (b"content-type", b"application/json")


class TensorRequest(Request):
    """MLServer's request, whose tensors need not become Python lists for models of ours."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._is_ours = is_ours(scope.get("path_params", {}).get("model_name", ""))
        self._header_length = _header_length(scope) if self._is_ours else None
        if self._header_length is not None:
            # FastAPI asks for `json()` only where the content type says JSON.
            headers = [pair for pair in scope["headers"] if pair[0] != _JSON[0]]
            scope = {**scope, "headers": [*headers, _JSON]}
        super().__init__(scope, receive)

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            if self._header_length is not None:
                self._json = _parse(body, self._header_length)
            elif self._is_ours:
                self._json = json_body.parse(body)
            else:
                self._json = await super().json()
        return self._json

    async def body(self) -> bytes:
        try:
            body: bytes = await super().body()
        except (OSError, EOFError, zlib.error) as error:
            raise json.JSONDecodeError(f"body is not gzip: {error}", "", 0) from None
        return body


def _header_length(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == LENGTH_HEADER:
            return bytes(value)
    return None


def _parse(body: bytes, header_length: bytes) -> Any:
    """Parses the JSON header and hands each binary tensor's bytes on as they are.

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
        # What lacks a key is shown in the error, which must not show bytes.
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
