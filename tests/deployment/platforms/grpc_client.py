"""One gRPC call; a process of its own, as Triton's client and MLServer cannot share one."""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
import numpy as np

TIMEOUT = 60
DTYPES = {"FP32": np.float32, "FP64": np.float64, "BYTES": np.object_}


def infer(address: str, request: dict[str, Any]) -> dict[str, Any]:
    """Sends raw tensors; gives the outputs by name, as lists."""
    from tritonclient import grpc as triton

    inputs = []
    for tensor in request["inputs"]:
        array = np.array(tensor["data"], DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
        part = triton.InferInput(tensor["name"], tensor["shape"], tensor["datatype"])
        part.set_data_from_numpy(array)
        inputs.append(part)
    with triton.InferenceServerClient(address) as client:
        try:
            result = client.infer(request["model"], inputs, client_timeout=TIMEOUT)
        except triton.InferenceServerException as error:
            return {"status": error.status(), "error": error.message()}
        outputs = [output.name for output in result.get_response().outputs]
        return {"status": "OK", "outputs": {name: _listed(result, name) for name in outputs}}


def ready(address: str, model: str) -> dict[str, Any]:
    """Asks for a model's readiness."""
    from tritonclient import grpc as triton

    with triton.InferenceServerClient(address) as client:
        try:
            return {"ready": client.is_model_ready(model, client_timeout=TIMEOUT)}
        except triton.InferenceServerException as error:
            return {"ready": False, "error": error.message()}


def health(address: str, service: str, seconds: float) -> dict[str, Any]:
    """The gRPC health check that a kubelet's grpc probe makes."""
    name = service.encode()
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            # Field 1, the status, with 1 for SERVING.
            return {"healthy": check(message, timeout=seconds) == b"\x08\x01"}
        except grpc.RpcError as error:
            return {"healthy": False, "error": error.code().name}


def _listed(result: Any, name: str) -> list[Any]:
    values = result.as_numpy(name).tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in values]


ACTIONS = {"infer": infer, "ready": ready, "health": health}

if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    print(json.dumps(ACTIONS[arguments.pop("action")](**arguments)))
