"""An inference response that is encoded by the route that sends it.

It is both MLServer's `InferenceResponse` and a Starlette `Response`: REST sends it as it
is, gRPC reads its `outputs`. So it knows how BYTES and non-finite numbers are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from mlserver.errors import MLServerError
from mlserver.types import InferenceResponse, Parameters, ResponseOutput
from starlette.background import BackgroundTasks
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from . import tensors
from .contract import NamedArray, TensorSpec
from .tensors import Array


class ArrayData:
    """A tensor's data as MLServer's gRPC code takes it: a sequence, made when it is read."""

    __slots__ = ("array", "spec")

    def __init__(self, spec: TensorSpec, array: Array) -> None:
        self.spec = spec
        self.array = array

    def __iter__(self) -> Iterator[Any]:
        elements = tensors.to_list(self.array)
        if self.spec.datatype.is_bytes:
            return map(tensors.as_bytes, elements)
        return iter(elements)

    def __len__(self) -> int:
        return int(self.array.size)


class ArrayResponse(InferenceResponse, Response):
    """Checked arrays on their way out.

    Args:
        model_name: As served.
        model_version: As served; None without one.
        arrays: The outputs to send.
        parameters: The response's own parameters.
    """

    def __init__(
        self,
        model_name: str,
        model_version: str | None,
        arrays: list[NamedArray],
        parameters: Mapping[str, Any],
    ) -> None:
        # As model_construct does: the values are ours, validating them would copy them.
        headers: dict[str, str] = {}
        state = {
            "model_name": model_name,
            "model_version": model_version,
            "id": None,
            "parameters": Parameters.model_construct(headers=headers, **parameters),
            # Not None, so that FastAPI does not hang its background tasks on it.
            "background": _NO_TASKS,
            "arrays": arrays,
            "response_parameters": parameters,
            "http_headers": headers,
        }
        object.__setattr__(self, "__dict__", state)
        object.__setattr__(self, "__pydantic_fields_set__", _FIELDS)
        object.__setattr__(self, "__pydantic_extra__", None)
        object.__setattr__(self, "__pydantic_private__", None)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        # gRPC asks for `outputs`, REST never does.
        if name != "outputs":
            raise AttributeError(name)
        outputs = [
            ResponseOutput.model_construct(
                name=named.spec.name,
                shape=list(named.array.shape),
                datatype=named.spec.datatype.name,
                parameters=None,
                data=ArrayData(named.spec, named.array),
            )
            for named in self.__dict__["arrays"]
        ]
        self.__dict__["outputs"] = outputs
        return outputs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response as JSON over HTTP."""
        body = orjson.dumps(
            self._as_json(_json_array), option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        )
        headers = [(k.lower().encode(), v.encode()) for k, v in self.http_headers.items()]
        headers.append((b"content-length", b"%d" % len(body)))
        headers.append((b"content-type", b"application/json"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The response as JSON has it, with lists for tensors: what server-sent events show."""
        return self._as_json(tensors.to_list)

    def model_dump_json(self, *args: Any, **kwargs: Any) -> str:
        """As `model_dump`, in JSON text."""
        return orjson.dumps(self.model_dump()).decode()

    def _as_json(self, numbers: Any) -> dict[str, Any]:
        state = self.__dict__
        body = {"model_name": state["model_name"]}
        if state["model_version"]:
            body["model_version"] = state["model_version"]
        body["id"] = state["id"]
        if state["response_parameters"]:
            body["parameters"] = state["response_parameters"]
        body["outputs"] = [_json_tensor(named, numbers) for named in state["arrays"]]
        return body


class ErrorResponse(InferenceResponse):
    """The last item of a stream that failed: an error event over SSE, a status over gRPC."""

    def __init__(self, model_name: str, error: MLServerError) -> None:
        object.__setattr__(self, "__dict__", {"model_name": model_name, "parameters": None})
        object.__setattr__(self, "__pydantic_fields_set__", set())
        object.__setattr__(self, "__pydantic_extra__", None)
        object.__setattr__(self, "__pydantic_private__", None)
        self.__dict__["error"] = error

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "outputs":
            raise self.__dict__["error"]
        raise AttributeError(name)

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"error": str(self.__dict__["error"])}


_NO_TASKS = BackgroundTasks()
_FIELDS = {"model_name", "model_version", "id", "parameters", "outputs"}


def _json_array(array: Array) -> Any:
    return np.ascontiguousarray(array.ravel())


def _json_tensor(named: NamedArray, numbers: Any) -> dict[str, Any]:
    array, datatype = named.array, named.spec.datatype
    tensor: dict[str, Any] = {
        "name": named.spec.name,
        "shape": list(array.shape),
        "datatype": datatype.name,
    }
    if not datatype.is_bytes:
        tensor["data"] = numbers(array)
        return tensor
    tensor["data"], is_base64 = tensors.to_json_bytes(array)
    if is_base64:
        tensor["parameters"] = {"content_type": "base64"}
    return tensor
