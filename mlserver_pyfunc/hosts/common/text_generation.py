"""The text form of `/generate` and `/generate_stream`: a prompt in, a text out.

Follows generate_rest.yaml of the Open Inference Protocol. The prompt is the input `text_input`, or
the only BYTES input that a request may not leave out; the text is the output `text_output`, or the
only BYTES output. A key of `parameters` is the input of its name, else a parameter of the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.errors import ContractError
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.response import json_output
from mlserver_pyfunc.protocol.types import short_repr

from .rest_response import ArrayResponse

STATUSES = {400: 422, 503: 429}
"""The statuses that the text form has for a wrong request and for a full queue."""

_PROMPT, _TEXT = "text_input", "text_output"


def is_text_call(path: str, body: Any) -> bool:
    """Returns whether a call is in the text form. Both paths take requests of `infer` too."""
    is_generate = path.rpartition("/")[2].startswith("generate")
    return is_generate and isinstance(body, dict) and _PROMPT in body


def to_request(body: dict[str, Any], model: str, definition: FunctionDefinition) -> dict[str, Any]:
    """Returns the request of `infer` that a request in the text form stands for.

    Raises ContractError if it has no text, or the model does not make texts of texts. Status 400.
    """
    inputs = {tensor.name: tensor.spec for tensor in definition.inputs}
    prompt = _text([spec for spec in inputs.values() if not spec.optional], _PROMPT)
    if prompt is None or _text([tensor.spec for tensor in definition.outputs], _TEXT) is None:
        raise ContractError(
            f'model "{model}" cannot generate: expected an input "{_PROMPT}" and an output '
            f'"{_TEXT}", or one required BYTES input and one BYTES output; call infer'
        )
    text, parameters = body.get(_PROMPT), body.get("parameters") or {}
    if not isinstance(text, str) or not isinstance(parameters, dict):
        form = f'{{"{_PROMPT}": text, "parameters": object}}'
        raise ContractError(f'request of model "{model}": expected {form}, got {short_repr(body)}')
    given = {**parameters, prompt.name: text}
    return {
        "inputs": [_tensor(inputs[name], given[name]) for name in given if name in inputs],
        "parameters": {name: given[name] for name in given if name not in inputs},
    }


def to_response(response: ArrayResponse) -> bytes:
    """Writes a response in the text form. Other outputs and parameters stand beside the text."""
    text = _text([named.spec for named in response.arrays], _TEXT)
    body: dict[str, Any] = dict(response.parameters)
    for named in response.arrays:
        data = json_output(named)["data"]
        body[named.spec.name] = data[0] if named.array.size == 1 else data
        if named.spec is text:
            body[_TEXT] = "".join(body.pop(text.name))
    body["model_name"] = response.model_name
    if response.model_version:
        body["model_version"] = response.model_version
    return orjson.dumps(body)


def _text(specs: Sequence[TensorSpec], name: str) -> TensorSpec | None:
    texts = [spec for spec in specs if spec.datatype.is_bytes]
    named = [spec for spec in texts if spec.name == name] or texts
    return named[0] if len(named) == 1 else None


def _tensor(spec: TensorSpec, value: Any) -> dict[str, Any]:
    values = value if isinstance(value, list) else [value]
    # The last axis of any size has the elements of a list.
    free = [axis for axis, size in enumerate(spec.shape) if size == -1]
    shape = [1 if size == -1 else size for size in spec.shape]
    if free:
        shape[free[-1]] = len(values)
    return {"name": spec.name, "datatype": spec.datatype.name, "shape": shape, "data": values}
