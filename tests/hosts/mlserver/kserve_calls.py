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
