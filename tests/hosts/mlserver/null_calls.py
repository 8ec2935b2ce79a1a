"""Calls of Triton's clients and of MLServer's PandasCodec, each in a process of its own."""

from __future__ import annotations

import importlib
import json
import urllib.request
from typing import Any

import numpy as np

Arrays = dict[str, Any]


def triton(protocol: str, address: str, model: str, arrays: Arrays, asked: list[str]) -> Arrays:
    """Sends arrays by tritonclient, as binary tensors. Returns all outputs as lists."""
    module = importlib.import_module(f"tritonclient.{protocol}")
    utils = importlib.import_module("tritonclient.utils")
    with module.InferenceServerClient(address.removeprefix("http://")) as client:
        inputs = []
        for name, array in arrays.items():
            datatype = utils.np_to_triton_dtype(array.dtype)
            inputs.append(module.InferInput(name, list(array.shape), datatype))
            inputs[-1].set_data_from_numpy(array)
        outputs = [module.InferRequestedOutput(name) for name in asked] or None
        try:
            result = client.infer(model, inputs, outputs=outputs)
        except utils.InferenceServerException as error:
            return {"error": str(error)}
        body = result.get_response(as_json=True) if protocol == "grpc" else result.get_response()
        return {each["name"]: result.as_numpy(each["name"]).tolist() for each in body["outputs"]}


def pandas_body(frame: Any) -> dict[str, Any]:
    """Returns the JSON of what PandasCodec makes of a frame."""
    from mlserver.codecs import PandasCodec

    request = PandasCodec.encode_request(frame, use_bytes=False)
    body: dict[str, Any] = json.loads(request.model_dump_json())
    return body


def pandas_by_rest(url: str, model: str, frame: Any) -> Any:
    """Sends what PandasCodec makes of a frame, and reads the answer by it."""
    from mlserver.codecs import PandasCodec
    from mlserver.types import InferenceResponse

    body = json.dumps(pandas_body(frame)).encode()
    request = urllib.request.Request(
        f"{url}/v2/models/{model}/infer", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        response = InferenceResponse.model_validate(json.load(answer))
    return PandasCodec.decode_response(response)


def pandas_by_grpc(address: str, model: str, frame: Any, raw: bool) -> Any:
    """The same by MLServer's own converters and stub."""
    import grpc
    from mlserver.codecs import PandasCodec
    from mlserver.grpc import converters
    from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

    request = PandasCodec.encode_request(frame)
    message = converters.ModelInferRequestConverter.from_types(request, model, use_raw=raw)
    with grpc.insecure_channel(address) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(message)
    decoded = PandasCodec.decode_response(converters.ModelInferResponseConverter.to_types(answer))
    for name in decoded:
        decoded[name] = [x.decode() if isinstance(x, bytes) else x for x in decoded[name]]
    return decoded


def mixed(count: int) -> Arrays:
    """Arrays with a companion for each, whose null elements are zero or empty."""
    source = np.random.default_rng(count)
    nulls = {f"{name}.nulls": source.random(count) < 0.4 for name in "asb"}
    a = source.integers(1, 9, count)
    s = np.array([f"é{i}".encode() for i in range(count)], object)
    b = source.random(count) < 0.5
    a[nulls["a.nulls"]], s[nulls["s.nulls"]], b[nulls["b.nulls"]] = 0, b"", False
    return {"a": a, "s": s, "b": b, **{name: each for name, each in nulls.items() if each.any()}}
