"""Calls a server by REST: tensors are JSON lists, or binary data behind a JSON header."""

from __future__ import annotations

import http.client
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.datatypes import datatype_of
from mlserver_pyfunc.protocol.response import json_output, tensor_head
from mlserver_pyfunc.protocol.tensors import DATATYPES, Array

from . import CallError, InferResult, Inputs, Results, Values

_HEADER_LENGTH = "Inference-Header-Content-Length"


class RestClient:
    """Calls a server by REST, with tensors as JSON lists.

    It keeps one connection open. One thread at a time may use it.
    """

    name = "REST JSON"

    def __init__(
        self, url: str, timeout: float = 60, headers: Values = None, version: str = ""
    ) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            raise CallError(f'"{url}": expected http://HOST:PORT') from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CallError(f'"{url}": expected http://HOST:PORT')
        is_tls = parts.scheme == "https"
        connection = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        self._connection = connection(parts.hostname, port, timeout=timeout)
        self._prefix = parts.path.rstrip("/")
        self._url = url
        self._headers = dict(headers or {})
        self._version = f"/versions/{quote(version, safe='')}" if version else ""

    def metadata(self, model: str) -> dict[str, Any]:
        """Fetches the metadata of a model, in the form that REST gives it."""
        described: dict[str, Any] = self._json("GET", self._path(model))
        return described

    def models(self) -> list[dict[str, Any]]:
        """Fetches the index of the model repository: name and state of each model."""
        models: list[dict[str, Any]] = self._json("POST", "/v2/repository/index", b"{}")
        return models

    def ready_models(self) -> list[str]:
        """Returns the names of the models once all are ready; none before, or without a server."""
        with suppress(CallError, OSError, http.client.HTTPException):
            models = self.models()
            if all(model["state"] == "READY" for model in models):
                return sorted({model["name"] for model in models})
        return []

    def infer(self, model: str, inputs: Inputs, parameters: Values = None) -> InferResult:
        """Sends one request and returns its answer."""
        body = orjson.dumps(_body(inputs, parameters, json_output))
        return _result(self._json("POST", f"{self._path(model)}/infer", body), b"")

    def stream(self, model: str, inputs: Inputs, parameters: Values = None) -> Results:
        """Sends one request and yields its answers, which are server-sent events."""
        body = orjson.dumps(_body(inputs, parameters, json_output))
        response = self._send("POST", f"{self._path(model)}/infer_stream", body, {})
        for line in response:
            if not line.startswith(b"data:"):
                continue
            event = orjson.loads(line[5:])
            if "error" in event:
                raise CallError(event["error"], response.status)
            yield _result(event, b"")

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _path(self, model: str) -> str:
        return f"/v2/models/{quote(model, safe='')}{self._version}"

    def _json(self, method: str, path: str, body: bytes | None = None) -> Any:
        return orjson.loads(self._send(method, path, body, {}).read())

    def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json", **self._headers, **headers}
        self._drop_if_closed()
        try:
            self._connection.request(method, self._prefix + path, body, dict(headers))
            response = self._connection.getresponse()
        except http.client.BadStatusLine:
            self._connection.close()
            raise CallError(f"{self._url} does not speak HTTP: is it the port of gRPC?") from None
        except socket.gaierror:
            raise CallError(f'"{self._url}": expected http://HOST:PORT of a known host') from None
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = getattr(error, "strerror", None) or error
            raise CallError(f"{self._url} does not answer: {reason}") from None
        if response.status != 200:
            text = response.read().decode(errors="replace")
            raise CallError(worded(text) or response.reason, response.status)
        return response

    def _drop_if_closed(self) -> None:
        """Drops a connection that the server has closed since, as servers do with idle ones."""
        if self._connection.sock is not None:
            poll = select.poll()
            poll.register(self._connection.sock, select.POLLIN)
            if poll.poll(0):
                self._connection.close()


class BinaryRestClient(RestClient):
    """Calls a server by REST, with tensors as binary data in the request and the response.

    Follows the binary tensor data extension of the protocol. Streams stay JSON.
    """

    name = "REST binary"

    def infer(self, model: str, inputs: Inputs, parameters: Values = None) -> InferResult:
        """Sends one request and returns its answer."""
        raws = [tensors.to_raw(tensor.spec.datatype, tensor.array) for tensor in inputs]
        parameters = {**(parameters or {}), "binary_data_output": True}
        body = _body(inputs, parameters, tensor_head)
        for tensor, raw in zip(body["inputs"], raws, strict=True):
            tensor["parameters"] = {"binary_data_size": len(raw)}
        header = orjson.dumps(body)
        headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(header))}
        content = header + b"".join(raws)
        response = self._send("POST", f"{self._path(model)}/infer", content, headers)
        received = response.read()
        end = int(response.getheader(_HEADER_LENGTH) or len(received))
        return _result(orjson.loads(received[:end]), received[end:])


def _body(inputs: Inputs, parameters: Values, tensor: Any) -> dict[str, Any]:
    body = {"inputs": [tensor(item) for item in inputs]}
    return {**body, "parameters": dict(parameters)} if parameters else body


def _result(body: Mapping[str, Any], binary: bytes) -> InferResult:
    outputs: dict[str, Array] = {}
    position = 0
    for tensor in body["outputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[tensor["name"]] = _from_json(tensor)
            continue
        raw = tensors.RawTensor(binary[position : position + size])
        position += size
        datatype = DATATYPES[tensor["datatype"]]
        outputs[tensor["name"]] = tensors.from_raw(datatype, raw, tensor["shape"])
    datatypes = {tensor["name"]: tensor["datatype"] for tensor in body["outputs"]}
    return InferResult(outputs, datatypes, body.get("parameters") or {})


def _from_json(tensor: Mapping[str, Any]) -> Array:
    # JSON has no NaN and no infinity: the server writes null for them.
    datatype = datatype_of(tensor["datatype"], nullable=True)
    is_base64 = (tensor.get("parameters") or {}).get("content_type") == "base64"
    return tensors.from_list(datatype, tensor["data"], tensor["shape"], is_base64=is_base64)


def worded(text: str) -> str:
    """Returns the message in the body of an error, or the body."""
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    if not isinstance(body, dict):
        return text
    return str(body.get("error") or body.get("detail") or body.get("message") or text)
