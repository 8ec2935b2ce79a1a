"""The fields of a request are the same in a worker as in the server's process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from .functions import loaded

HANDLERS = """
import json

def shown(request):
    tensors = [(t.name, list(t.shape), t.data.tolist(), dict(t.parameters)) for t in request.inputs]
    return [request.id, dict(request.parameters), tensors, list(request.outputs)]

def whole(x, request, parameters, headers, event):
    found = [shown(request), dict(parameters), dict(headers)]
    return [json.dumps([*found, event.body, dict(event.headers), dict(event.fields)])]

def some(x, parameters, headers):
    return [json.dumps([dict(parameters), dict(headers)])]

def only_headers(x, headers):
    return [json.dumps(dict(headers))]

def only_event(x, event):
    return [json.dumps([event.body, dict(event.headers), dict(event.fields)])]
"""


class Parameters(dict[str, Any]):
    headers = {"a": "b"}  # noqa: RUF012


@pytest.mark.parametrize("handler", ["whole", "some", "only_headers", "only_event"])
async def test_a_worker_gets_the_fields_that_its_handler_takes(handler: str) -> None:
    x = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}
    outputs = [{"name": "y", "datatype": "BYTES", "shape": [-1]}]
    requests = [
        SimpleNamespace(
            id="r", parameters=Parameters(k=1), inputs=[SimpleNamespace(**x, parameters={"q": 2})],
            outputs=[SimpleNamespace(name="y")],
        ),
        SimpleNamespace(
            id="", parameters=None, inputs=[SimpleNamespace(**x, parameters=None)], outputs=None
        ),
    ]  # fmt: skip
    found = []
    for isolation in ("none", "process"):
        async with loaded(HANDLERS, handler, isolation=isolation, outputs=outputs) as function:
            answers = [await function.infer(request) for request in requests]
        found.append([answer.arrays[0].array.tolist() for answer in answers])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]
