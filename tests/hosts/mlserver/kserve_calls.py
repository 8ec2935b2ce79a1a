"""Requests by KServe's public client, in a process of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from .wire import DTYPES


def infer_by_rest(url: str, datatype: str, values: list[Any]) -> list[Any]:
    """Echoes a tensor by the client's own settings; returns the elements that came back."""
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    array = np.empty(len(values), dtype=DTYPES[datatype])
    # The client takes text as bytes and gives it back as str.
    array[:] = [value.encode() if isinstance(value, str) else value for value in values]
    name = f"{datatype.lower()}_any"
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)

    async def call() -> Any:
        client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
        return await client.infer(url, InferRequest("echo", [tensor]), model_name="echo")

    response = asyncio.run(call())
    output = next(output for output in response.outputs if output.name == name)
    got: list[Any] = output.as_numpy().ravel().tolist()
    return got


def status(protocol: str, address: str, models: list[str]) -> dict[str, Any]:
    """Asks for all statuses by the client's own settings; the type's name of an exception."""

    async def ask(function: Any, *arguments: Any) -> Any:
        try:
            return await function(*arguments)
        except Exception as error:
            return type(error).__name__

    async def call() -> dict[str, Any]:
        client, base = _client(protocol, address)
        try:
            return {
                "live": await ask(client.is_server_live, *base),
                "ready": await ask(client.is_server_ready, *base),
                **{model: await ask(client.is_model_ready, *base, model) for model in models},
            }
        finally:
            await client.close()

    return asyncio.run(call())


def infer_once(protocol: str, address: str, model: str) -> tuple[str, str]:
    """Calls a model by the client's own settings.

    Returns:
        Type and text of the exception, or an empty text and the elements of "y".
    """
    from kserve import InferInput, InferRequest

    part = InferInput("x", [1, 4], "FP32")
    part.set_data_from_numpy(np.array([[1, 2, 3, 4]], np.float32))

    async def call() -> tuple[str, str]:
        client, base = _client(protocol, address)
        name = {"model_name": model} if base else {}
        try:
            answer = await client.infer(*base, InferRequest(model, [part]), **name)
            return "", str(answer.outputs[0].as_numpy().ravel().tolist())
        except Exception as error:
            return type(error).__name__, str(error)
        finally:
            await client.close()

    return asyncio.run(call())


def _client(protocol: str, address: str) -> tuple[Any, tuple[str, ...]]:
    """Returns a client, and the arguments that its calls begin with."""
    from kserve import InferenceGRPCClient, InferenceRESTClient, RESTConfig

    if protocol == "grpc":
        return InferenceGRPCClient(address), ()
    return InferenceRESTClient(RESTConfig(protocol="v2")), (address,)
