"""Commands that call a deployed function with values that its contract admits."""

from __future__ import annotations

import json
import math
import shlex
from urllib.parse import quote

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.protocol.samples import example

from .addresses import Address

_READABLE = 200
"""Elements, beyond which nobody reads a command."""


def curl(definition: FunctionDefinition, model: str, address: Address) -> str:
    """A `curl` command; `mlserver-pyfunc infer` where the tensors are too large to be written.

    Args:
        definition: Declares the tensors.
        model: Its name, as served.
        address: Where.
    """
    required = [tensor for tensor in definition.inputs if not tensor.optional]
    sizes = [math.prod(1 if size == -1 else size for size in t.shape) for t in required]
    if sum(sizes) > _READABLE:
        words = ["mlserver-pyfunc", "infer", address.url, "-m", model, "--random"]
        for name, value in address.headers.items():
            words += ["--header", f"{name}: {value}"]
        return shlex.join(words)
    headers = {"Content-Type": "application/json", **address.headers}
    words = ["curl", "--fail-with-body", "-sS"]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    body = json.dumps({"inputs": example([tensor.spec for tensor in required])}, ensure_ascii=False)
    url = f"{address.url}/v2/models/{quote(model, safe='')}/infer"
    return shlex.join([*words, "-d", body, url])
