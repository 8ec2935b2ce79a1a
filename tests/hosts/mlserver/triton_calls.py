"""The same requests by Triton's public clients; the gRPC one in a process of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from .wire import DTYPES, Reply, Request, Tensor


def infer_by_http(url: str, request: Request, *, binary: bool) -> Reply:
    from tritonclient import http

    with http.InferenceServerClient(url.removeprefix("http://")) as client:
        inputs = []
        for tensor in request.inputs:
            part = http.InferInput(tensor.name, list(tensor.shape), tensor.datatype)
            part.set_data_from_numpy(_array(tensor), binary_data=binary)
            inputs.append(part)
        names = request.outputs
        outputs = [http.InferRequestedOutput(name, binary_data=binary) for name in names] or None
        try:
            result = client.infer(request.model, inputs, outputs=outputs)
        except Exception as error:
            return Reply(500, str(error))
        outputs = result.get_response()["outputs"]
        return _reply(200, result, {output["name"]: output["datatype"] for output in outputs})


def infer_by_grpc(address: str, request: Request) -> Reply:
    from tritonclient import grpc

    with grpc.InferenceServerClient(address) as client:
        inputs = []
        for tensor in request.inputs:
            part = grpc.InferInput(tensor.name, list(tensor.shape), tensor.datatype)
            part.set_data_from_numpy(_array(tensor))
            inputs.append(part)
        outputs = [grpc.InferRequestedOutput(name) for name in request.outputs] or None
        try:
            result = client.infer(request.model, inputs, outputs=outputs)
        except Exception as error:
            return Reply("ERROR", str(error))
        outputs = result.get_response().outputs
        return _reply("OK", result, {output.name: output.datatype for output in outputs})


def _array(tensor: Tensor) -> Any:
    array = np.empty(len(tensor.values), dtype=DTYPES[tensor.datatype])
    array[:] = tensor.values
    return array.reshape(tensor.shape)


def _reply(status: int | str, result: Any, datatypes: dict[str, str]) -> Reply:
    outputs = {}
    for name, datatype in datatypes.items():
        array = result.as_numpy(name)
        # Some versions of the client give an empty array of another dtype.
        assert array.dtype == np.dtype(DTYPES[datatype]) or not array.size
        values = array.ravel().tolist()
        if datatype == "BYTES":
            values = [value.encode() if isinstance(value, str) else value for value in values]
        outputs[name] = Tensor(name, datatype, array.shape, values)
    return Reply(status, outputs=outputs)


def status(protocol: str, address: str, models: list[str]) -> dict[str, Any]:
    """Asks for all statuses by the client's own settings."""
    with _client(protocol, address) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            **{model: client.is_model_ready(model) for model in models},
        }


def infer_once(protocol: str, address: str, model: str) -> tuple[str, str]:
    """Calls a model by the client's own settings.

    Returns:
        Type and text of the exception, or an empty text and the elements of "y".
    """
    module = _module(protocol)
    part = module.InferInput("x", [1, 4], "FP32")
    part.set_data_from_numpy(np.array([[1, 2, 3, 4]], np.float32))
    with _client(protocol, address) as client:
        try:
            return "", str(client.infer(model, [part]).as_numpy("y").ravel().tolist())
        except Exception as error:
            return type(error).__name__, str(error)


def _module(protocol: str) -> Any:
    import importlib

    return importlib.import_module(f"tritonclient.{protocol}")


def _client(protocol: str, address: str) -> Any:
    return _module(protocol).InferenceServerClient(address.removeprefix("http://"))


def read_by_http(url: str, model: str, version: str = "") -> dict[str, Any]:
    """What the REST client reads of a model; the error if there is one."""
    from tritonclient import http

    with http.InferenceServerClient(url.removeprefix("http://")) as client:
        try:
            return {
                "config": client.get_model_config(model, version),
                "statistics": client.get_inference_statistics(model, version),
                "all": client.get_inference_statistics(),
                "extensions": client.get_server_metadata()["extensions"],
            }
        except Exception as error:
            return {"error": str(error)}


def read_by_grpc(address: str, model: str, version: str = "") -> dict[str, Any]:
    """The same by the gRPC client, in its JSON form. That has 64-bit numbers as text."""
    from tritonclient import grpc

    with grpc.InferenceServerClient(address) as client:
        try:
            return {
                "config": client.get_model_config(model, version, as_json=True)["config"],
                "statistics": client.get_inference_statistics(model, version, as_json=True),
                "all": client.get_inference_statistics(as_json=True),
                "extensions": client.get_server_metadata(as_json=True)["extensions"],
            }
        except Exception as error:
            return {"error": str(error)}


def stream_by_grpc(
    address: str,
    requests: list[Request],
    headers: dict[str, str] | None = None,
    empty_final: bool = False,
) -> list[dict[str, Any]]:
    """The items of one stream for all requests, as the client's callback gets them."""
    from tritonclient import grpc

    items = []

    def take(result: Any, error: Any) -> None:
        if error is not None:
            items.append({"error": error.message()})
            return
        response = result.get_response()
        values = {output.name: result.as_numpy(output.name).tolist() for output in response.outputs}
        final = response.parameters["triton_final_response"]
        flag = {"final": final.bool_param} if final.HasField("bool_param") else {}
        items.append({"model": response.model_name, "id": response.id, **values, **flag})

    with grpc.InferenceServerClient(address) as client:
        client.start_stream(take, headers=headers)
        for request in requests:
            inputs = []
            for tensor in request.inputs:
                part = grpc.InferInput(tensor.name, list(tensor.shape), tensor.datatype)
                part.set_data_from_numpy(_array(tensor))
                inputs.append(part)
            client.async_stream_infer(
                request.model,
                inputs,
                request_id=request.id,
                enable_empty_final_response=empty_final,
            )
        # Waits for the answers to all of them.
        client.stop_stream()
    return items


def leave_stream(address: str, request: Request, log: str) -> list[str]:
    """Cancels the requests of a stream once a file exists; returns the errors that it got."""
    from tritonclient import grpc

    errors = []

    def take(result: Any, error: Any) -> None:
        errors.append(error.status() if error is not None else str(result.get_response()))

    with grpc.InferenceServerClient(address) as client:
        client.start_stream(take)
        inputs = []
        for tensor in request.inputs:
            part = grpc.InferInput(tensor.name, list(tensor.shape), tensor.datatype)
            part.set_data_from_numpy(_array(tensor))
            inputs.append(part)
        client.async_stream_infer(request.model, inputs)
        while not Path(log).exists():
            time.sleep(0.01)
        client.stop_stream(cancel_requests=True)
    return errors
