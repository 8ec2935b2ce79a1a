"""Example commands that call a deployed function, with values that fit its contract."""

from __future__ import annotations

import json
import math
import shlex
from urllib.parse import quote

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.protocol.samples import examples

from .addresses import Address

_READABLE = 200
"""Number of elements up to which a command is short enough to read."""


def curl(definition: FunctionDefinition, model: str, address: Address) -> str:
    """Returns a `curl` command, or `mlserver-pyfunc infer`, which asks the server for the tensors.

    The latter if they are too large to write, or if only the handler's signature tells them.
    """
    required = [tensor for tensor in definition.inputs if not tensor.optional]
    sizes = [math.prod(1 if size == -1 else size for size in t.sizes) for t in required]
    if sum(sizes) > _READABLE or "inputs" not in definition.written:
        words = ["mlserver-pyfunc", "infer", address.url, "-m", model, "--random"]
        for name, value in address.headers.items():
            words += ["--header", f"{name}: {value}"]
        return shlex.join(words)
    headers = {"Content-Type": "application/json", **address.headers}
    words = ["curl", "--fail-with-body", "-sS"]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    declared = {tensor.name: tensor.example for tensor in required if tensor.example is not None}
    inputs = examples([tensor.spec for tensor in required], declared)
    body = json.dumps({"inputs": inputs}, ensure_ascii=False)
    url = f"{address.url}/v2/models/{quote(model, safe='')}/infer"
    return shlex.join([*words, "-d", body, url])
