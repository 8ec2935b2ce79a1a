"""Asks a server for one inference, over REST and over gRPC: a program, run where it can be reached.

It runs in a network of another's, and its stubs clash with MLServer's. Reads
`{"rest": HOST:PORT, "grpc": HOST:PORT, "model": NAME, "inputs": [...]}` as in the protocol
from its standard input; writes the outputs' values by name, once per route.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

DTYPES = {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64, "BYTES": np.object_}


def main() -> None:
    question = json.load(sys.stdin)
    import tritonclient.grpc as grpc
    import tritonclient.http as rest

    answers = {
        "rest": _ask(rest, question["rest"], question),
        "grpc": _ask(grpc, question["grpc"], question),
    }
    json.dump(answers, sys.stdout)


def _ask(library: Any, address: str, question: dict[str, Any]) -> dict[str, Any]:
    client = library.InferenceServerClient(address)
    tensors = []
    for item in question["inputs"]:
        values = item["data"]
        if item["datatype"] == "BYTES":
            values = [value.encode() for value in values]
        array = np.array(values, DTYPES[item["datatype"]]).reshape(item["shape"])
        tensor = library.InferInput(item["name"], item["shape"], item["datatype"])
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    answer = client.infer(question["model"], tensors)
    response = answer.get_response()
    outputs = response["outputs"] if isinstance(response, dict) else response.outputs
    names = [output["name"] if isinstance(output, dict) else output.name for output in outputs]
    found = {name: _values(answer.as_numpy(name)) for name in names}
    client.close()
    return found


def _values(array: Any) -> list[Any]:
    if array.dtype == np.object_:
        return [value.decode() for value in array.reshape(-1)]
    return list(array.tolist())


if __name__ == "__main__":
    main()
