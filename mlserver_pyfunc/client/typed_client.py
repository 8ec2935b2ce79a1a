"""Writes a typed Python client of a function: one module, for NumPy and tritonclient."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.protocol.tensors import DATATYPES

_HEAD = '''\
"""Client of the model `{name}`. Written by `mlserver-pyfunc client`; needs tritonclient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MODEL_NAME = {name!r}


@dataclass(frozen=True)
class Result:
    """What `{name}` answers.

    Attributes:
{attributes}
    """

{fields}


class Client:
    """Calls `{name}` on a server.

    Args:
        url: `http://HOST:PORT` of REST, or `HOST:PORT` of gRPC.
        protocol: How to call it.
        model_name: As served.
    """

    def __init__(
        self,
        url: str,
        *,
        protocol: Literal["rest", "grpc"] = "rest",
        model_name: str = MODEL_NAME,
    ) -> None:
        self._module = import_module(_MODULES[protocol])
        self._client = _connect(self._module, url)
        self._model_name = model_name

    def predict({signature}) -> Result:
        """Calls the model.

        Args:
{arguments}
        Raises:
            tritonclient.utils.InferenceServerException: The server's error, in its words.
        """
        inputs = _inputs(self._module, {values})
        return _result(self._client.infer(self._model_name, inputs))

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient:
    """As `Client`, for asyncio."""

    def __init__(
        self,
        url: str,
        *,
        protocol: Literal["rest", "grpc"] = "rest",
        model_name: str = MODEL_NAME,
    ) -> None:
        self._module = import_module(_MODULES[protocol] + ".aio")
        self._client = _connect(self._module, url)
        self._model_name = model_name

    async def predict({signature}) -> Result:
        """As `Client.predict`."""
        inputs = _inputs(self._module, {values})
        return _result(await self._client.infer(self._model_name, inputs))

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


_MODULES = {{"rest": "tritonclient.http", "grpc": "tritonclient.grpc"}}
_INPUTS: Mapping[str, tuple[str, Any]] = {{
{inputs}
}}


def _connect(module: Any, url: str) -> Any:
    scheme, separator, address = url.partition("://")
    address = (address if separator else url).rstrip("/")
    return module.InferenceServerClient(address, ssl=scheme == "https")


def _inputs(module: Any, values: Mapping[str, Any]) -> list[Any]:
    inputs = []
    for name, value in values.items():
        if value is None:
            continue
        datatype, dtype = _INPUTS[name]
        array = np.asarray(value, dtype=dtype)
        tensor = module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def _result(response: Any) -> Result:
    return Result(
{results}
    )
'''

_TEXT = """

def _text(array: NDArray[Any]) -> NDArray[Any]:
    decoded = np.empty(array.size, dtype=object)
    decoded[:] = [element.decode() for element in array.ravel().tolist()]
    return decoded.reshape(array.shape)
"""


def client_module(definition: FunctionDefinition, name: str) -> str:
    """The source of a client module.

    Args:
        definition: Declares the tensors.
        name: Of the model, as served.
    """
    inputs = sorted(definition.inputs, key=lambda tensor: tensor.optional)
    outputs = definition.outputs
    names = dict(zip((t.name for t in inputs), _identifiers(inputs), strict=True))
    fields = dict(zip((t.name for t in outputs), _identifiers(outputs), strict=True))
    text = _HEAD.format(
        name=name,
        attributes="\n".join(f"        {fields[t.name]}: {_described(t)}" for t in outputs),
        fields="\n".join(f"    {fields[t.name]}: {_annotation(t)}" for t in outputs),
        signature=_signature(inputs, names),
        arguments="".join(f"            {names[t.name]}: {_described(t)}\n" for t in inputs) or "",
        values="{" + ", ".join(f"{t.name!r}: {names[t.name]}" for t in inputs) + "}",
        inputs="\n".join(f"    {t.name!r}: ({t.datatype!r}, {_dtype(t)})," for t in inputs),
        results="\n".join(f"        {fields[t.name]}={_read(t)}," for t in outputs),
    )
    if not inputs:
        text = text.replace("        Args:\n        Raises:", "        Raises:")
        text = text.replace(" = {\n\n}", " = {}")
    return text + (_TEXT if any(t.content_type == "str" for t in outputs) else "")


def _signature(inputs: Sequence[TensorDefinition], names: dict[str, str]) -> str:
    parts = ["self"]
    for tensor in inputs:
        annotation = _annotation(tensor)
        suffix = " | None = None" if tensor.optional else ""
        parts.append(f"{names[tensor.name]}: {annotation}{suffix}")
    line = ", ".join(parts)
    if len(line) <= 60:
        return line
    return "\n        " + ",\n        ".join(parts) + ",\n    "


def _identifiers(tensors: Sequence[TensorDefinition]) -> list[str]:
    taken = {"self", "inputs"}
    identifiers = []
    for tensor in tensors:
        name = re.sub(r"\W", "_", tensor.name)
        if name[0].isdigit():
            name = f"_{name}"
        while keyword.iskeyword(name) or name in taken:
            name += "_"
        taken.add(name)
        identifiers.append(name)
    return identifiers


def _described(tensor: TensorDefinition) -> str:
    elements = "str" if tensor.content_type == "str" else DATATYPES[tensor.datatype].dtype.name
    elements = "bytes" if elements == "object" else elements
    text = f"{elements} of shape {list(tensor.shape)}"
    # One line, and no end to the docstring it stands in.
    note = " ".join((tensor.description or "").split()).replace("\\", "\\\\").replace('"', "'")
    return f"{text}; {note}." if note else f"{text}."


def _annotation(tensor: TensorDefinition) -> str:
    return f"NDArray[{_dtype(tensor)}]"


def _dtype(tensor: TensorDefinition) -> str:
    name = DATATYPES[tensor.datatype].dtype.name
    return {"object": "np.object_", "bool": "np.bool_"}.get(name, f"np.{name}")


def _read(tensor: TensorDefinition) -> str:
    read = f"response.as_numpy({tensor.name!r})"
    return f"_text({read})" if tensor.content_type == "str" else read
