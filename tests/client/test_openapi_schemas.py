from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from mlserver_pyfunc.client.openapi import document
from mlserver_pyfunc.definition import parse

X = {"name": "x", "datatype": "INT8", "shape": [-1]}
OTHER = {"name": "z", "datatype": "FP32", "shape": [1, 1], "data": [0.5]}


def schema(name: str, **more: Any) -> dict[str, Any]:
    source = {"code": "f = 1", "handler": "f"}
    definition = parse({"source": source, "inputs": [X], "outputs": [X], **more})
    whole: dict[str, Any] = document(definition, "m")
    return {"$ref": f"#/components/schemas/{name}", "components": whole["components"]}


@pytest.mark.parametrize(
    ("name", "side", "body"),
    [
        ("InferenceRequest", "requests", {"inputs": [OTHER], "outputs": [{"name": "z"}]}),
        ("InferenceResponse", "responses", {"model_name": "m", "outputs": [OTHER, OTHER]}),
    ],
)
def test_a_side_that_warns_admits_any_tensors(name: str, side: str, body: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, schema(name))
    jsonschema.validate(body, schema(name, contract={side: "warn"}))


def test_without_declared_outputs_any_can_be_asked_for() -> None:
    free = schema("InferenceRequest", outputs=[], contract={"responses": "warn"})
    body = {"inputs": [{**X, "shape": [1], "data": [1]}], "outputs": [{"name": "any"}]}
    jsonschema.validate(body, free)
